"""What the tests of packing are sure of."""

from typing import Any

import pytest

from upwell.core import packing


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be pickled: what is written is data."""

    def refuse() -> Any:
        raise AssertionError("this value is pickled, and should not be")

    monkeypatch.setattr(packing, "pickle_dumps", refuse)
