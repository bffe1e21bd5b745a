"""How a function reaches a child: by its module and name where that leads to it, else by value."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import reduce
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

from upwell.core import packing_pickle


def reference_of(fn: Callable[..., Any]) -> str:
    """`module:qualname`, if that leads back to this very function or to what decorates it; else ""."""
    module_name = getattr(fn, "__module__", None)
    qualname = getattr(fn, "__qualname__", "")
    module = sys.modules.get(module_name or "")
    if module is None or module_name == "__main__" or not qualname or "<" in qualname:
        return ""
    try:
        found = reduce(getattr, qualname.split("."), module)
    except AttributeError:
        return ""
    return f"{module_name}:{qualname}" if undecorated(found) is fn else ""


def undecorated(found: Any) -> Any:
    """The function that a task or a flow was made from; anything else is what it is."""
    fn = getattr(found, "fn", None)
    return fn if callable(fn) and not isinstance(found, type) else found


def pickled(fn: Callable[..., Any]) -> bytes:
    """The function by value; raises whatever keeps it from being pickled."""
    return packing_pickle.dumps(fn)


def file_of(fn: Callable[..., Any]) -> str:
    """The source file of the function's module; "" where there is none."""
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    return getattr(module, "__file__", None) or ""


def resolve(reference: str, file: str) -> Callable[..., Any]:
    """The function that `reference_of` named, imported here."""
    module_name, _, qualname = reference.partition(":")
    found: Any = reduce(getattr, qualname.split("."), _imported(module_name, file))
    fn: Callable[..., Any] = undecorated(found)
    return fn


def _imported(name: str, file: str) -> ModuleType:
    """The module of this name; one that no path leads to is loaded from its file, as its parent process did."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not file or not (name == missing or name.startswith(f"{missing}.")):
            raise
        spec = spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
