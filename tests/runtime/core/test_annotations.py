"""The wrappers around arguments."""

import pytest

from upwell.core.annotations import Annotation, allow_failure, is_annotation, opaque, quote, unmapped


@pytest.mark.parametrize("wrapper", [unmapped, allow_failure, quote, opaque])
def test_a_wrapper_holds_its_value_and_shows_it(wrapper: type[Annotation[list[int]]]) -> None:
    value = [1]
    wrapped = wrapper(value)
    assert wrapped.value is value
    assert wrapped.unwrap() is value
    assert repr(wrapped) == f"{wrapper.__name__}([1])"
    assert not hasattr(wrapped, "__dict__")


def test_wrappers_nest_either_way() -> None:
    assert unmapped(allow_failure(3)).unwrap() == 3
    assert allow_failure(unmapped(3)).unwrap() == 3


def test_a_kind_of_wrapper_can_be_asked_for() -> None:
    assert is_annotation(quote(1))
    assert is_annotation(quote(1), quote)
    assert not is_annotation(quote(1), unmapped)
    assert not is_annotation(1)


def test_the_old_home_of_the_wrappers_has_the_same_ones() -> None:
    from upwell.utilities import annotations

    assert annotations.unmapped is unmapped
    assert annotations.quote is quote
