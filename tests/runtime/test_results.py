"""Stored results: what is read back is what was written, or an error says which is lost, how, and what to do."""

from __future__ import annotations

import datetime as dt
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from upwell.core.errors import ConfigurationError, MissingResult, UpwellError
from upwell.filesystems import InvalidStorageKeyError, LocalFileSystem, MemoryFileSystem, RemoteFileSystem
from upwell.results import (
    ResultDamaged,
    ResultExpired,
    ResultNotFound,
    ResultNotTrusted,
    ResultRecord,
    ResultStorageError,
    ResultStore,
    expired,
    not_kept,
)
from upwell.serializers import CompressedSerializer, DeserializationError, SerializationError, Serializer

NOW = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
KEY = b"0123456789abcdef"
BIG = list(range(10_000))
SERIALIZERS = ["msgpack", "json", "pickle", "compressed/msgpack", "compressed/json", "compressed/pickle"]


@dataclass
class Item:
    x: Any


class Unreadable:
    """Pickles well, and cannot be read."""

    def __reduce__(self) -> Any:
        return (int, ("not a number",))


opened: list[bool] = []


def note_opening() -> None:
    opened.append(True)


class Noted:
    """Notes that it was opened."""

    def __reduce__(self) -> Any:
        return (note_opening, ())


class OneWay(Serializer):
    name = "one-way"

    def dumps(self, value: object) -> bytes:
        return b"x"

    def loads(self, data: bytes | bytearray | memoryview) -> Any:
        raise KeyError("what?")


