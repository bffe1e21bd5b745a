"""How long the random tests go on: an option of pytest each, with what `make test` and what `make long` take."""

from __future__ import annotations

from typing import Final, NamedTuple


class Length(NamedTuple):
    """counts: what. test: the part of a test's id, from the folder of the tests on, that tells it from others."""

    option: str
    counts: str
    gate: int
    long: int
    test: str

    @property
    def name(self) -> str:
        """As an attribute of pytest's options."""
        return self.option.removeprefix("--").replace("-", "_")

    def of(self, asked: float | None, *, long: bool) -> int:
        """How long it is."""
        return int(asked) if asked is not None else self.long if long else self.gate

    def is_of(self, test: str) -> bool:
        """Whether this says how long a test is."""
        return self.test in test


_MACHINE: Final = "state_machine/test_state_machine.py"

LENGTHS: Final = (
    Length(
        "--kills", "deaths of a durable flow at random times", 50, 10_000, "oracle/test_killed.py::test_killed_at_any"
    ),
    Length("--seeds", "simulated worlds in which processes die and stores fail", 2_000, 1_000_000, "simulation/"),
    Length("--machine-examples", "lives of a store in memory", 300, 20_000, f"{_MACHINE}::test_in_memory"),
    Length("--machine-examples-in-files", "lives of a store in a file", 30, 20_000, f"{_MACHINE}::test_in_a_file"),
    Length("--machine-examples-in-postgres", "the same in PostgreSQL", 12, 20_000, f"{_MACHINE}::test_in_postgresql"),
    Length("--machine-steps", "steps of each life", 50, 100, _MACHINE),
    Length(
        "--hammer-seconds", "of processes that are killed as they hold slots", 4, 600, "test_eight_processes_killed"
    ),
    Length(
        "--worker-kills",
        "deaths of workers, and of what carries runs out for them",
        10,
        1_000,
        "serving/test_killed.py",
    ),
    Length("--graphs", "random graphs on each task runner", 100, 20_000, "test_random_graphs_end_as_on_every_other"),
    Length("--api-cases", "random requests for each operation of the API", 100, 10_000, "server/test_api_schema.py"),
    Length(
        "--instants", "moments whose next tick is compared", 10_000, 10_000_000, "core/test_ticks.py::test_from_any"
    ),
    Length("--soak-seconds", "of 50 runs a second of all kinds in one process", 15, 7_200, "soak/"),
)
