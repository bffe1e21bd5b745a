"""Storages of results: what is written is all there or not at all, and nothing leads out of them."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from upwell.core.errors import ConfigurationError, MissingExtraError
from upwell.filesystems import (
    InvalidStorageKeyError,
    LocalFileSystem,
    MemoryFileSystem,
    RemoteFileSystem,
    ResultStorage,
    check_storage,
    resolve_storage,
)

ESCAPES = [
    "",
    "/etc/passwd",
    "//x",
    "..",
    ".",
    "../x",
    "a/../../x",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "..\\x",
    "C:\\x",
    "a/\u202eb",
    "\ud800",
    "x" * 256,
    "\u00e9" * 128,
    "/".join(["x" * 200] * 6),
    None,
    7,
    b"a",
    Path("a"),
]


def fsspec_or_skip() -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: `pip install fsspec`")


class Dictionary:
    """A store of one's own with the fewest methods."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def read(self, key: str) -> bytes:
        return self.kept[key]

    def write(self, key: str, data: bytes) -> None:
        self.kept[key] = data


class LikePrefects:
    """A store with the methods of Prefect's file systems, and all others."""

    spec = "blocks/mine"

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def read_path(self, path: str) -> bytes:
        return self.kept[path]

    def write_path(self, path: str, content: bytes) -> None:
        self.kept[path] = content

    def exists(self, path: str) -> bool:
        return path in self.kept

    def delete(self, path: str) -> None:
        self.kept.pop(path, None)


class Late:
    async def read(self, key: str) -> bytes:
        raise NotImplementedError

    async def write(self, key: str, data: bytes) -> None:
        raise NotImplementedError


