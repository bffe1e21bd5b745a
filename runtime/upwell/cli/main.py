"""Where `upwell` begins: which profile is meant, what a command's end means to the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from upwell.cli.exits import FAILED, INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 if it failed or was refused, 2 if it was not understood."""
    try:
        import cyclopts  # noqa: F401  # pyright: ignore[reportUnusedImport]  # here: to say which extra has it
    except ImportError as error:
        print(f"The command line needs {error.name}: pip install 'upwell[server]'", file=sys.stderr)  # noqa: T201
        return FAILED
    from upwell.cli.app import run_command

    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = run_command(_use_profile(tokens))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who reads has read enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so at exit
        return 0


def _use_profile(tokens: list[str]) -> list[str]:
    """Take `--profile NAME` off the front."""
    if tokens[:1] == ["--profile"] and len(tokens) > 1:
        os.environ["UPWELL_PROFILE"] = tokens[1]
        return tokens[2:]
    if tokens and tokens[0].startswith("--profile="):
        os.environ["UPWELL_PROFILE"] = tokens[0].partition("=")[2]
        return tokens[1:]
    return tokens


if __name__ == "__main__":
    sys.exit(main())
