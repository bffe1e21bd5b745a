"""What a work pool's base job template makes of a job's variables: data in places, no code.

A template is `{"job_configuration": {...}, "variables": {"properties": {...}}}`. In the configuration `{{ name }}`
stands for the variable of this name: the job's own, else the default that its property says, else nothing. A value that
is nothing but `{{ name }}` takes the variable's type; inside of other text it is put in as text.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Final, cast

from msgspec.json import encode

from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError

_PLACE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")

_ALL_BUT_EQUAL: Final = 0.8
"""How alike two names are, of 1, if one of them is a slip."""

PULL_STEPS_PROPERTY: Final[dict[str, Any]] = {
    "type": "array",
    "title": "Pull steps",
    "description": "What is done before a run, so that its code is there.",
    "items": {"type": "object"},
}
"""How templates describe the variable `pull_steps`."""

PROCESS_TEMPLATE: Final[dict[str, Any]] = {
    "job_configuration": {
        name: f"{{{{ {name} }}}}" for name in ("env", "working_dir", "warm", "runs_per_process", "pull_steps")
    },
    "variables": {
        "type": "object",
        "properties": {
            "env": {
                "type": "object",
                "title": "Environment",
                "description": "Variables that the run's process has besides the worker's own.",
                "additionalProperties": {"type": "string"},
                "default": {},
            },
            "working_dir": {
                "type": "string",
                "title": "Working directory",
                "description": "Where the run's process works; the worker's own unless said.",
            },
            "warm": {
                "type": "boolean",
                "title": "Warm",
                "description": "Start runs from a process that has imported their code; else each imports it anew.",
                "default": True,
            },
            "runs_per_process": {
                "type": "integer",
                "title": "Runs per process",
                "description": "How many runs a warm process carries out, one after the other. More of them begin "
                "faster like that, and each finds what those before it have left in memory.",
                "minimum": 1,
                "default": 1,
            },
            "pull_steps": PULL_STEPS_PROPERTY,
        },
    },
}
"""That of pools of type `process` that say none."""


class JobTemplate:
    """A base job template, ready to be used. Empty: a default for the kind of pool.

    Raises:
        ConfigurationError: it is not like that.
    """

    def __init__(self, template: dict[str, Any], default: dict[str, Any]) -> None:
        template = template or default
        configuration: Any = template.get("job_configuration", {})
        variables: Any = template.get("variables", {})
        properties = cast("dict[str, Any]", variables).get("properties", {}) if isinstance(variables, dict) else None
        if not (isinstance(configuration, dict) and isinstance(properties, dict)):
            raise ConfigurationError(
                "A base job template must be an object with `job_configuration` and `variables`, objects themselves."
            )
        self._configuration: dict[str, Any] = {**default["job_configuration"], **cast("dict[str, Any]", configuration)}
        facts: dict[str, Any] = {**default["variables"]["properties"], **cast("dict[str, Any]", properties)}
        self._defaults: dict[str, Any] = {name: _default_of(fact) for name, fact in facts.items()}
        self._known = self._defaults.keys() | set(_PLACE.findall(encode(self._configuration).decode()))

    def configuration(self, job: Job) -> dict[str, Any]:
        """The job's configuration; what has no value is left out.

        Raises:
            ConfigurationError: one of its variables is all but called like one that there is.
        """
        self._check_names(job.job_variables)
        values = {**self._defaults, **job.job_variables}
        filled = {name: _filled(value, values) for name, value in self._configuration.items()}
        return {name: value for name, value in filled.items() if value is not None}

    def _check_names(self, variables: dict[str, Any]) -> None:
        for name in variables.keys() - self._known:  # such may be meant for the run's own code
            meant = get_close_matches(name, self._known, 1, _ALL_BUT_EQUAL)
            if meant:
                raise ConfigurationError(
                    f"The job variable {name!r} is unknown to the work pool: {meant[0]!r} may be meant. A variable of "
                    "your own needs a place in the pool's base job template, or a name that is less like that one."
                )


def _default_of(facts: Any) -> Any:
    return cast("dict[str, Any]", facts).get("default") if isinstance(facts, dict) else None


def _filled(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, values) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # a cast is redundant to mypy
        return [_filled(inner, values) for inner in items]
    if not isinstance(value, str):
        return value
    if (whole := _PLACE.fullmatch(value.strip())) is not None:
        return values.get(whole[1])
    return _PLACE.sub(lambda place: _as_text(values.get(place[1])), value)


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
