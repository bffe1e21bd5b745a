"""Names of flows, tasks and their runs: which are allowed, where they come from when nobody gives one."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from string import Formatter
from typing import Any

from upwell.core.errors import ConfigurationError, InvalidNameError

FORBIDDEN_CHARACTERS = "/%&><"

NameTemplate = str | Callable[..., Any]

_PARAMETERS = "parameters"  # in a template, the whole dict; for a function, the one argument it may take

_ADJECTIVES = """
    able agile amber ample azure balmy bold brave breezy bright brisk calm candid cheery civic clear
    clever cosy crisp curious daring deft eager early earnest easy elegant fair famous fancy fine fleet
    fluent fond frank free fresh gentle glad golden grand green handy happy hardy honest humble ideal
    jolly keen kind lively lucid lucky mellow merry mild modest neat nimble noble patient plucky polite
    proud quick quiet rapid ready rosy serene sharp silver smart snug steady sunny swift tidy warm
""".split()  # noqa: SIM905 - a list of one word a line would hide the rest of the module
_ANIMALS = """
    albatross alpaca ant antelope axolotl badger bat bear beaver bee beetle bison bobcat buffalo camel
    caribou cat cheetah chipmunk cod condor coot crane cricket dingo dolphin dove duck eagle eel egret elk
    emu falcon ferret finch fox frog gazelle gecko gibbon giraffe goose hare hawk hedgehog heron hippo
    horse ibex ibis iguana jackal jaguar kestrel kiwi koala lark lemur leopard lion llama lynx magpie
    marmot marten mole moose newt ocelot otter owl panda pelican penguin puffin quail rabbit raven robin
""".split()  # noqa: SIM905 - a list of one word a line would hide the rest of the module


def run_name(random: int) -> str:
    """A friendly name such as `swift-otter`, chosen by a random non-negative number that the caller gives."""
    random, adjective = divmod(random, len(_ADJECTIVES))
    return f"{_ADJECTIVES[adjective]}-{_ANIMALS[random % len(_ANIMALS)]}"


def check_name(name: object) -> str:
    """The name itself, if it may name a flow or task; else raises InvalidNameError."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidNameError(f"A name must be text that is not empty, not {name!r}.")
    bad = [character for character in FORBIDDEN_CHARACTERS if character in name]
    if bad:
        raise InvalidNameError(
            f"The name {name!r} contains {' '.join(bad)}. Names may not contain any of "
            f"{' '.join(FORBIDDEN_CHARACTERS)}: choose another one."
        )
    return name


def function_name(fn: Any) -> str:
    """What a function, a functools.partial or another callable is called in its source."""
    while not hasattr(fn, "__name__") and hasattr(fn, "func"):  # a functools.partial
        fn = fn.func
    name: str = getattr(fn, "__name__", type(fn).__name__)
    return name


def default_name(fn: Callable[..., Any]) -> str:
    """The name of a flow or task whose function is `fn`: the function's own, with `-` in the place of `_`."""
    name = function_name(fn)
    return "lambda" if name == "<lambda>" else name.replace("_", "-")


def check_name_template(template: object, fields: Collection[str]) -> None:
    """Check a run name template when it is declared; `fields` are the names that a text template may use.

    Raises TypeError if it is neither text nor a function of nothing or of `parameters`, and
    ConfigurationError if the text asks for something that will not be there.
    """
    if isinstance(template, str):
        for field in _fields(template):
            _check_field(template, field, fields)
    elif callable(template):
        _takes_parameters(template)
    else:
        raise TypeError(f"A run name must be a text or a function that returns one, not {template!r}.")


def render_name(template: NameTemplate, parameters: Mapping[str, Any], **extra: Any) -> str:
    """The name of one run, from its parameters and other facts about it.

    In a text `{x}` is the parameter x, `{parameters[x]}` too, `{when:%A}` is formatted, and what is in
    `extra` can be used as well. What a function raises rises as it is; other faults raise
    ConfigurationError.
    """
    if not isinstance(template, str):
        name: Any = template(parameters=dict(parameters)) if _takes_parameters(template) else template()
        if not isinstance(name, str):
            raise TypeError(
                f"The run name function {function_name(template)!r} returned {name!r}; it must return a text."
            )
        return name
    values = {_PARAMETERS: parameters, **extra, **parameters}
    for field in _fields(template):
        _check_field(template, field, values)
    try:
        return template.format_map(values)
    except Exception as error:
        raise ConfigurationError(
            f"The run name {template!r} could not be filled in: {type(error).__name__}: {error}."
        ) from error


def _fields(template: str) -> Iterator[str]:
    """The replacement fields of a template, those inside of format specs too."""
    try:
        for _, field, spec, _ in Formatter().parse(template):
            if field is not None:
                yield field
                yield from _fields(spec or "")
    except ValueError as error:
        raise ConfigurationError(f"The run name {template!r} is not a valid template: {error}.") from error


def _check_field(template: str, field: str, known: Collection[str]) -> None:
    name = field.replace("[", ".").split(".", 1)[0]
    if name not in known and name != _PARAMETERS:
        raise ConfigurationError(
            f"The run name {template!r} uses {{{field}}}, but there is no {name or 'positional value'!r} to "
            f"use. Known: {', '.join(sorted({*known, _PARAMETERS}))}."
        )
    if any(attribute.startswith("_") for attribute in field.split(".")[1:]):
        raise ConfigurationError(
            f"The run name {template!r} uses {{{field}}}, and attributes that begin with an underscore "
            "cannot be used there."
        )


def _takes_parameters(function: Callable[..., Any]) -> bool:
    """Whether a run name function takes `parameters`; raises TypeError if it needs anything else."""
    signature = inspect.signature(function)
    takes = _PARAMETERS in signature.parameters
    try:
        signature.bind(**({_PARAMETERS: {}} if takes else {}))
    except TypeError as error:
        raise TypeError(
            f"The run name function {function_name(function)!r}{signature} must take nothing or one argument "
            f"named {_PARAMETERS!r}."
        ) from error
    return takes
