"""The wrappers that say how an argument is to be treated: `unmapped`, `allow_failure`, `quote`, `opaque`."""

from upwell.core.annotations import allow_failure, opaque, quote, unmapped

__all__ = ["allow_failure", "opaque", "quote", "unmapped"]
