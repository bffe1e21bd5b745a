"""The serializers by name, what each gives back, and what each says when it cannot."""

import datetime as dt
import pickle
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np
import pytest

from upwell.serializers import (
    CompressedJSONSerializer,
    CompressedMessagePackSerializer,
    CompressedPickleSerializer,
    CompressedSerializer,
    DeserializationError,
    JSONSerializer,
    MessagePackSerializer,
    PickleSerializer,
    SerializationError,
    Serializer,
    UnknownSerializerError,
    get_serializer,
)

NAMES = ["msgpack", "json", "pickle"]
VALUE: dict[str, Any] = {"id": 1, "name": "x", "values": [1.0, 2.0, 3.0], "ok": True}


@dataclass
class Item:
    x: Any


class Note(msgspec.Struct):
    x: Any


class Reversed(Serializer):
    name = "reversed"

    def dumps(self, value: object) -> bytes:
        return str(value).encode()[::-1]

    def loads(self, data: bytes | bytearray | memoryview) -> Any:
        return bytes(data)[::-1].decode()


@pytest.mark.parametrize("name", [*NAMES, *(f"compressed/{name}" for name in NAMES)])
def test_a_name_gives_a_serializer_of_that_name_that_reads_what_it_writes(name: str) -> None:
    serializer = get_serializer(name)
    assert serializer.name == name
    assert serializer.loads(serializer.dumps(VALUE)) == VALUE
    assert serializer.loads(memoryview(serializer.dumps(VALUE))) == VALUE
    assert get_serializer(serializer) is serializer


def test_a_subclass_is_found_by_its_name_and_can_be_compressed() -> None:
    assert isinstance(get_serializer("reversed"), Reversed)
    compressed = get_serializer("compressed/reversed")
    assert compressed.loads(compressed.dumps("abc")) == "abc"


@pytest.mark.parametrize("unknown", ["yaml", "", "compressed/", "compressed/yaml", "compressed/compressed/json", 7])
def test_an_unknown_name_lists_what_is_known(unknown: Any) -> None:
    with pytest.raises(UnknownSerializerError, match=r"known: msgpack, json, pickle, .*compressed/json"):
        get_serializer(unknown)


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'json', which is that of upwell\.serializers\.JSONSerializer"):
        type("Mine", (Reversed,), {"name": "json"})


def test_messagepack_gives_back_types_that_json_does_not() -> None:
    value = {"a": (1, {2}), "when": dt.date(2024, 1, 1)}
    assert MessagePackSerializer().loads(MessagePackSerializer().dumps(value)) == value
    assert JSONSerializer().loads(JSONSerializer().dumps(value)) == {"a": [1, [2]], "when": "2024-01-01"}


def test_json_says_what_people_expect_of_common_types() -> None:
    value = [
        Item(Note(PurePosixPath("a"))),
        Decimal("1.50"),
        {1: np.float32(0.5)},
        np.arange(2),
        float("nan"),
        np.array(["2020-01-01T12", "NaT"], dtype="datetime64[ns]"),
        [np.array(5), np.arange(4)[::2], np.arange(2, dtype=">i4"), np.bool_(True), np.datetime64("NaT")],
    ]
    assert JSONSerializer().loads(JSONSerializer().dumps(value)) == [
        {"x": {"x": "a"}},
        "1.50",
        {"1": 0.5},
        [0, 1],
        None,
        ["2020-01-01T12:00:00", None],
        [5, [0, 2], [0, 1], True, None],
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_written_is_named_by_its_path(name: str) -> None:
    with pytest.raises(SerializationError, match=r"^value\['a'\]\[1\]\.x: builtins\.generator cannot be"):
        get_serializer(name).dumps({"a": [0, Item(x for x in "g")]})


def test_json_names_the_type_it_has_nothing_for() -> None:
    with pytest.raises(SerializationError, match=r"^value\[1\]: builtins\.complex .*JSON has nothing for it"):
        JSONSerializer().dumps([1, 1j])


@pytest.mark.parametrize("name", [*NAMES, *(f"compressed/{name}" for name in NAMES)])
@pytest.mark.parametrize("data", [b"", b"\xc1\x00", b"x\x9c\x00"])
def test_damaged_data_is_an_error_that_says_so(name: str, data: bytes) -> None:
    with pytest.raises(DeserializationError, match="stored data"):
        get_serializer(name).loads(data)


def test_json_never_runs_what_it_reads() -> None:
    with pytest.raises(DeserializationError):
        JSONSerializer().loads(pickle.dumps(print))


@pytest.mark.parametrize("compression", ["zlib", "lzma", "bz2"])
def test_compressed_is_smaller_and_is_read_whatever_compression_wrote_it(compression: Any) -> None:
    value = ["the same words again and again"] * 1000
    for cls in (CompressedMessagePackSerializer, CompressedJSONSerializer, CompressedPickleSerializer):
        data = cls(compression).dumps(value)
        assert len(data) < len(cls().serializer.dumps(value))
        assert cls().loads(data) == value


def test_an_unknown_compression_lists_what_is_known() -> None:
    wrong: Any = "gzip"
    with pytest.raises(ValueError, match="'gzip' is not known; use one of: zlib, lzma, bz2"):
        CompressedSerializer("json", wrong)


def test_a_repr_says_how_the_serializer_was_made() -> None:
    assert repr(get_serializer("msgpack")) == "MessagePackSerializer()"
    assert repr(CompressedSerializer("json", "bz2")) == "CompressedSerializer(JSONSerializer(), compression='bz2')"


def test_large_buffers_travel_beside_the_pickle_uncopied() -> None:
    array = np.arange(100_000.0)
    raw = bytearray(200_000)
    data, buffers = PickleSerializer().dumps_with_buffers({"a": array, "raw": pickle.PickleBuffer(raw), "small": [1]})
    assert len(data) < 1000
    assert [buffer.nbytes for buffer in buffers] == [array.nbytes, len(raw)]
    array[0] = 7  # the buffers are the array's own memory
    again = PickleSerializer().loads_with_buffers(data, buffers)
    assert np.shares_memory(again["a"], array)
    assert again["a"][0] == 7
    assert again["small"] == [1]


def test_small_buffers_stay_in_the_pickle() -> None:
    data, buffers = PickleSerializer().dumps_with_buffers(np.arange(10))
    assert buffers == []
    assert PickleSerializer().loads(data).tolist() == list(range(10))
    assert len(PickleSerializer().dumps_with_buffers(np.arange(10), min_buffer_bytes=1)[1]) == 1


def test_missing_buffers_are_an_error_that_says_so() -> None:
    data, _ = PickleSerializer().dumps_with_buffers(np.arange(100_000))
    with pytest.raises(DeserializationError, match="stored data cannot be read"):
        PickleSerializer().loads(data)


def test_the_path_is_named_with_buffers_too() -> None:
    with pytest.raises(SerializationError, match=r"^value\[1\]: builtins\.generator"):
        PickleSerializer().dumps_with_buffers([np.arange(100_000), (x for x in "g")])
