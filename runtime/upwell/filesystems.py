"""Where large results are stored: a folder, a URL of fsspec, the memory of this process, a store of one's own."""

import importlib
import inspect
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from errno import ENOENT
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, unquote, urlsplit

from upwell.core.errors import ConfigurationError, MissingExtraError
from upwell.core.results import ResultStorage
from upwell.core.storage_keys import BESIDE, InvalidStorageKeyError, check_key, names_aside

__all__ = [
    "InvalidStorageKeyError",
    "LocalFileSystem",
    "MemoryFileSystem",
    "RemoteFileSystem",
    "ResultStorage",
    "check_storage",
    "resolve_storage",
]

_FILE: Final = "file://"
_BUCKETS: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
"""Protocols without real folders; asked to make one, some would make a bucket."""

_NO_FOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)  # not on Windows


class LocalFileSystem:
    """Files in a folder. Each is complete or not there: written beside its place, synced, renamed.

    Files are readable by their owner only (0600), and so are folders made here (0700). Nothing outside of
    `basepath` is reached, not by symbolic links either.
    """

    def __init__(self, basepath: str | os.PathLike[str]) -> None:
        """`basepath` is made when something is first written; `~` is the home folder."""
        self.basepath = Path(basepath).expanduser().absolute()

    @property
    def spec(self) -> str:
        return _FILE + quote(self.basepath.as_posix())

    def read(self, key: str) -> bytes:
        path = self._path(key)
        for place in _places(path):
            with suppress(FileNotFoundError):
                return _read(place)
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(path))

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        _make_folders(path.parent)
        temporary = path.with_name(f"{BESIDE}{secrets.token_hex(8)}.tmp")
        try:
            _write_new(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)

    def exists(self, key: str) -> bool:
        return any(map(_is_file, _places(self._path(key))))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def remove_unfinished(self, older_than_seconds: float = 86_400) -> int:
        """Delete what writers that were killed have left half-written; returns how many files that were."""
        found = [path for path in self.basepath.rglob(f"{BESIDE}*.tmp") if _age_seconds(path) > older_than_seconds]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def read_path(self, path: str) -> bytes:
        """`read`, by the name that Prefect's users know."""
        return self.read(path)

    def write_path(self, path: str, content: bytes) -> None:
        """`write`, by the name that Prefect's users know."""
        self.write(path, content)

    def _path(self, key: str) -> Path:
        """The file of a key; raises InvalidStorageKeyError if a link on its way leads out."""
        path = self.basepath / check_key(key)
        base, folder = os.path.realpath(self.basepath), os.path.realpath(path.parent)
        if os.path.commonpath((base, folder)) != base:
            raise InvalidStorageKeyError(
                f"The storage key {key!r} leads out of {self.basepath}: a part of it is a symbolic link to {folder}. "
                "Remove the link."
            )
        return path

    def __repr__(self) -> str:
        return f"LocalFileSystem({str(self.basepath)!r})"


