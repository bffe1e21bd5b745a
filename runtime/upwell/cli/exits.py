"""What a command's end means to the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from upwell.cli.output import UsageError, complain
from upwell.core.errors import UpwellError

FAILED: Final = 1
"""The exit code of a command that could not do what was asked, or whose run did not complete."""
MISUSED: Final = 2
"""That of a command that was not understood."""
INTERRUPTED: Final = 130


def exit_code_of(command: Callable[[], object]) -> int:
    """Carry it out, and say why if it could not be done: the number it returns, if it returns one."""
    try:
        code = command()
    except UsageError as error:
        complain(str(error))
        return MISUSED
    except UpwellError as error:
        complain(str(error))
        return FAILED
    return code if isinstance(code, int) else 0
