"""Entry points: where a flow is found again, `path/to/file.py:flow` or `package.module:flow`.

A file is imported as Python would do it if the file's folder were where it looks first: what stands beside the file can
be imported, too, and a file of a package is imported as a part of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from functools import reduce
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from upwell.core.definition import Definition
from upwell.core.errors import ConfigurationError
from upwell.engine.places import LOADED_FROM_FILE, place_of

if TYPE_CHECKING:
    from types import ModuleType

    from upwell.flows import Flow


class Entrypoint(NamedTuple):
    """where: a Python file, or a module's dotted name. name: of the flow in there, `flow` or `Class.flow`."""

    where: str
    name: str

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")

    def __str__(self) -> str:
        return f"{self.where}:{self.name}"


def parse_entrypoint(text: str) -> Entrypoint:
    """An entry point, taken apart.

    Raises:
        ConfigurationError: it is none.
    """
    where, colon, name = text.rpartition(":")
    if not (colon and where.strip() and all(part.isidentifier() for part in name.split("."))):
        raise ConfigurationError(
            f"{text!r} is no entry point: it must be like `path/to/file.py:flow` or `package.module:flow`."
        )
    if not where.endswith(".py") and not all(part.isidentifier() for part in where.split(".")):
        raise ConfigurationError(
            f"{text!r} is no entry point: {where!r} is neither a file that ends in .py nor a module's name."
        )
    return Entrypoint(where, name)


def load_flow(entrypoint: str, roots: Sequence[Path] | None = None) -> Flow[..., Any]:
    """The flow at an entry point, its file or module imported.

    Args:
        roots: folders; nothing outside of them is imported, and paths count from them, the first one that has the file.
            None: whatever is asked for is imported, and paths count from the working directory.

    Raises:
        ConfigurationError: there is none, or it stands outside.
        Exception: whatever importing it raises.
    """
    wanted = parse_entrypoint(entrypoint)
    module = import_code(wanted, roots)
    try:
        found: Any = reduce(getattr, wanted.name.split("."), module)
    except AttributeError:
        known = ", ".join(flow_names(module)) or "no flow at all"
        raise ConfigurationError(f"{wanted.where} has no {wanted.name!r}; it has: {known}.") from None
    found = _flow_behind(found)
    if not is_flow(found):
        raise ConfigurationError(f"What is found at {entrypoint} is no flow, but {found!r}: decorate it with @flow.")
    flow: Flow[..., Any] = found
    return flow


def import_code(wanted: Entrypoint, roots: Sequence[Path] | None = None) -> ModuleType:
    """The module that an entry point's flow stands in; see `load_flow`."""
    return _load_file(wanted, roots) if wanted.is_file else _load_module(wanted, roots)


def is_flow(found: object) -> bool:
    """Whether this is what `@flow` makes."""
    definition = getattr(found, "_definition", None)
    return isinstance(definition, Definition) and definition.is_flow


def _flow_behind(found: Any) -> Any:
    """The flow that is meant by what a name leads to: itself, a class method's, one that calls a task."""
    if is_flow(found):
        return found
    as_flow = getattr(found, "as_flow", None)
    return as_flow() if callable(as_flow) else getattr(found, "flow", found)


def flow_names(module: object) -> list[str]:
    """The names of the flows that a module, or another namespace, holds."""
    return [name for name, value in vars(module).items() if is_flow(value)]


def entrypoint_of(flow: Flow[..., Any], root: Path | None = None) -> str:
    """Where this flow is found again.

    Args:
        root: the file's path counts from there; None: a module is named, and for a script its absolute path.

    Raises:
        ConfigurationError: it could not be found again, or its file stands outside of the root.
    """
    module = sys.modules.get(flow.fn.__module__)
    place = place_of(flow.fn)
    if module is None or place == "__main__":
        raise ConfigurationError(
            f"The flow {flow.name!r} stands in no file, so no other process can find it: put it into a .py file."
        )
    name = _name_in(module, flow)
    if "." in name and not isinstance(flow._descriptor, staticmethod):  # pyright: ignore[reportPrivateUsage]  # one library
        raise ConfigurationError(
            f"The flow {flow.name!r} is a method, and whoever calls it elsewhere has no object for it: make it a "
            "function, or a static method."
        )
    if root is None:
        return f"{place}:{name}"
    path = Path(getattr(module, "__file__", None) or "")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ConfigurationError(
            f"The flow {flow.name!r} stands in {path}, outside of {root}, where workers look for it. Give "
            "`entrypoint='package.module:flow'` if they have that package installed."
        )
    return f"{path.resolve().relative_to(root.resolve()).as_posix()}:{name}"