def _places(path: Path) -> Iterator[Path]:
    """Where to look for a file: at its path or, for an instant, aside, from where it is either gone or back."""
    yield path
    yield from path.parent.glob(names_aside(path.name))
    yield path


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | _NO_FOLLOW), "rb") as file:
        return file.read()


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:  # finished just now
        return 0.0


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:  # made by another writer just now; a file is found out when it is opened
        return
    os.chmod(folder, 0o700)  # whatever the umask took away
    _sync_folder(folder.parent)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_FOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        os.chmod(path, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the names in it survive a power cut. Windows cannot open a folder, and does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RemoteFileSystem:
    """What fsspec reaches: `RemoteFileSystem("s3://bucket/results", settings={"anon": False})`.

    On object stores (S3, GCS, Azure) a file is complete or not there. Elsewhere (SFTP, FTP, SMB) a write that is
    cut short leaves a part, which is found to be damaged when it is read.
    `settings` are those of fsspec's file system for that protocol; keep passwords there or in the environment, not
    in the URL, which is remembered with each result.
    """

    def __init__(self, basepath: str, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ConfigurationError for what is no URL, MissingExtraError if a package for it is not installed."""
        protocol, _, path = _check_url(basepath).partition("://")
        self.basepath = f"{protocol}://{path.rstrip('/')}"
        self.settings = dict(settings or {})

    @property
    def spec(self) -> str:
        return self.basepath

    def read(self, key: str) -> bytes:
        system, path = self._open(key)
        return bytes(system.cat_file(path))

    def write(self, key: str, data: bytes) -> None:
        system, path = self._open(key)
        try:
            system.pipe_file(path, data)
        except FileNotFoundError:
            if _protocol(self.basepath) in _BUCKETS:
                raise
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, data)

    def exists(self, key: str) -> bool:
        system, path = self._open(key)
        return bool(system.isfile(path))

    def delete(self, key: str) -> None:
        system, path = self._open(key)
        with suppress(FileNotFoundError):
            system.rm_file(path)

    def read_path(self, path: str) -> bytes:
        """`read`, by the name that Prefect's users know."""
        return self.read(path)

    def write_path(self, path: str, content: bytes) -> None:
        """`write`, by the name that Prefect's users know."""
        self.write(path, content)

    def _open(self, key: str) -> tuple[Any, str]:
        """fsspec keeps its file systems itself, one for each thread and process: none is kept here."""
        check_key(key)
        system, base = _fsspec("fsspec.core").url_to_fs(self.basepath, **self.settings)
        return system, f"{base.rstrip('/')}/{key}"

    def __repr__(self) -> str:
        return f"RemoteFileSystem({self.basepath!r})"  # settings may hold passwords


class MemoryFileSystem:
    """A dict in this process: for tests. Gone when the process ends, and not shared with others."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.spec = f"in-memory:{secrets.token_hex(8)}"

    def read(self, key: str) -> bytes:
        return self.files[check_key(key)]

    def write(self, key: str, data: bytes) -> None:
        self.files[check_key(key)] = bytes(data)

    def exists(self, key: str) -> bool:
        return check_key(key) in self.files

    def delete(self, key: str) -> None:
        self.files.pop(check_key(key), None)

    def __repr__(self) -> str:
        return f"MemoryFileSystem({len(self.files)} files)"


# --- From what a user gives to a storage --------------------------------------------------------------------


def resolve_storage(value: object) -> ResultStorage:
    """The storage that is meant: by a folder, a `file://` or fsspec URL, or a store of one's own.

    A store of one's own is any object with `read(key)` and `write(key, data)`, or with Prefect's `read_path` and
    `write_path`; give it a `spec` (a text) if there are several of one class. Nothing is made or connected yet.
    Raises ConfigurationError, or MissingExtraError if the package for a URL's protocol is not installed.
    """
    if isinstance(value, str) and "://" in value:
        return _of_file_url(value) if _protocol(value) in ("file", "local") else RemoteFileSystem(value)
    if isinstance(value, str | os.PathLike):
        return _of_folder(cast("str | os.PathLike[str]", value))
    if not isinstance(value, type):
        if isinstance(value, ResultStorage):
            _refuse_async(value, "read", "write", "exists", "delete")
            return value
        for read, write in (("read", "write"), ("read_path", "write_path")):
            if callable(getattr(value, read, None)) and callable(getattr(value, write, None)):
                _refuse_async(value, read, write)
                return _OwnStorage(value, getattr(value, read), getattr(value, write))
    raise ConfigurationError(
        f"Results cannot be stored in {value!r}. Give a folder, a URL such as 's3://bucket/results', or an object with "
        "the methods read(key) and write(key, data)."
    )


def check_storage(value: object) -> None:
    """Raise what `resolve_storage` would, and say early that a folder is a file. Makes nothing."""
    storage = resolve_storage(value)
    if isinstance(storage, LocalFileSystem) and storage.basepath.exists() and not storage.basepath.is_dir():
        raise ConfigurationError(
            f"Results cannot be stored in {storage.basepath}: it is not a folder. Give another one."
        )


def _of_folder(folder: str | os.PathLike[str]) -> LocalFileSystem:
    path = os.fspath(folder)
    if not isinstance(cast("object", path), str) or not path.strip() or "\0" in path:
        raise ConfigurationError(f"Results cannot be stored in the folder {folder!r}: that names no folder.")
    return LocalFileSystem(path)


def _of_file_url(url: str) -> LocalFileSystem:
    path = unquote(url.partition("://")[2].removeprefix("localhost"))
    if not path.startswith("/"):
        raise ConfigurationError(f"{url!r} names no folder of this machine; write it as 'file:///absolute/folder'.")
    return _of_folder(path)


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


def _check_url(url: object) -> str:
    """The URL, if fsspec is there, knows its protocol, and has the package for it."""
    if not isinstance(url, str) or "://" not in url or not url.isprintable():
        raise ConfigurationError(f"{url!r} is not a URL such as 's3://bucket/results'.")
    if urlsplit(url).password:
        raise ConfigurationError(
            f"The URL of the {_protocol(url)} storage holds a password, which would be stored with each result. "
            "Use RemoteFileSystem(url, settings={'password': ...}) or the environment."
        )
    registry = _fsspec("fsspec.registry")
    for protocol in _protocol(url).split("::"):  # `simplecache::s3://...`
        if protocol in registry.registry:
            continue
        known: Mapping[str, str] | None = registry.known_implementations.get(protocol)
        if known is None:
            raise ConfigurationError(
                f"Results cannot be stored in {url!r}: fsspec knows no protocol {protocol!r}. Known: "
                f"{', '.join(sorted(registry.known_implementations))}."
            )
        if not _is_installed(registry, protocol, known["class"].partition(".")[0]):
            hint = known.get("err", f"install the package that has {known['class']}")
            raise MissingExtraError(f"To store results in {url!r}, a package is missing. {hint}.")
    return url


def _is_installed(registry: Any, protocol: str, package: str) -> bool:
    if package != "fsspec":
        return find_spec(package) is not None  # not imported yet: some take a second
    try:
        registry.get_filesystem_class(protocol)
    except ImportError:
        return False
    return True


def _fsspec(module: str) -> Any:
    try:
        return importlib.import_module(module)  # only now: it is optional, and loads much
    except ImportError as error:
        raise MissingExtraError(
            "To store results at a URL, install fsspec and the package for its protocol: `pip install fsspec s3fs` for "
            "s3://, `gcsfs` for gs://, `adlfs` for abfs://."
        ) from error


class _OwnStorage:
    """A user's object that reads and writes, as a storage."""

    def __init__(self, owner: object, read: Callable[[str], bytes], write: Callable[[str, bytes], object]) -> None:
        self._owner, self._read, self._write = owner, read, write

    @property
    def spec(self) -> str:
        cls = type(self._owner)
        return str(getattr(self._owner, "spec", f"custom:{cls.__module__}.{cls.__qualname__}"))

    def read(self, key: str) -> bytes:
        return self._read(key)

    def write(self, key: str, data: bytes) -> None:
        self._write(key, data)

    def exists(self, key: str) -> bool:
        if callable(own := getattr(self._owner, "exists", None)):
            return bool(own(key))
        try:
            self._read(key)
        except (FileNotFoundError, KeyError):
            return False
        return True

    def delete(self, key: str) -> None:
        own = getattr(self._owner, "delete", None)
        if not callable(own):
            raise ConfigurationError(f"{self._owner!r} cannot delete results; give it a method delete(key).")
        own(key)

    def __repr__(self) -> str:
        return repr(self._owner)


def _refuse_async(value: object, *methods: str) -> None:
    for method in methods:
        if inspect.iscoroutinefunction(getattr(value, method)):
            raise ConfigurationError(
                f"{type(value).__qualname__}.{method} is `async def`. Results are stored in a thread beside the loop: "
                "make it a plain `def` that may block."
            )
