"""Every error that upwell raises."""

from __future__ import annotations

from upwell.core.errors import *  # noqa: F403  # the one list of them is there
