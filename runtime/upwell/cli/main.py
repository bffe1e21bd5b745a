"""Where `upwell` begins: which profile is meant, what a command's end means to the shell."""

from __future__ import annotations

import errno
import gc
import os
import sys
from io import TextIOWrapper

TYPE_CHECKING = False  # as type checkers know it; here is loaded only what Python has loaded anyway, see `main`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0, 1 if it failed or was refused, 2 if it was not understood.

    All else is loaded in here, so that who presses Ctrl-C meanwhile sees no traceback.
    """
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        from upwell.cli.exits import INTERRUPTED

        print("Interrupted.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _main(arguments: Sequence[str] | None) -> int:
    if is_program := arguments is None:
        gc.disable()  # while a thousand classes are loaded, of which none becomes garbage
    from upwell.cli.commands import ALIASES
    from upwell.cli.front import answer_to

    _have_somewhere_to_write()
    code = 0
    words = _use_profile(list(sys.argv[1:] if arguments is None else arguments))
    words = [*(ALIASES.get(name, name) for name in words[:1]), *words[1:]]
    try:
        answer = answer_to(words)
        code = _parsed(words) if answer is None else _run(answer)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads has read enough, such as `head`
        _write_no_more()
        return code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # that is what rich makes of it
            return 0
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        from upwell.cli.exits import FAILED

        _write_no_more()
        print(f"Error: The output cannot be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return FAILED
    finally:
        if is_program:
            gc.freeze()  # or the interpreter looks through all that was loaded once more before it ends


def _parsed(words: list[str]) -> int:
    try:
        import cyclopts  # noqa: F401  # pyright: ignore[reportUnusedImport]  # here: to say which extra has it
    except ImportError as error:
        from upwell.cli.exits import FAILED

        print(f"The command line needs {error.name}: pip install 'upwell[server]'", file=sys.stderr)  # noqa: T201
        return FAILED
    from upwell.cli.app import call

    return _run(lambda: call(words))


def _run(command: Callable[[], object]) -> int:
    from upwell.cli.exits import exit_code_of

    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    return exit_code_of(command)


def _have_somewhere_to_write() -> None:
    """Where the shell has closed an output (`>&-`) there is none; and not each has a sign for every character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process
        elif isinstance(stream := getattr(sys, name), TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _write_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says at exit that it cannot


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