class Failing(MemoryFileSystem):
    """A storage that cannot be reached."""

    def read(self, key: str) -> bytes:
        raise TimeoutError("no answer")

    def write(self, key: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    def exists(self, key: str) -> bool:
        raise TimeoutError("no answer")

    def delete(self, key: str) -> None:
        raise TimeoutError("no answer")


def file_of(record: ResultRecord, folder: Path) -> Path:
    assert record.location is not None
    return folder / record.location


# --- Inline and in files ------------------------------------------------------------------------------------


def test_a_small_result_is_inline_and_makes_no_file(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results")
    record = store.put({"a": 1})
    assert (record.storage, record.location) == (None, None)
    assert record.data is not None
    assert store.get(record) == {"a": 1}
    assert store.exists(record)
    store.delete(record)
    assert list(tmp_path.iterdir()) == []


def test_a_large_result_is_a_file_named_by_its_content(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record = store.put(BIG)
    assert record.data is None
    assert record.storage == LocalFileSystem(tmp_path).spec
    assert record.location == f"{record.checksum[:2]}/{record.checksum[2:]}"
    assert store.get(record) == BIG
    assert store.put(BIG).location == record.location
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_the_limit_between_the_two_is_said_in_bytes(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, "json", inline_bytes=5)
    assert store.put("abc").data == b'"abc"'
    assert store.put("abcd").data is None
    assert ResultStore(tmp_path, inline_bytes=0).put(1).data is None


def test_a_result_with_a_key_is_a_file_of_that_name_in_plain_content(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, "json")
    record = store.put({"a": 1}, key="reports/latest.json")
    assert (tmp_path / "reports/latest.json").read_text() == '{"a":1}'
    assert store.get(record) == {"a": 1}


def test_without_a_storage_all_results_are_inline_and_a_key_is_refused() -> None:
    store = ResultStore()
    assert store.get(store.put(BIG)) == BIG
    with pytest.raises(ConfigurationError, match="'k', but no result_storage is set"):
        store.put(1, key="k")


def test_a_default_storage_is_asked_for_when_it_is_first_needed(tmp_path: Path) -> None:
    asked: list[int] = []

    def default() -> Path:
        asked.append(1)
        return tmp_path

    store = ResultStore(default)
    store.get(store.put(1))
    assert not asked
    assert store.get(store.put(BIG)) == store.get(store.put(BIG)) == BIG
    assert asked == [1]


def test_preparing_writes_nothing_and_says_what_is_to_be_written(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record, content = store.prepare(BIG)
    assert content is not None
    assert not store.exists(record)
    store.write(record, content)
    assert store.get(record) == BIG
    assert store.prepare(1)[1] is None


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("value", [None, {"a": [1, "x", None, 2.5]}, BIG], ids=["none", "small", "large"])
def test_every_serializer_gives_back_what_it_wrote_in_every_place(tmp_path: Path, serializer: str, value: Any) -> None:
    for storage in (None, tmp_path, MemoryFileSystem()):
        store = ResultStore(storage, serializer, inline_bytes=100)
        record = store.put(value)
        assert record.serializer == serializer
        assert store.get(record) == value
        assert ResultStore(storage).get(record) == value, "the record says what wrote it"


def test_the_default_gives_back_the_same_types(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, inline_bytes=0)
    value = {"t": (1, {2}), "when": NOW, "item": Item([1]), "array": np.arange(3, dtype="int16")}
    back = store.get(store.put(value))
    assert str(back) == str(value)
    assert back["array"].dtype == np.int16


def test_results_in_urls_are_found_again_by_their_record_alone(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: `pip install fsspec`")
    for storage in (f"memory://{uuid4()}", RemoteFileSystem(f"file://{tmp_path}/x"), f"file://{tmp_path}/y"):
        record = ResultStore(storage).put(BIG)
        assert ResultStore().get(ResultRecord.from_bytes(record.to_bytes())) == BIG


def test_a_result_in_a_store_of_ones_own_needs_that_store() -> None:
    mine = MemoryFileSystem()
    record = ResultStore(mine).put(BIG)
    assert ResultStore(mine).get(record) == BIG
    with pytest.raises(ConfigurationError, match=r"in-memory:.*use ResultStore\(storage=...\)"):
        ResultStore(MemoryFileSystem()).get(record)


def test_another_process_reads_a_result_by_its_record(tmp_path: Path) -> None:
    record = ResultStore(tmp_path).put(BIG)
    script = (
        "import sys; from upwell.results import ResultRecord, ResultStore\n"
        "print(sum(ResultStore().get(ResultRecord.from_bytes(sys.stdin.buffer.read()))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=record.to_bytes(), capture_output=True, timeout=60, check=True
    )
    assert int(done.stdout) == sum(BIG)


def test_equal_results_can_be_written_and_read_by_many_threads_at_once(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    good: list[bool] = []

    def work() -> None:
        for _ in range(10):
            good.append(store.get(store.put(BIG)) == BIG)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 80


def test_storing_loads_nothing_that_is_not_needed(tmp_path: Path) -> None:
    script = (
        "import sys; from upwell.results import ResultStore; store = ResultStore(sys.argv[1], inline_bytes=9)\n"
        "assert store.get(store.put({'a': 'x' * 99})) == {'a': 'x' * 99}\n"
        "print(*{'fsspec', 'numpy', 'pickle', 'cloudpickle', 'orjson', 'asyncio', 'sqlite3'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


# --- Records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline_bytes", [0, 1000])
def test_a_record_crosses_the_database_unchanged(tmp_path: Path, inline_bytes: int) -> None:
    store = ResultStore(tmp_path, inline_bytes=inline_bytes)
    record = store.put([1], expires=NOW + DAY)
    assert ResultRecord.from_bytes(record.to_bytes()) == record
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91", msgspec.msgpack.encode(["msgpack"]), b"not a record"])
def test_a_damaged_record_says_so(data: bytes) -> None:
    with pytest.raises(ResultDamaged, match=r"record of a result cannot be read.*refresh_cache=True"):
        ResultRecord.from_bytes(data)


def test_a_record_shows_where_its_result_is_but_never_the_result(tmp_path: Path) -> None:
    assert repr(ResultStore().put("hunter2")) == "ResultRecord(msgpack, 8 bytes, kept inline)"
    shown = repr(ResultStore(tmp_path, inline_bytes=0).put("hunter2", key="k"))
    assert shown == f"ResultRecord(msgpack, 8 bytes, 'k' in file://{tmp_path})"


def test_a_record_without_data_or_place_is_damaged() -> None:
    record = ResultRecord(serializer="msgpack", size=1, checksum="", created=NOW)
    with pytest.raises(ResultDamaged, match="neither data nor a place"):
        ResultStore().get(record)


# --- What cannot be written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["msgpack", "pickle", "compressed/pickle"])
def test_what_could_not_be_read_back_fails_when_it_is_written(tmp_path: Path, serializer: str) -> None:
    with pytest.raises(SerializationError, match="Unreadable"):
        ResultStore(tmp_path, serializer, inline_bytes=0).put(Unreadable())
    assert list(tmp_path.iterdir()) == []


def test_a_serializer_of_ones_own_is_checked_to_read_what_it_wrote() -> None:
    for serializer in (OneWay(), CompressedSerializer(OneWay())):
        with pytest.raises(SerializationError, match=r"one-way' wrote a int that it cannot read back \(KeyError"):
            ResultStore(serializer=serializer).put(1)


def test_a_storage_that_fails_is_named_with_the_reason_and_what_to_check() -> None:
    store = ResultStore(Failing())
    record, _ = store.prepare(BIG)
    with pytest.raises(
        ResultStorageError, match=r"could not be stored as .* No space left on device. Check that"
    ) as full:
        store.put(BIG)
    assert isinstance(full.value.__cause__, OSError)
    for act in (store.get, store.exists, store.delete):
        with pytest.raises(ResultStorageError, match="TimeoutError: no answer"):
            act(record)


def test_a_store_that_returns_no_bytes_is_named() -> None:
    class Texts(MemoryFileSystem):
        def read(self, key: str) -> bytes:
            return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # what is tested

    store = ResultStore(Texts())
    with pytest.raises(ResultStorageError, match=r"read\(\) returned str, and must return bytes"):
        store.get(store.put(BIG))


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a\0", ""])
def test_a_key_that_leads_out_is_refused_before_anything_is_written(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidStorageKeyError):
        ResultStore(tmp_path / "in").put(1, key=key)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_store_itself_is_found_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError, match="cannot be stored in 7"):
        ResultStore(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
    with pytest.raises(ConfigurationError, match="inline_bytes is -1"):
        ResultStore(inline_bytes=-1)
    with pytest.raises(SerializationError, match="known: msgpack"):
        ResultStore(serializer="yaml")


# --- What is lost -------------------------------------------------------------------------------------------


def test_a_missing_file_says_which_where_and_what_to_do(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record = store.put(BIG)
    assert store.exists(record)
    store.delete(record)
    assert not store.exists(record)
    with pytest.raises(ResultNotFound) as caught:
        store.get(record)
    for part in (str(record.location), f"file://{tmp_path}", "Put it back", "run again with refresh_cache=True"):
        assert part in str(caught.value)


def test_a_missing_folder_is_a_missing_result(tmp_path: Path) -> None:
    record = ResultStore(tmp_path / "gone").put(BIG)
    file_of(record, tmp_path / "gone").rename(tmp_path / "elsewhere")
    for folder in (file_of(record, tmp_path / "gone").parent, tmp_path / "gone"):
        folder.rmdir()
        assert not ResultStore().exists(record)
        with pytest.raises(ResultNotFound):
            ResultStore().get(record)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "one bit": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_damaged_file_is_never_opened_and_is_named(tmp_path: Path, serializer: str, damage: str) -> None:
    store = ResultStore(tmp_path, serializer)
    record = store.put(np.random.default_rng(0).bytes(50_000).hex())
    path = file_of(record, tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    says = "not the checksum" if damage in ("one bit", "zeros") else r"[\d,]+ bytes, and \d+,\d+ were written"
    with pytest.raises(ResultDamaged, match=says) as caught:
        store.get(record)
    assert str(record.location) in str(caught.value)
    assert "refresh_cache=True" in str(caught.value)
    assert "another run" not in str(caught.value)


def test_damage_is_repaired_by_storing_the_result_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record = store.put(BIG)
    file_of(record, tmp_path).write_bytes(b"torn")
    assert store.get(store.put(BIG)) == BIG
    assert store.get(record) == BIG


def test_a_damaged_inline_result_is_named_too() -> None:
    record = ResultStore().put("abc")
    damaged = msgspec.structs.replace(record, data=b"\xa3abd")
    with pytest.raises(ResultDamaged, match="result kept inline is damaged"):
        ResultStore().get(damaged)


def test_a_file_that_another_run_has_overwritten_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    first = store.put(1, key="latest")
    second = store.put(2, key="latest")
    assert store.get(second) == 2
    with pytest.raises(ResultDamaged, match="or another run has written to the same result_storage_key since"):
        store.get(first)


def test_an_expired_result_raises_from_its_very_moment_on() -> None:
    time = [NOW]
    store = ResultStore(now=lambda: time[0])
    forever = store.put(1)
    east = dt.timezone(dt.timedelta(hours=5))
    for record in (store.put(1, expires=DAY), store.put(1, expires=(NOW + DAY).astimezone(east))):
        assert record.expires == NOW + DAY
        time[0] = NOW + DAY - dt.timedelta(microseconds=1)
        assert store.get(record) == 1
        assert not expired(record, time[0])
        time[0] = NOW + DAY
        assert expired(record, time[0])
        with pytest.raises(ResultExpired, match=r"expired at 2024-05-02T12:00:00\+00:00. Run again"):
            store.get(record)
        time[0] = NOW
    assert not expired(forever, NOW + 10_000 * DAY)


def test_a_class_that_is_not_there_any_more_is_named_with_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Item):
        pass

    Gone.__qualname__ = "Gone"
    monkeypatch.setitem(globals(), "Gone", Gone)
    record = ResultStore().put(Gone(1))
    monkeypatch.undo()
    with pytest.raises(DeserializationError, match="cannot be imported here") as caught:
        ResultStore().get(record)
    assert caught.value.__notes__ == ["This was the result kept inline."]


def test_every_way_to_lose_a_result_is_a_missing_result() -> None:
    for error in (ResultNotFound, ResultDamaged, ResultExpired, ResultNotTrusted):
        assert issubclass(error, MissingResult)
    assert issubclass(ResultStorageError, UpwellError)
    assert not issubclass(ResultStorageError, MissingResult), "it may be there when the storage is back"
    assert "'parse-3' was not persisted" in str(not_kept("parse-3"))
    assert "persist_result=True" in str(not_kept("parse-3"))


# --- Signed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline_bytes", [0, 1000])
def test_signed_results_are_read_with_their_key(tmp_path: Path, inline_bytes: int) -> None:
    record = ResultStore(tmp_path, signing_key=KEY, inline_bytes=inline_bytes).put([1])
    assert record.signed
    assert ResultStore(tmp_path, signing_key=KEY).get(record) == [1]
    with pytest.raises(ResultNotTrusted, match="is signed, and no key is set"):
        ResultStore(tmp_path).get(record)
    with pytest.raises(ResultNotTrusted, match="signed with another key"):
        ResultStore(tmp_path, signing_key=KEY + b"x").get(record)


def test_what_is_not_signed_is_never_opened_where_a_key_is_set(tmp_path: Path) -> None:
    guarded = ResultStore(tmp_path, signing_key=KEY)
    evil = pickle.dumps(Noted())
    assert pickle.loads(evil) is None
    assert opened, "this pickle does run code"
    opened.clear()
    unsigned = ResultRecord(
        serializer="pickle",
        size=len(evil),
        checksum=blake2b(evil, digest_size=20).hexdigest(),
        created=NOW,
        data=evil,
    )
    for forged in (
        unsigned,
        msgspec.structs.replace(unsigned, signed=True),
        msgspec.structs.replace(unsigned, signed=True, checksum=""),
    ):
        with pytest.raises(ResultNotTrusted, match=r"not signed|not what was signed"):
            guarded.get(forged)
    assert not opened


def test_a_signed_file_that_was_replaced_is_refused(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, "pickle", signing_key=KEY)
    record = store.put("a" * 20_000)
    path = file_of(record, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"a", b"b"))
    with pytest.raises(ResultNotTrusted, match="It was not opened"):
        store.get(record)


def test_a_signature_holds_for_its_serializer_only() -> None:
    store = ResultStore(serializer="json", signing_key=KEY)
    record = store.put([1])
    with pytest.raises(ResultNotTrusted):
        store.get(msgspec.structs.replace(record, serializer="pickle"))


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has 3 bytes, and must have at least 16"):
        ResultStore(signing_key=b"abc")
