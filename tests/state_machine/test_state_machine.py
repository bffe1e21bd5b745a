"""Anything that processes do to one store, in any order, against a model of plain dicts: on each database."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.state_machine.model import ENDED, OPEN, PENDING, Model, Said, Step
from tests.state_machine.processes import (
    LEASE_SECONDS,
    MOST_CRASHES,
    RETRY_SECONDS,
    MachineProcess,
    MovedLoop,
    Script,
    moved_time,
    rows_of_runs,
    turns,
)

from upwell.journal.database import Database, StoreUnavailable
from upwell.journal.limit_store import LimitRow, NotAlive, Wish
from upwell.journal.liveness import LOOKS_PER_LEASE
from upwell.journal.reader import Reader
from upwell.journal.store import ProcessLost
from upwell.testing import Fault

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.timeout(400)]

T = TypeVar("T")
NewStore = Callable[[], Callable[[], Database]]

SLOTS: Final = 3
MOST_PROCESSES: Final = 3
MOST_FLOWS: Final = 6
MOST_RUNS: Final = 40
EXAMPLES_AT_ONCE: Final = 500  # Hypothesis keeps all choices of those that it has tried: a quarter of a megabyte each
DATA: Final = st.data()


class JournalMachine(RuleBasedStateMachine):
    """What can happen. Whoever dies has written nothing since its last flush; its row says that it is alive."""

    new_store: NewStore

    def __init__(self) -> None:
        super().__init__()
        self.make_database = self.new_store()
        self.loop = MovedLoop()
        self.time = moved_time(self.loop)
        self.time.__enter__()
        self.model = Model(MOST_CRASHES)
        self.scripts: dict[str, Script] = {}
        self.is_durable: dict[str, bool] = {}
        self.ids: dict[str, str] = {}
        self.home: dict[str, int] = {}
        self.processes: dict[int, MachineProcess] = {}
        self.database = self.make_database()
        self.opened = [self.database]
        self.asleep: set[int] = set()
        self.signs: dict[int, float] = {}
        self.taken: dict[int, Said] = {}
        self.known_to_be_written: set[tuple[int, int]] = set()
        self.runs = self.leases = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        async def and_look() -> T:
            answer = await work
            await self.compare()
            return answer

        return self.loop.run_until_complete(and_look())

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self.end_all())
        finally:
            self.time.__exit__(None, None, None)
            self.loop.close()

    async def end_all(self) -> None:
        for process in self.processes.values():
            if not process.is_over:
                await process.die()
            await process.let_go()
        for database in self.opened:
            await database.close()

    # --- who there is ---------------------------------------------------------------------------------------

    def alive(self) -> list[int]:
        """Those that do something; others may take some of them for dead."""
        return [number for number, process in self.processes.items() if not process.is_over]

    def trusted(self) -> list[int]:
        return [number for number in self.alive() if self.model.processes[number] == "alive"]

    def going_on(self) -> list[str]:
        """Flows whose code runs, and that can do more."""
        return [name for name, number in self.home.items() if self.state_of_flow(number, name) not in ENDED]

    def spooled(self) -> list[int]:
        return [number for number, process in self.processes.items() if process.is_over and process.unwritten]

    def longer(self) -> list[str]:
        return [name for name in self.going_on() if all(step.labels for step in self.scripts[name].steps)]

    def gates(self) -> list[tuple[int, str]]:
        """Attempts that are under way: process and label."""
        return [
            (number, label)
            for number in self.alive()
            for label, gate in self.processes[number].gates.items()
            if not gate.done()
        ]

    def resumable(self) -> list[str]:
        return [name for name, row in self.model.flows.items() if row.owner is None]

    # --- what they say ----------------------------------------------------------------------------------------

    def state_of_flow(self, number: int, name: str) -> str:
        return str(self.processes[number].flow_runs[name].state.type.value)

    def state_of_run(self, process: MachineProcess, label: str) -> tuple[str, str]:
        """The id of a run, and its state as the model knows it."""
        run = process.futures[label]
        if not run.is_done():
            waits_for_retry = run.status == "SCHEDULED"  # since an earlier process, it may be
            return str(run.task_run_id), OPEN if label in process.begun or waits_for_retry else PENDING
        return str(run.task_run_id), "NOT_READY" if run.state_name == "NotReady" else str(run.status)

    def said(self, number: int) -> Said:
        """What has changed in a process since this was asked."""
        process = self.processes[number]
        flows = {name: self.state_of_flow(number, name) for name in process.flow_runs}
        runs: dict[str, tuple[str, str, str]] = {}
        for name in process.flow_runs:
            for step in self.scripts[name].steps:
                for label in step.labels:
                    if label in process.futures:  # else its flow was cancelled before it came to that
                        identity, state = self.state_of_run(process, label)
                        runs[identity] = (name, label, state)
        known, self.taken[number] = self.taken[number], Said(flows, runs)
        return Said(dict(flows.items() - known.flows.items()), dict(runs.items() - known.task_runs.items()))

    # --- processes ------------------------------------------------------------------------------------------

    @initialize(durable=st.lists(st.booleans(), min_size=1, max_size=3))
    def a_store_with_work_under_way(self, durable: list[bool]) -> None:
        async def begin() -> None:
            await self.database.open()
            await self.new_process()
            await self.new_process()
            assert await self.processes[1].limits.create(LimitRow("few", SLOTS, 0.0, True))

        self.do(begin())
        for is_durable in durable:
            name = self.new_flow(is_durable)
            self.do(self.begin(1, name))
            self.submit(name, 2, None, retries=False)

    async def new_process(self) -> None:
        number = len(self.processes) + 1
        self.opened.append(self.make_database())
        process = self.processes[number] = MachineProcess(number, self.opened[-1], self.scripts)
        await process.open()
        self.model.processes[number] = "alive"
        self.signs[number] = self.loop.time()
        self.taken[number] = Said({}, {})

    @precondition(lambda self: len(self.alive()) < MOST_PROCESSES)
    @rule()
    def a_process_begins(self) -> None:
        self.do(self.new_process())

    @precondition(lambda self: len(self.alive()) > 1)
    @rule(data=DATA, spools=st.booleans())
    def a_process_is_killed(self, data: st.DataObject, spools: bool) -> None:
        self.do(self.kill(data.draw(st.sampled_from(self.alive())), spools=spools))

    async def kill(self, number: int, *, spools: bool) -> None:
        process = self.processes[number]
        if spools:
            await process.take_in(lambda: self.said(number))
        else:
            process.unwritten.clear()
        await process.die()
        self.asleep.discard(number)
        self.home = {name: home for name, home in self.home.items() if home != number}

    @precondition(lambda self: len(self.trusted()) > 1)
    @rule(data=DATA)
    def a_process_ends_and_leaves_what_it_had_begun(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.trusted()))

        async def end() -> None:
            await self.flush(number, None)
            process = self.processes[number]
            await process.limits.leave(process.identity.id)
            await process.store.close(process.identity)
            self.model.ended(number)
            await self.kill(number, spools=False)

        self.do(end())

    @precondition(lambda self: self.alive())
    @rule(data=DATA)
    def a_process_stops_giving_signs_of_life_or_gives_them_again(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.alive()))
        if number in self.asleep:
            self.asleep.discard(number)
            self.do(self.renew(number))
        else:
            self.asleep.add(number)

    # --- flows and tasks --------------------------------------------------------------------------------------

    @precondition(lambda self: self.trusted() and len(self.scripts) < MOST_FLOWS)
    @rule(data=DATA, durable=st.booleans())
    def a_flow_begins(self, data: st.DataObject, durable: bool) -> None:
        self.do(self.begin(data.draw(st.sampled_from(self.trusted())), self.new_flow(durable)))

    def new_flow(self, durable: bool) -> str:
        name = f"flow {len(self.scripts)}"
        self.scripts[name], self.is_durable[name] = Script(), durable
        return name

    @precondition(lambda self: self.trusted() and self.resumable())
    @rule(data=DATA)
    def a_flow_is_resumed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.resumable()))
        number = data.draw(st.sampled_from(self.trusted()))
        self.do(self.resume(number, name))

    async def resume(self, number: int, name: str) -> None:
        process, safe, known_as = self.processes[number], self.model.safe(name), self.ids[name]
        await self.begin(number, name)
        assert str(process.flow_runs[name].id) == known_as
        run_again = safe & process.begun.keys()
        assert not run_again, f"{run_again} were safe, and are run again"

    async def begin(self, number: int, name: str) -> None:
        process = self.processes[number]
        await process.start(name, self.is_durable[name])
        self.ids[name], self.home[name] = str(process.flow_runs[name].id), number
        if self.is_durable[name]:
            self.model.was_looked_at()
            self.model.began(number, name)
            self.taken[number].flows[name] = PENDING

    @precondition(lambda self: self.longer() and self.runs < MOST_RUNS)
    @rule(data=DATA, many=st.integers(1, 3), retries=st.booleans())
    def a_flow_submits_tasks(self, data: st.DataObject, many: int, retries: bool) -> None:
        name = data.draw(st.sampled_from(self.longer()))
        before = [label for step in self.scripts[name].steps for label in step.labels]
        upstream = data.draw(st.none() | st.sampled_from(before)) if before else None
        self.submit(name, many, upstream, retries=retries)

    def submit(self, name: str, many: int, upstream: str | None, *, retries: bool) -> None:
        labels = tuple(f"run {self.runs + n}" for n in range(many))
        self.runs += many
        self.scripts[name].add(Step(labels, upstream, retries))
        self.do(turns())
        process = self.processes[self.home[name]]
        state = "COMPLETED" if upstream is None else self.state_of_run(process, upstream)[1]
        expected = {"COMPLETED": OPEN, OPEN: PENDING, PENDING: PENDING}.get(state, "NOT_READY")
        assert {self.state_of_run(process, label)[1] for label in labels} == {expected}

    @precondition(lambda self: self.gates())
    @rule(data=DATA, fails=st.booleans())
    def an_attempt_ends(self, data: st.DataObject, fails: bool) -> None:
        number, label = data.draw(st.sampled_from(self.gates()))
        process = self.processes[number]
        process.gates[label].set_result(fails)
        self.do(turns())
        _, state = self.state_of_run(process, label)
        assert state in (("FAILED", OPEN) if fails else ("COMPLETED",))

    @precondition(lambda self: self.longer())
    @rule(data=DATA, fails=st.booleans())
    def a_flow_ends_when_its_tasks_have(self, data: st.DataObject, fails: bool) -> None:
        self.scripts[data.draw(st.sampled_from(self.longer()))].add(Step(fails=fails))
        self.do(turns())

    @precondition(lambda self: self.going_on())
    @rule(data=DATA)
    def a_flow_is_cancelled(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.going_on()))
        self.do(self.processes[self.home[name]].cancel(name))
        assert self.state_of_flow(self.home[name], name) == "CANCELLED"

    # --- the store --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.alive())
    @rule(data=DATA, fault=st.none() | st.sampled_from(Fault))
    def a_process_writes(self, data: st.DataObject, fault: Fault | None) -> None:
        self.do(self.flush(data.draw(st.sampled_from(self.alive())), fault))

    async def flush(self, number: int, fault: Fault | None) -> None:
        process = self.processes[number]
        await process.take_in(lambda: self.said(number))
        while process.unwritten:
            batch, said = process.unwritten[0]
            try:
                await process.write(fault)
            except ProcessLost:
                assert self.model.processes[number] == "lost"
                await self.kill(number, spools=True)
                return
            except StoreUnavailable:
                assert fault is not None
                if fault is Fault.UNKNOWN:
                    self.was_written(number, batch.number, said)
                return
            assert self.model.processes[number] == "alive", "one who was declared lost has written"
            self.was_written(number, batch.number, said)
            del process.unwritten[0]
        await process.tell_written()

    def was_written(self, number: int, batch: int, said: Said) -> None:
        if (number, batch) not in self.known_to_be_written:
            self.known_to_be_written.add((number, batch))
            self.model.wrote(number, said, self.is_durable)

    @precondition(lambda self: self.trusted() and self.spooled())
    @rule(data=DATA)
    def what_a_dead_process_has_spooled_is_brought_in(self, data: st.DataObject) -> None:
        store = self.processes[data.draw(st.sampled_from(self.trusted()))].store
        number = data.draw(st.sampled_from(self.spooled()))
        dead = self.processes[number]

        async def bring_in() -> None:
            for batch, said in dead.unwritten:
                await store.take_over(dead.identity, batch)
                if (number, batch.number) not in self.known_to_be_written:
                    self.known_to_be_written.add((number, batch.number))
                    self.model.was_brought_in(number, said, self.is_durable)
            dead.unwritten.clear()

        self.do(bring_in())

    # --- time, and who is alive -------------------------------------------------------------------------------

    async def renew(self, number: int) -> None:
        process = self.processes[number]
        try:
            await process.store.renew(process.identity)
        except ProcessLost:
            assert self.model.processes[number] == "lost"
            await self.kill(number, spools=True)
        else:
            assert self.model.processes[number] == "alive"
            self.signs[number] = self.loop.time()

    async def pass_time(self, seconds: float) -> None:
        self.loop.forward += seconds
        await turns()
        for number in set(self.alive()) - self.asleep:
            await self.renew(number)

    async def look(self, observer: int) -> None:
        lost = await self.processes[observer].observer.look()
        for identity in lost:
            number = next(number for number, process in self.processes.items() if process.identity.id == identity)
            assert self.loop.time() - self.signs[number] >= LEASE_SECONDS, "a healthy process was declared lost"
            self.model.was_lost(number)
        self.model.was_looked_at()

    @rule(seconds=st.sampled_from([0.1, RETRY_SECONDS, LEASE_SECONDS / 2]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.pass_time(seconds))

    @precondition(lambda self: self.trusted())
    @rule(data=DATA)
    def somebody_looks(self, data: st.DataObject) -> None:
        self.do(self.look(data.draw(st.sampled_from(self.trusted()))))

    @precondition(lambda self: set(self.trusted()) - self.asleep and len(self.trusted()) > 1)
    @rule(data=DATA, ends=st.sampled_from(["dies", "dies and spools", "lives on"]))
    def a_process_is_taken_for_dead(self, data: st.DataObject, ends: str) -> None:
        observer = data.draw(st.sampled_from(sorted(set(self.trusted()) - self.asleep)))
        other = data.draw(st.sampled_from([number for number in self.trusted() if number != observer]))

        async def look() -> None:
            self.asleep.add(other)
            if ends != "lives on":
                await self.kill(other, spools=ends == "dies and spools")
            silent = {number for number in self.processes if number not in self.alive()} | self.asleep
            await self.look(observer)
            for _ in range(LOOKS_PER_LEASE):
                await self.pass_time(LEASE_SECONDS / LOOKS_PER_LEASE)
                await self.look(observer)
            assert all(self.model.processes[number] != "alive" for number in silent)

        self.do(look())

    # --- slots of a limit -------------------------------------------------------------------------------------

    @precondition(lambda self: self.alive())
    @rule(data=DATA, slots=st.integers(1, SLOTS))
    def a_process_wants_slots(self, data: st.DataObject, slots: int) -> None:
        number = data.draw(st.sampled_from(self.alive()))
        self.leases += 1
        self.do(self.turn(number, [Wish(f"{self.leases:04}", slots, None)], []))

    @precondition(lambda self: self.own_leases())
    @rule(data=DATA)
    def a_process_gives_slots_back(self, data: st.DataObject) -> None:
        number, lease = data.draw(st.sampled_from(self.own_leases()))
        self.do(self.turn(number, [], [lease]))

    def own_leases(self) -> list[tuple[int, str]]:
        return [(owner, lease) for lease, (owner, *_) in self.model.leases.items() if owner in self.alive()]

    async def turn(self, number: int, wishes: list[Wish], over: list[str]) -> None:
        process = self.processes[number]
        try:
            standing = await process.limits.take_turn(process.identity.id, "few", over, wishes, ())
        except NotAlive:
            assert self.model.processes[number] != "alive"
            return
        assert self.model.processes[number] == "alive"
        for lease in over:
            del self.model.leases[lease]
        self.model.leases |= {wish.id: (number, wish.slots, "waiting") for wish in wishes}
        assert standing.granted == self.model.turn(number, SLOTS)

    # --- what must hold ---------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """The store says what the model says, and whoever was told that a flow has ended was told the truth."""
        database = self.database
        assert await rows_of_runs(database) == self.model.rows()
        flows = await database.fetch_text("SELECT id, state, process_id FROM flow_runs")
        owners = {number: process.identity.id for number, process in self.processes.items()}
        owners_of = {self.ids[name]: (row.state, owners.get(row.owner or 0)) for name, row in self.model.flows.items()}
        assert {identity: (state, owner) for identity, state, owner in flows} == owners_of
        states = await database.fetch_text("SELECT pid, state FROM processes")
        assert dict(states) == self.model.processes
        leases = await database.fetch_text("SELECT id, slots, state, process_id FROM leases")
        assert {identity: (slots, state, owner) for identity, slots, state, owner in leases} == {
            lease: (slots, state, owners[owner]) for lease, (owner, slots, state) in self.model.leases.items()
        }
        assert self.model.taken() <= SLOTS
        await self.compare_counts(Reader(database, "here"))
        for process in self.processes.values():
            for name in () if process.is_over else [name for name, run in process.flows.items() if run.done()]:
                assert self.model.flows[name].state in ENDED, f"{name} was told to have ended, and is not safe"

    async def compare_counts(self, reader: Reader) -> None:
        since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        until = since + dt.timedelta(days=30)
        for of, expected in (("flow_runs", self.model.flow_counts()), ("task_runs", self.model.task_counts())):
            (counts,) = await reader.counts(of, 1e7, since, until)
            found = Counter({state.value: number for state, number in counts.states.items()})
            if of == "task_runs":
                found[OPEN] = found.pop("RUNNING", 0) + found.pop("SCHEDULED", 0)
            assert +found == expected


def run_machine(new_store: NewStore, config: pytest.Config, examples: int) -> None:
    """Run the machine on stores that are empty at first."""
    machine = type("Machine", (JournalMachine,), {"new_store": staticmethod(new_store)})
    for number in range(0, examples, EXAMPLES_AT_ONCE):
        run_state_machine_as_test(
            seed(config.option.first_seed + number)(machine),
            settings=settings(
                max_examples=min(examples - number, EXAMPLES_AT_ONCE),
                stateful_step_count=config.option.machine_steps,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink) if config.option.long else (Phase.generate,),
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )


def test_in_memory_whatever_happens_the_store_says_what_was_written(
    stores_in_memory: NewStore, pytestconfig: pytest.Config
) -> None:
    run_machine(stores_in_memory, pytestconfig, pytestconfig.option.machine_examples)


def test_in_a_file_whatever_happens_the_store_says_what_was_written(
    stores_in_files: NewStore, pytestconfig: pytest.Config
) -> None:
    run_machine(stores_in_files, pytestconfig, pytestconfig.option.machine_examples_in_files)


def test_in_postgresql_whatever_happens_the_store_says_what_was_written(
    stores_in_postgres: NewStore, pytestconfig: pytest.Config
) -> None:
    run_machine(stores_in_postgres, pytestconfig, pytestconfig.option.machine_examples_in_postgres)