@pytest.fixture(params=["local", "memory", "fsspec memory", "fsspec file", "likeprefects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ResultStorage:
    if request.param.startswith("fsspec"):
        fsspec_or_skip()
    made: dict[str, Any] = {
        "local": lambda: LocalFileSystem(tmp_path / "results"),
        "memory": MemoryFileSystem,
        "fsspec memory": lambda: RemoteFileSystem(f"memory://{uuid4()}/results/"),
        "fsspec file": lambda: RemoteFileSystem(f"file://{tmp_path}/results"),
        "likeprefects": lambda: resolve_storage(LikePrefects()),
    }
    storage: ResultStorage = made[request.param]()
    return storage


# --- What every storage does --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["a", "a/b/c.json", "e\u0301t\u00e9 x", "x" * 255, "...", "a..b", ".hidden", "C:", "%2F", "~"]
)
def test_what_is_written_is_read_until_it_is_deleted(storage: ResultStorage, key: str) -> None:
    assert not storage.exists(key)
    storage.write(key, b"one")
    storage.write(key, b"two, longer")
    assert storage.exists(key)
    assert storage.read(key) == b"two, longer"
    storage.delete(key)
    assert not storage.exists(key)
    storage.delete(key)
    with pytest.raises((FileNotFoundError, KeyError)):
        storage.read(key)


def test_any_bytes_and_none_at_all_can_be_written(storage: ResultStorage) -> None:
    for content in (b"", bytes(range(256)) * 1000):
        storage.write("k", content)
        assert storage.read("k") == content


def test_a_storage_with_a_url_is_opened_again_by_its_spec(tmp_path: Path) -> None:
    fsspec_or_skip()
    for storage in (LocalFileSystem(tmp_path), RemoteFileSystem(f"memory://{uuid4()}/x/")):
        storage.write("a/b", b"kept")
        again = resolve_storage(storage.spec)
        assert again.read("a/b") == b"kept"
        assert again.spec == storage.spec


@pytest.mark.parametrize("key", ESCAPES, ids=lambda key: ascii(key)[:20])
def test_no_key_leads_out_of_a_storage(tmp_path: Path, key: Any) -> None:
    storages: list[Any] = [LocalFileSystem(tmp_path / "in"), MemoryFileSystem()]
    for storage in storages:
        for method, arguments in (("read", ()), ("exists", ()), ("delete", ()), ("write", (b"x",))):
            with pytest.raises(InvalidStorageKeyError, match="A key is a relative path such as 'reports"):
                getattr(storage, method)(key, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ESCAPES, ids=lambda key: ascii(key)[:20])
def test_no_key_leads_out_of_a_url(tmp_path: Path, key: Any) -> None:
    fsspec_or_skip()
    with pytest.raises(InvalidStorageKeyError):
        RemoteFileSystem(f"file://{tmp_path}/in").write(key, b"x")
    assert list(tmp_path.iterdir()) == []


# --- Files --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o000, 0o777], ids=["umask 0", "umask 777"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_files_and_folders_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    LocalFileSystem(tmp_path / "new" / "results").write("a/b/c", b"x")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"new": 0o700, "results": 0o700, "a": 0o700, "b": 0o700, "c": 0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755, "a folder that was there keeps its mode"


def test_a_file_that_was_readable_by_others_is_not_after_it_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"")
    (tmp_path / "k").chmod(0o644)
    LocalFileSystem(tmp_path).write("k", b"x")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_a_write_that_is_cut_short_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    storage = LocalFileSystem(tmp_path)
    storage.write("k", b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(KeyboardInterrupt):
            storage.write("k", b"new")
    assert storage.read("k") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["k"], "nothing half-written is left"


def test_a_process_killed_before_the_rename_leaves_what_was_there(tmp_path: Path) -> None:
    storage = LocalFileSystem(tmp_path)
    storage.write("k", b"old")
    script = (
        "import os, sys; from upwell.filesystems import LocalFileSystem\n"
        "os.replace = lambda *a: os._exit(9)\n"
        "LocalFileSystem(sys.argv[1]).write('k', b'new')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60).returncode == 9
    assert storage.read("k") == b"old"
    storage.write("k", b"newer")
    assert storage.read("k") == b"newer"
    assert storage.remove_unfinished() == 0, "it may be being written right now"
    assert storage.remove_unfinished(older_than_seconds=-1) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from upwell.filesystems import LocalFileSystem\n"
        "storage = LocalFileSystem(sys.argv[1])\n"
        "storage.write('k', b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    storage.write('k', bytes(100_000))\n"
        "except OSError as error:\n"
        "    print(error.strerror, storage.read('k'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "File too large b'old'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_folder_that_another_writer_makes_first_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def make_twice(path: Path, mode: int) -> None:
        make(path, mode)
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", make_twice)
    storage = LocalFileSystem(tmp_path)
    storage.write("a/b/k", b"x")
    assert storage.read("a/b/k") == b"x"


def test_readers_and_writers_of_one_key_in_many_threads_see_whole_files(tmp_path: Path) -> None:
    storage = LocalFileSystem(tmp_path)
    contents = [bytes([number]) * (1000 + number) for number in range(8)]
    storage.write("a/k", contents[0])
    faults: list[object] = []

    def write(content: bytes) -> None:
        for _ in range(20):
            storage.write("a/k", content)
            if storage.read("a/k") not in contents:
                faults.append("torn")

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["k"]


def test_writers_of_one_key_in_two_processes_leave_a_whole_file(tmp_path: Path) -> None:
    script = (
        "import sys; from upwell.filesystems import LocalFileSystem\n"
        "storage = LocalFileSystem(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    storage.write('new/folder/k', sys.argv[2].encode() * 5000)\n"
        "    assert storage.read('new/folder/k') in (b'a' * 5000, b'b' * 5000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), letter]) for letter in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["k"]


# --- Links --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    base = tmp_path / "base"
    base.mkdir()
    (base / "out").symlink_to(outside)
    storage = LocalFileSystem(base)
    for act in (
        lambda: storage.read("out/secret"),
        lambda: storage.write("out/new/x", b"x"),
        lambda: storage.exists("out/secret"),
        lambda: storage.delete("out/secret"),
    ):
        with pytest.raises(InvalidStorageKeyError, match=r"symbolic link to .*outside"):
            act()
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_file_that_is_a_link_is_not_read_and_is_replaced_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    storage = LocalFileSystem(tmp_path / "base")
    storage.write("other", b"")
    (tmp_path / "base/k").symlink_to(secret)
    assert not storage.exists("k")
    with pytest.raises(OSError, match="symbolic links"):
        storage.read("k")
    storage.write("k", b"mine")
    assert (storage.read("k"), secret.read_bytes()) == (b"mine", b"secret")


def test_a_base_that_is_a_link_is_the_users_own_choice(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "real")
    LocalFileSystem(tmp_path / "base").write("a/k", b"x")
    assert (tmp_path / "real/a/k").read_bytes() == b"x"


# --- From what a user gives ---------------------------------------------------------------------------------


def test_a_folder_can_be_said_in_many_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    odd = tmp_path / "a b?#%20é"
    for given, folder in [
        ("results", tmp_path / "results"),
        ("~/results", tmp_path / "results"),
        (tmp_path / "results", tmp_path / "results"),
        (f"file://{tmp_path}/results", tmp_path / "results"),
        (f"local://localhost{tmp_path}/results", tmp_path / "results"),
        (LocalFileSystem(odd).spec, odd),
    ]:
        storage = resolve_storage(given)
        assert isinstance(storage, LocalFileSystem)
        assert storage.basepath == folder
        check_storage(given)
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"


@pytest.mark.parametrize(
    "nonsense",
    [None, 7, "", "  ", "a\0b", b"x", [], {}, Dictionary, LocalFileSystem, object(), "file://host/x", "file://"],
)
def test_nonsense_is_refused_with_what_can_be_given(nonsense: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Give a folder, a URL|names no folder"):
        check_storage(nonsense)


def test_a_file_in_the_place_of_the_folder_is_found_early(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigurationError, match="it is not a folder"):
        check_storage(tmp_path / "f")


def test_a_store_of_ones_own_needs_two_methods() -> None:
    own = Dictionary()
    storage = resolve_storage(own)
    assert isinstance(storage, ResultStorage)
    assert storage.spec == f"custom:{__name__}.Dictionary"
    storage.write("k", b"x")
    assert (storage.read("k"), storage.exists("k"), storage.exists("no"), own.kept) == (b"x", True, False, {"k": b"x"})
    with pytest.raises(ConfigurationError, match="cannot delete results; give it a method"):
        storage.delete("k")


def test_a_store_with_prefects_methods_keeps_its_own_spec() -> None:
    assert resolve_storage(LikePrefects()).spec == "blocks/mine"


def test_a_store_with_async_methods_is_refused_early() -> None:
    with pytest.raises(ConfigurationError, match=r"Late\.read is `async def`.*make it a plain `def`"):
        check_storage(Late())


def test_prefects_names_read_and_write_too(tmp_path: Path) -> None:
    storage = LocalFileSystem(basepath=str(tmp_path))
    storage.write_path("k", content=b"x")
    assert storage.read_path("k") == b"x"


def test_storages_cross_to_other_processes(tmp_path: Path) -> None:
    storage = pickle.loads(pickle.dumps(LocalFileSystem(tmp_path)))
    storage.write("k", b"x")
    assert LocalFileSystem(tmp_path).read("k") == b"x"
    assert repr(storage) == f"LocalFileSystem({str(tmp_path)!r})"


# --- URLs ---------------------------------------------------------------------------------------------------


def test_an_unknown_protocol_lists_those_that_are_known() -> None:
    fsspec_or_skip()
    with pytest.raises(ConfigurationError, match=r"no protocol 's4'. Known: .*s3"):
        check_storage("s4://bucket")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec_or_skip()

    def finds_nothing(_: str) -> None:
        return None

    monkeypatch.setattr("upwell.filesystems.find_spec", finds_nothing)
    with pytest.raises(MissingExtraError, match=r"a package is missing.*s3fs"):
        check_storage("s3://bucket/x")


def test_without_fsspec_a_url_says_what_to_install_and_a_folder_works(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from upwell.filesystems import check_storage\n"
        "check_storage(sys.argv[1])\n"
        "check_storage('file://' + sys.argv[1])\n"
        "try:\n    check_storage('s3://bucket/x')\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("MissingExtraError")
    assert "`pip install fsspec s3fs` for s3://" in done.stdout


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    fsspec_or_skip()
    with pytest.raises(ConfigurationError, match="settings=") as caught:
        resolve_storage("ftp://user:hunter2@host/x")
    assert "hunter2" not in str(caught.value)


def test_settings_are_neither_shown_nor_part_of_the_spec() -> None:
    fsspec_or_skip()
    storage = RemoteFileSystem("memory://x", settings={"token": "hunter2"})
    assert "hunter2" not in repr(storage) + storage.spec
    storage.write("k", b"x")
    assert RemoteFileSystem("memory://x").read("k") == b"x"


def test_threads_share_a_remote_storage() -> None:
    fsspec_or_skip()
    storage = RemoteFileSystem(f"memory://{uuid4()}")
    threads = [threading.Thread(target=storage.write, args=(f"k/{number}", b"x" * number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(storage.read(f"k/{number}")) for number in range(8)] == list(range(8))
