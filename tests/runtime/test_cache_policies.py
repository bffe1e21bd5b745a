"""Cache policies: what counts and what does not, how they are added up, and who is told what cannot be hashed."""

import functools
import pickle
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from upwell import task
from upwell.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheContext,
    CacheKeyFnPolicy,
    CachePolicy,
    HashError,
    cache_key,
    explain,
    task_input_hash,
)
from upwell.core.errors import ConfigurationError
from upwell.persistence import cache_keys

FLOW_RUN = uuid.UUID(int=1)


@task
def add(x: int, y: int = 0) -> int:
    return x + y


@task
def multiply(x: int, y: int = 0) -> int:
    return x * y


class Run:
    id = uuid.UUID(int=7)


HERE = CacheContext(add, Run(), FLOW_RUN)
OUTSIDE = CacheContext(add, Run(), None)


def key(policy: CachePolicy, context: CacheContext = HERE, parameters: Any = None, **inputs: Any) -> str | None:
    return cache_key(policy, context, inputs, parameters)


def made(source: str) -> Any:
    """A task of the function `f` in a source that no file holds."""
    around: dict[str, Any] = {"__name__": "made"}
    exec(source, around)
    return CacheContext(task(around["f"]), None, FLOW_RUN)


class Fixed(CachePolicy):
    """A policy as users write them."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def compute_key(self, task_ctx: CacheContext, inputs: Any, flow_parameters: Any, **kwargs: Any) -> Any:
        return self.answer


# --- what counts -----------------------------------------------------------------------------------------


def test_keys_are_short_and_safe_as_names_of_files() -> None:
    for policy in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, Fixed("../etc") + INPUTS):
        found = key(policy, x=1)
        assert found is not None
        assert len(found) == 32
        assert set(found) <= set("0123456789abcdef")


def test_inputs_count_the_arguments_by_name_and_type() -> None:
    assert key(INPUTS, x=1, y=2) == key(INPUTS, y=2, x=1) == key(INPUTS, OUTSIDE, {"p": 1}, x=1, y=2)
    assert len({key(INPUTS, x=1), key(INPUTS, x=True), key(INPUTS, y=1), key(INPUTS, x=1, y=2), key(INPUTS)}) == 5


def test_arguments_can_be_left_out_of_a_policy_and_of_a_sum() -> None:
    assert key(INPUTS - "y", x=1, y=2) == key(INPUTS - "y", x=1, y=3) != key(INPUTS - "y", x=2, y=2)
    assert key(INPUTS - "y", x=1, y=2) == key(INPUTS, x=1)
    assert key(DEFAULT - "y", x=1, y=2) == key(DEFAULT - ["y"], x=1, y=3) != key(DEFAULT - "y", x=2, y=2)
    assert INPUTS - "a" - "b" == INPUTS - ["b", "a"]
    assert TASK_SOURCE - "x" == TASK_SOURCE
    with pytest.raises(TypeError, match="only names of arguments"):
        INPUTS - [1]  # type: ignore[list-item]  # pyright: ignore  # what is tested


@pytest.mark.parametrize("policy", [INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT])
def test_two_tasks_never_share_a_key_by_accident(policy: CachePolicy) -> None:
    assert key(policy, HERE, x=1) != key(policy, CacheContext(multiply, Run(), FLOW_RUN), x=1)


def test_tasks_made_in_a_function_are_told_apart_by_the_constants_they_were_made_with() -> None:
    def context(n: Any) -> CacheContext:
        def times(x: int) -> Any:
            return x * n

        return CacheContext(task(times), None, FLOW_RUN)

    assert key(INPUTS, context(1), x=1) == key(INPUTS, context(1), x=1) != key(INPUTS, context(2), x=1)
    assert key(INPUTS, context([1]), x=1) == key(INPUTS, context([2]), x=1)  # what can change is state, and no constant


def test_a_partial_counts_what_it_binds_and_a_method_its_object() -> None:
    def context(bound: Any) -> CacheContext:
        return CacheContext(task(name="bound")(functools.partial(add.fn, bound)), None, FLOW_RUN)

    assert key(DEFAULT, context(1), y=1) == key(DEFAULT, context(1), y=1) != key(DEFAULT, context(2), y=1)
    with pytest.raises(HashError, match=r"what the function of task 'bound' is bound to\[0\] cannot be part"):
        key(DEFAULT, context(threading.Lock()), y=1)


def test_the_source_counts_without_comments_docstrings_formatting_and_decorators(tmp_path: Any) -> None:
    def same(f: Any) -> Any:
        return f

    def source(text: str) -> str | None:
        path = tmp_path / f"{uuid.uuid4()}.py"
        path.write_text(text)
        around: dict[str, Any] = {"__name__": "made", "same": same}
        exec(compile(text, str(path), "exec"), around)
        return key(TASK_SOURCE, CacheContext(task(around["f"]), None, None))

    bare = source("def f(x):\n    return x + 1\n")
    assert bare == source("\n\n@same\ndef f( x ):\n    'Adds one.'\n    # how?\n    return (x +\n            1)\n")
    assert bare != source("def f(x):\n    return x + 2\n")
    assert bare != source("def f(x, y=0):\n    return x + 1\n")
    assert source("f = lambda x: (x,\n  1)\n") == source("\nf = lambda x: (x, 1)  # one\n")


def test_without_a_source_the_bytecode_counts() -> None:
    one = key(TASK_SOURCE, made("def f(x): return x + 1"))
    assert one == key(TASK_SOURCE, made("\n\ndef f(x): return x + 1"))
    assert one != key(TASK_SOURCE, made("def f(x): return x + 2"))


def test_what_a_decorator_wraps_is_part_of_the_source() -> None:
    def twice(f: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(f)
        def wrapper(x: int) -> int:
            return f(f(x))

        return wrapper

    def context(source: str) -> CacheContext:
        return CacheContext(task(twice(made(source).task.fn)), None, None)

    one = context("def f(x): return x + 1")
    assert key(TASK_SOURCE, one) == key(TASK_SOURCE, context("def f(x): return x + 1"))
    assert key(TASK_SOURCE, one) != key(TASK_SOURCE, context("def f(x): return x + 2"))
    assert key(TASK_SOURCE, one) != key(TASK_SOURCE, made("def f(x): return x + 1"))


def test_callables_of_all_sorts_have_a_source() -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

        def method(self, x: int) -> int:
            return x

    callables: list[Any] = [Adder(), Adder().method, functools.lru_cache(add.fn), len]
    for fn in callables:
        assert key(DEFAULT, CacheContext(task(name="fn")(fn), None, FLOW_RUN), x=1)


def test_flow_parameters_and_run_count_where_they_are_asked_for() -> None:
    assert key(FLOW_PARAMETERS, parameters={"p": 1}) == key(FLOW_PARAMETERS, parameters={"p": 1}, x=1)
    assert key(FLOW_PARAMETERS, parameters={"p": 1}) != key(FLOW_PARAMETERS, parameters={"p": 2})
    assert key(FLOW_PARAMETERS) == key(FLOW_PARAMETERS, OUTSIDE, {})
    other = CacheContext(add, Run(), uuid.UUID(int=2))
    assert key(RUN_ID) == key(RUN_ID, x=1) != key(RUN_ID, other)
    assert key(RUN_ID, OUTSIDE) not in (None, key(RUN_ID))
    assert key(DEFAULT, CacheContext(add), x=1) is None  # no run, no key


# --- sums ------------------------------------------------------------------------------------------------


def test_a_sum_counts_what_either_counts_in_any_order_and_once() -> None:
    assert key(INPUTS + TASK_SOURCE, x=1) == key(TASK_SOURCE + INPUTS, x=1)
    assert INPUTS + TASK_SOURCE == TASK_SOURCE + INPUTS + INPUTS
    assert INPUTS + INPUTS == INPUTS
    assert key(INPUTS + TASK_SOURCE, x=1) not in (key(INPUTS, x=1), key(TASK_SOURCE, x=1), key(INPUTS + RUN_ID, x=1))
    assert DEFAULT == INPUTS + TASK_SOURCE + RUN_ID
    assert hash(INPUTS + TASK_SOURCE) == hash(TASK_SOURCE + INPUTS)


def test_no_cache_gives_no_key_and_changes_no_sum() -> None:
    assert NONE is NO_CACHE
    assert key(NO_CACHE, x=1) is None
    assert NO_CACHE + INPUTS == INPUTS + NO_CACHE == INPUTS


def test_own_policies_and_functions_make_keys_of_their_own() -> None:
    by_function = CachePolicy.from_cache_key_fn(lambda context, parameters: f"{context.task.name}-{parameters['x']}")
    assert key(by_function, x=1) == "add-1"
    assert key(by_function + INPUTS, x=1, y=1) != key(by_function + INPUTS, x=1, y=2)
    assert key(Fixed("a.b_c-1")) == "a.b_c-1"
    assert key(Fixed("a") + Fixed("b")) == key(Fixed("b") + Fixed("a")) != key(Fixed("ab") + INPUTS)
    assert key(Fixed(None)) is None
    assert key(INPUTS + Fixed(None), x=1) is None


@pytest.mark.parametrize("unsafe", ["../a", "a/b", ".hidden", "a\0", "x" * 129, "ä", "a b", "a\n"])
def test_a_text_that_is_no_safe_name_is_hashed(unsafe: str) -> None:
    found = key(Fixed(unsafe))
    assert found is not None
    assert len(found) == 32
    assert found != key(Fixed(unsafe + "x"))


@pytest.mark.parametrize("wrong", [1, b"a", ""])
def test_a_key_that_is_no_text_is_an_error(wrong: Any) -> None:
    for policy in (Fixed(wrong), Fixed(wrong) + INPUTS):
        with pytest.raises(TypeError, match="it is to give a text, or None for not to cache"):
            key(policy)


def test_a_policy_that_does_not_say_how_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="give it a `compute_key`"):
        key(CachePolicy())


# --- policies as values ----------------------------------------------------------------------------------


def test_policies_show_as_they_are_written() -> None:
    assert repr(INPUTS - "debug" + TASK_SOURCE) == "INPUTS - 'debug' + TASK_SOURCE"
    assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"
    assert repr(CacheKeyFnPolicy(task_input_hash)) == "CacheKeyFnPolicy(task_input_hash)"
    assert repr(NO_CACHE) == "NO_CACHE"
    assert repr(Fixed("a")) == "Fixed()"


@pytest.mark.parametrize(
    "policy",
    [INPUTS, INPUTS - "x", DEFAULT, NO_CACHE, CacheKeyFnPolicy(task_input_hash), DEFAULT.configure(key_storage="k")],
)
def test_policies_can_be_pickled(policy: CachePolicy) -> None:
    again = pickle.loads(pickle.dumps(policy))
    assert again == policy
    assert key(again, x=1) == key(policy, x=1)


def test_policies_do_not_change() -> None:
    with pytest.raises(AttributeError):
        INPUTS.exclude = ("x",)  # type: ignore[misc]  # pyright: ignore  # what is tested
    assert INPUTS != INPUTS - "x"
    assert INPUTS.configure() == INPUTS


def test_a_policy_is_configured_in_a_copy_and_hands_that_on_to_sums() -> None:
    configured = INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager="locks", key_storage="keys")
    assert (INPUTS.isolation_level, configured.isolation_level) == (None, "SERIALIZABLE")
    assert configured != INPUTS
    for policy in (configured + TASK_SOURCE, TASK_SOURCE + configured, configured - "x", (configured + RUN_ID) - "x"):
        assert (policy.lock_manager, policy.key_storage) == ("locks", "keys")
    with pytest.raises(ConfigurationError, match="different isolation_level cannot be added"):
        _ = configured + TASK_SOURCE.configure(isolation_level="READ_COMMITTED")


# --- what cannot be hashed, and why a key is what it is ---------------------------------------------------


def test_the_argument_that_cannot_be_hashed_is_named_with_what_to_do() -> None:
    with pytest.raises(HashError) as caught:
        key(DEFAULT, x=1, options={"hooks": [1, 2, threading.Lock()]})
    assert str(caught.value) == (
        "argument 'options'['hooks'][2] cannot be part of a cache key: a _thread.lock has no content that is the same "
        "in another process. Leave it out with `cache_policy=INPUTS - 'options'`, or give a cache_key_fn."
    )
    assert key(DEFAULT - "options", x=1, options=threading.Lock()) == key(DEFAULT - "options", x=1)
    with pytest.raises(HashError, match="flow parameter 'p' cannot be part of a cache key"):
        key(FLOW_PARAMETERS, parameters={"p": threading.Lock()})


def test_an_explanation_names_each_part_with_its_digest_and_shows_no_value() -> None:
    def shown(**inputs: Any) -> dict[str, Any]:
        return {part.name: part for part in explain(DEFAULT - "debug" + FLOW_PARAMETERS, HERE, inputs, {"p": "secret"})}

    parts = shown(x="secret", debug=True, lock=[threading.Lock()])
    assert list(parts) == [
        *("task", "argument 'x'", "argument 'lock'", "argument 'debug'"),
        *("task source", "flow run", "flow parameter 'p'"),
    ]
    assert parts["argument 'x'"].what == "str"
    assert parts["argument 'debug'"].what == "left out"
    assert parts["argument 'lock'"].error.startswith("argument 'lock'[0]: a _thread.lock has no content")
    assert "secret" not in repr(parts)
    again = shown(x="other", debug=False, lock=None)
    assert [name for name in parts if parts[name].digest != again[name].digest] == ["argument 'x'", "argument 'lock'"]
    assert explain(NO_CACHE, HERE, {}) == []
    assert [part.digest for part in explain(Fixed("a"), HERE, {})][-1] == "a"
    assert explain(INPUTS + Fixed(None), HERE, {})[-1].what == "do not cache"


def test_task_input_hash_counts_function_source_and_arguments() -> None:
    assert task_input_hash(HERE, {"x": 1}) == task_input_hash(OUTSIDE, {"x": 1}) != task_input_hash(HERE, {"x": 2})
    assert task_input_hash(HERE, {"x": 1}) != task_input_hash(CacheContext(multiply), {"x": 1})
    assert key(CacheKeyFnPolicy(task_input_hash), x=1) == task_input_hash(HERE, {"x": 1})


VALUES = [0, -1, 2**64 - 1, 1.5, True, None, "text", "", b"bytes"]


@pytest.mark.parametrize("policy", [INPUTS, DEFAULT, INPUTS + FLOW_PARAMETERS, TASK_SOURCE + RUN_ID + INPUTS], ids=repr)
def test_keys_that_are_made_together_are_those_that_are_made_one_by_one(policy: CachePolicy) -> None:
    context, parameters = CacheContext(add, None, FLOW_RUN), {"day": "2026-01-01"}
    together = cache_keys(policy, context, "x", VALUES, parameters)
    assert together == [cache_key(policy, context, {"x": value}, parameters) for value in VALUES]


@pytest.mark.parametrize(
    ("policy", "values"),
    [
        (INPUTS, [1, [2]]),
        (INPUTS, [1, (2,)]),
        (INPUTS, [2**64]),
        (INPUTS, ["\ud800"]),
        (INPUTS - "x", [1]),
        (TASK_SOURCE, [1]),
        (NONE, [1]),
        (CacheKeyFnPolicy(lambda context, parameters: "k"), [1]),
        (INPUTS + CacheKeyFnPolicy(lambda context, parameters: "k"), [1]),
    ],
)
def test_keys_of_what_is_not_simple_are_made_one_by_one(policy: CachePolicy, values: list[Any]) -> None:
    assert cache_keys(policy, CacheContext(add, None, FLOW_RUN), "x", values, {}) is None


def test_outside_of_a_flow_no_key_that_counts_the_run_is_made_together() -> None:
    assert cache_keys(INPUTS + RUN_ID, CacheContext(add, None, None), "x", [1], {}) is None
