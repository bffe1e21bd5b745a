"""What `Flow` and `Task` have in common: made of a function, called on objects, copied with other options, pickled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Literal, ParamSpec, Self, TypeVar, cast, overload

from upwell.core.annotations import unmapped
from upwell.core.definition import Definition
from upwell.core.hooks import Hookable
from upwell.core.names import default_name
from upwell.core.options import Options, checked_options, retry_policy
from upwell.core.parameters import Parameters
from upwell.core.retries import RetryPolicy
from upwell.engine.caching import keep_with
from upwell.engine.future import TaskFuture
from upwell.futures import FutureList
from upwell.settings import current as settings

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
B = TypeVar("B", bound="Bound", covariant=True)


class Decorated(Hookable, Generic[P, R, B]):
    """A function and what was said of it. `fn` is the function itself, for tests that want it bare."""

    _kind: ClassVar[Literal["flow", "task"]]

    def __init__(self, fn: Callable[P, R], keywords: Mapping[str, Any]) -> None:
        self._descriptor: Any = fn if isinstance(fn, classmethod | staticmethod) else None
        self.fn = cast("Callable[P, R]", fn if self._descriptor is None else self._descriptor.__func__)
        kind = self._kind
        if not callable(self.fn):
            raise TypeError(f"@{kind} takes a function, not {fn!r}; options are named: @{kind}(retries=3)")
        functools.update_wrapper(cast("Any", self), self.fn)
        self._keywords = keywords
        parameters = Parameters(self.fn)
        options = checked_options(kind, keywords, parameters.names)
        self._definition = Definition(
            self.fn,
            options.name or default_name(self.fn),
            options,
            parameters,
            _retry_policy(kind, options),
            self,
            is_flow=kind == "flow",
        )
        if options.says_about_results:
            from upwell.persistence import check_options  # only here: most say nothing about their results

            check_options(kind, self._definition.name, options)
        self.name = self._definition.name
        self.version = options.version
        self.description = options.description or self.__doc__

    def _copy(self, keywords: Mapping[str, Any]) -> Self:
        """This with these options changed; hooks that were added are kept unless named."""
        make: Any = type(self)
        copy: Self = make(self._descriptor or self.fn, **{**self._keywords, **keywords})
        copy._definition.take_hooks_from(self._definition, keywords)
        return copy

    def _bound(self, instance: object) -> B:
        """This as a method of this object."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> B: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if isinstance(self._descriptor, staticmethod):
            return self
        if isinstance(self._descriptor, classmethod):
            return self._bound(owner if owner is not None else type(instance))
        return self if instance is None else self._bound(instance)

    def __reduce__(self) -> tuple[Any, ...]:
        """By its function and options: the copy is made again where it is needed, in another process."""
        return (functools.partial(type(self), **self._keywords), (self._descriptor or self.fn,))

    def __repr__(self) -> str:
        return f"<{self._kind.capitalize()} {self.name!r}>"


def _retry_policy(kind: str, options: Options) -> RetryPolicy:
    defaults = settings()
    if kind == "flow":
        return retry_policy(options, defaults.flow_default_retries, defaults.flow_default_retry_delay_seconds)
    return retry_policy(options, defaults.task_default_retries, defaults.task_default_retry_delay_seconds)


def _result_plan(definition: Definition, scope: Any) -> Any:
    from upwell.persistence import result_plan  # only here: most tasks say nothing about their results

    return result_plan(definition, scope)


keep_with(_result_plan)


class Bound:
    """A flow or task that is a method, of one object: the object is the first argument of each call."""

    def __init__(self, whole: Any, instance: object) -> None:
        self._whole = whole
        self.instance = instance
        self.name: str = whole.name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._whole(self.instance, *args, **kwargs)

    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """See `Task.submit`."""
        return self._whole.submit(self.instance, *args, **kwargs)  # type: ignore[no-any-return]  # it is of any kind

    def map(self, /, *args: Any, **kwargs: Any) -> FutureList[Any]:
        """See `Task.map`."""
        return self._whole.map(unmapped(self.instance), *args, **kwargs)  # type: ignore[no-any-return]  # it is of any kind

    def __repr__(self) -> str:
        return f"<{type(self._whole).__name__} {self.name!r} of {self.instance!r}>"
