"""Every error that upwell raises."""

from __future__ import annotations

from upwell.core import errors as _errors
from upwell.core.errors import *  # noqa: F403  # the one list of them is there

__all__ = [name for name, value in vars(_errors).items() if isinstance(value, type)]
