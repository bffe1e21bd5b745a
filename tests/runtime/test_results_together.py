"""Several results that are read in one go: each is checked as if it were read by itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from upwell.core.errors import MissingResult
from upwell.results import ResultStore


@pytest.mark.parametrize("signing_key", [None, b"0123456789abcdef"])
def test_several_results_are_read_at_once_and_each_is_checked(tmp_path: Path, signing_key: bytes | None) -> None:
    store = ResultStore(tmp_path, signing_key=signing_key)
    values = [1, "two", (3, {4}), b"x" * 20_000]
    records = [store.put(value) for value in values]

    assert store.get_many(records) == values
    assert store.get_many(records[:3]) == values[:3]
    for damaged in (msgspec.structs.replace(records[0], data=b"\2"), msgspec.structs.replace(records[0], size=2)):
        with pytest.raises(MissingResult):
            store.get_many([records[1], damaged])
