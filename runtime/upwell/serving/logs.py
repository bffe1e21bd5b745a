"""The logger of those who carry out runs."""

from __future__ import annotations

import logging
from typing import Final

LOGGER: Final = logging.getLogger("upwell.serving")
