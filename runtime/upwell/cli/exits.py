"""What a command's end means to the shell."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""The exit code of a command that could not do what was asked, or whose run did not complete."""
MISUSED: Final = 2
"""That of a command that was not understood."""
INTERRUPTED: Final = 130