def _name_in(module: object, flow: Flow[..., Any]) -> str:
    """By what name a module holds a flow: its function's, or another."""
    qualname = flow.fn.__qualname__
    candidates = [qualname, *(name for name, value in vars(module).items() if value is flow)]
    for name in candidates:
        try:
            found: Any = reduce(getattr, name.split("."), module)
        except AttributeError:  # `around.<locals>.flow`, too
            continue
        if _flow_behind(found) is flow:
            return name
    raise ConfigurationError(
        f"No name leads to the flow {flow.name!r} of {getattr(module, '__name__', module)}, so no other process can "
        "find it: define it at the top of a module, not inside of a function."
    )


# --- importing ----------------------------------------------------------------------------------------------


def _load_file(wanted: Entrypoint, roots: Sequence[Path] | None) -> ModuleType:
    path = _file(wanted, roots)
    main = sys.modules["__main__"]
    main_file = getattr(main, "__file__", None)
    if main_file and Path(main_file).resolve() == path:
        return main
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").exists():
        folder, name = folder.parent, f"{folder.name}.{name}"
    _look_first_in([folder, *(roots or ())])
    loaded = sys.modules.get(name)
    if loaded is not None and _is_from(loaded, path):
        return loaded
    if _leads_to(name, path):
        return importlib.import_module(name)
    return _load_as(f"{LOADED_FROM_FILE}{blake2b(str(path).encode(), digest_size=6).hexdigest()}_{path.stem}", path)


def _file(wanted: Entrypoint, roots: Sequence[Path] | None) -> Path:
    """The file, which is there, and within the roots whatever links lead to it."""
    for root in roots or [Path.cwd()]:
        path = (root / wanted.where).resolve()
        if path.is_file() and (roots is None or path.is_relative_to(root.resolve())):
            return path
    if roots is None:
        raise ConfigurationError(f"There is no file {wanted.where} to find the flow {wanted.name!r} in.")
    raise ConfigurationError(f"There is no file {wanted.where} in {_shown(roots)}, and nothing else may be run.")


def _load_module(wanted: Entrypoint, roots: Sequence[Path] | None) -> ModuleType:
    if roots is not None:
        _look_first_in(roots)
        top = wanted.where.partition(".")[0]
        if not any(_stands_in(top, root) for root in roots):
            raise ConfigurationError(f"There is no module {top!r} in {_shown(roots)}, and nothing else may be run.")
    try:
        return importlib.import_module(wanted.where)
    except ModuleNotFoundError as error:
        if error.name and f"{wanted.where}.".startswith(f"{error.name}."):
            raise ConfigurationError(f"There is no module {wanted.where!r} to find {wanted.name!r} in.") from error
        raise


def _stands_in(top: str, root: Path) -> bool:
    """Whether a module that is not a part of another is this folder's."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
    return bool(places) and all(Path(place).resolve().is_relative_to(root.resolve()) for place in places)


def _shown(roots: Sequence[Path]) -> str:
    return ", ".join(map(str, roots)) or "any folder"


def _look_first_in(folders: Iterable[Path]) -> None:
    for folder in reversed(list(folders)):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _leads_to(name: str, path: Path) -> bool:
    """Whether importing this name would import this file."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _load_as(name: str, path: Path) -> ModuleType:
    """A file that no import leads to, as the module of this name."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is no Python file.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


__all__ = ["Entrypoint", "entrypoint_of", "flow_names", "import_code", "is_flow", "load_flow", "parse_entrypoint"]
