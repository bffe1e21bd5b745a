"""Cache keys: of a large structure, of a large array, and of calls with small arguments."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec

from benchmarks.rows import Rival, Row, Run, Setting, Side, Unit
from upwell import task
from upwell.cache_policies import DEFAULT, CacheContext, cache_key
from upwell.core.keys import digest

encode = msgspec.msgpack.Encoder().encode
encode_sorted = msgspec.msgpack.Encoder(order="deterministic").encode


def nested(size: int) -> dict[str, Any]:
    """About `size` bytes, as MessagePack, of records like those of an API: dicts, lists, texts, numbers."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 12))) for _ in range(1000)]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    def record(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "name": text(2),
            "description": text(12),
            "score": rng.random(),
            "active": bool(number % 2),
            "tags": [text(1) for _ in range(3)],
            "place": {"street": text(3), "zip": rng.randint(10_000, 99_999), "at": [rng.random(), rng.random()]},
            "note": None,
        }

    return {"kind": "records", "records": [record(number) for number in range(max(1, size // 281))]}


def of_structure(work: Callable[[Any], object]) -> Any:
    """A side that works on the nested structure, which is made before."""

    @contextmanager
    def open_side(setting: Setting) -> Generator[Run]:
        value = nested(setting.size)
        yield lambda: work(value)

    return open_side


def of_array(work: Callable[[Any], object]) -> Any:
    """A side that works on an array of so many bytes, which is made before."""

    @contextmanager
    def open_side(setting: Setting) -> Generator[Run]:
        import numpy  # only here: other rows do not need it

        array = numpy.random.default_rng(0).random(setting.size // 8)
        yield lambda: work(array)

    return open_side


def blake2b_of(write: Callable[[Any], bytes]) -> Callable[[Any], object]:
    """Written, and hashed."""
    return lambda value: hashlib.blake2b(write(value)).digest()


@task
def fetch(url: str, page: int) -> None: ...


def keys_of_calls(size: int) -> None:
    context = CacheContext(fetch, None, uuid.UUID(int=1))
    for number in range(size):
        cache_key(DEFAULT, context, {"url": "https://example.org/items", "page": number})


def hashes_of_calls(size: int) -> None:
    for number in range(size):
        hashlib.blake2b(encode({"url": "https://example.org/items", "page": number}), digest_size=16).hexdigest()


ROWS = [
    Row(
        name="key-structure",
        measures="The digest of a nested structure of 1 MB: dicts, lists, texts, numbers.",
        leaves_out="Values that are not plain: tuples, sets, dataclasses, which cost 1 to 6 us each.",
        ours=Side("digest", of_structure(digest)),
        rivals=(
            Rival("msgspec encode and blake2b", of_structure(blake2b_of(encode)), most=1.5),
            Rival("the same, dicts sorted", of_structure(blake2b_of(encode_sorted))),
        ),
        size=1_000_000,
        quick_size=1_000_000,
        unit=Unit.MILLISECONDS,
        rounds=25,
        peak=False,
    ),
    Row(
        name="key-array",
        measures="The digest of a contiguous numpy array of 100 MB.",
        leaves_out="Arrays of objects, and such as are not contiguous.",
        ours=Side("digest", of_array(digest)),
        rivals=(Rival("blake2b of its bytes", of_array(lambda array: hashlib.blake2b(array.data).digest()), most=1.2),),
        size=100_000_000,
        quick_size=10_000_000,
        unit=Unit.MILLISECONDS,
        rounds=9,
        peak=False,
    ),
    Row(
        name="key-call",
        measures="The keys of 100,000 calls with two small arguments, under the default cache policy.",
        leaves_out="Binding the arguments, and looking the key up.",
        ours=Side("cache_key", keys_of_calls),
        rivals=(Rival("msgspec encode and blake2b", hashes_of_calls),),
        size=100_000,
        quick_size=20_000,
        most=1.5,
        rounds=15,
        peak=False,
    ),
]
