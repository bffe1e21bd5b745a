"""`upwell.yaml`: read with errors that say where, and made so, no more and no less."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from upwell.composition import close_journal, open_control
from upwell.core.errors import ConfigurationError, MissingExtraError, ParameterTypeError
from upwell.project import Change, apply_project, find_project, flows_in, init_project, load_project
from upwell.settings import temporary_settings

FLOWS = """
from upwell import flow
from helper import WHO

@flow(version="3")
def etl(day: str, count: int = 1):
    "Do it."

@flow(name="other")
async def second(): ...
"""


pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shop"
    (root / "flows").mkdir(parents=True)
    (root / "flows/b1_etl.py").write_text(FLOWS)
    (root / "helper.py").write_text("WHO = 'me'\n")
    (tmp_path / "outside.py").write_text(FLOWS)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[None]:
    with temporary_settings(home=str(tmp_path / "home"), journal="on"):
        yield
        close_journal()


@pytest.fixture
def made(root: Path, store: None) -> Callable[..., list[Change]]:
    """Write the file, and make it so."""

    def make(text: str, names: Iterable[str] = ()) -> list[Change]:
        (root / "upwell.yaml").write_text(text)

        async def apply() -> list[Change]:
            async with open_control() as control:
                return await apply_project(load_project(), control, names)

        return asyncio.run(apply())

    return make


WHOLE = """
name: my-shop
definitions:
  night: &night {cron: "0 3 * * *", timezone: Europe/Berlin, slug: night}
deployments:
  - name: nightly
    entrypoint: ./flows/b1_etl.py:etl
    description: Each night.
    version: 1.5
    tags: [b, a]
    parameters: {day: monday}
    schedules:
      - *night
      - {interval: 3600, anchor_date: 2026-01-01, parameters: {count: 5}, catchup: all, max_late_seconds: 60}
      - {rrule: "FREQ=DAILY", active: false}
    paused: true
    concurrency_limit: 2
    when_full: cancel_new
    work_pool: {name: big, type: process, work_queue_name: fast, job_variables: {stream_output: true}}
  - name: second
    entrypoint: flows/b1_etl.py:second
    schedule: *night
"""


def test_all_that_a_file_says_is_made_so(made: Callable[..., list[Change]]) -> None:
    nightly, second = made(WHOLE)
    assert (nightly.what, second.what) == ("created", "created")
    assert (nightly.details, second.details) == (("work queue fast of big: made",), ())
    found = nightly.deployment
    assert (found.full_name, found.entrypoint) == ("etl/nightly", "flows/b1_etl.py:etl")
    assert (found.description, found.version, found.tags) == ("Each night.", "1.5", ("a", "b"))
    assert (found.parameters, found.parameter_schema["required"]) == ({"day": "monday"}, ["day"])
    assert (found.paused, found.concurrency_limit, found.when_full) == (True, 2, "cancel_new")
    assert (found.work_pool, found.work_queue, found.job_variables) == ("big", "fast", {"stream_output": True})
    schedules = {it.kind: it for it in found.schedules}
    assert (schedules["cron"].slug, schedules["cron"].timezone) == ("night", "Europe/Berlin")
    assert schedules["interval"].anchor == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert (schedules["interval"].catchup, schedules["interval"].max_late_seconds) == ("all", 60)
    assert schedules["interval"].parameters == {"count": 5}
    assert not schedules["rrule"].active
    assert second.deployment.full_name == "other/second"
    assert [it.slug for it in second.deployment.schedules] == ["night"]


def test_making_it_so_again_changes_nothing(made: Callable[..., list[Change]]) -> None:
    first = made(WHOLE)
    again = made(WHOLE)
    assert [change.what for change in again] == ["unchanged", "unchanged"]
    assert [it.deployment.schedules for it in first] == [it.deployment.schedules for it in again]


def test_what_changed_is_said(made: Callable[..., list[Change]]) -> None:
    made(WHOLE)
    text = WHOLE.replace("version: 1.5", "version: 1.6").replace("interval: 3600", "interval: 1800, slug: often")
    text = text.replace("max_late_seconds: 60", "max_late_seconds: 90").replace("paused: true", "paused: false")
    nightly, second = made(text.replace("day: monday", "day: friday").replace("0 3 * * *", "0 4 * * *"))
    assert nightly.what == "changed"
    expected = ["version: '1.5' -> '1.6'", "parameters", "paused: True -> False", "schedule night: changed"]
    assert set(expected) < set(nightly.details)
    assert "schedule often: added" in nightly.details
    assert sum(detail.endswith(": removed") for detail in nightly.details) == 1
    assert second.details == ("schedule night: changed",)


def test_schedules_that_nobody_speaks_of_stay_and_an_empty_list_removes_them(made: Callable[..., list[Change]]) -> None:
    entry = "deployments: [{name: a, entrypoint: 'flows/b1_etl.py:second'%s}]"
    made(entry % ", schedules: [{interval: 60, slug: minute}]")
    assert made(entry % "")[0].what == "unchanged"
    assert made(entry % ", schedules: []")[0].details == ("schedule minute: removed",)


def test_pull_steps_are_the_files_or_the_deployments_own(made: Callable[..., list[Change]]) -> None:
    text = """
        pull:
          - git_clone: {repository: https://example.org/shop.git, branch: main}
          - pip_install_requirements:
        deployments:
          - {name: a, entrypoint: 'flows/b1_etl.py:second', work_pool: {name: p, type: process}}
          - {name: b, entrypoint: 'flows/b1_etl.py:second', pull: []}
          - name: c
            entrypoint: flows/b1_etl.py:second
            concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    """
    a, b, c = (change.deployment for change in made(text))
    clone = {"git_clone": {"repository": "https://example.org/shop.git", "branch": "main"}}
    assert a.job_variables == c.job_variables == {"pull_steps": [clone, {"pip_install_requirements": {}}]}
    assert b.job_variables == {}
    assert (c.concurrency_limit, c.when_full) == (1, "cancel_new")
    assert made(text)[0].what == "unchanged"
    with pytest.raises(ConfigurationError, match=r"`pull`: Pull step 1 \(git_clone\): there is no `branhc`"):
        made(text.replace("branch:", "branhc:"))
    with pytest.raises(ConfigurationError, match=r"`pull` of the deployment 'b': Pull step 1: there is no step 'x'"):
        made(text.replace("pull: []", "pull: [{x: {}}]"))


def test_only_the_named_ones_are_made(made: Callable[..., list[Change]]) -> None:
    assert [it.deployment.name for it in made(WHOLE, ["second"])] == ["second"]
    assert [it.deployment.name for it in made(WHOLE, ["etl/nightly"])] == ["nightly"]
    with pytest.raises(ConfigurationError, match="no deployment 'third'; it has: nightly, second"):
        made(WHOLE, ["second", "third"])
    with pytest.raises(ConfigurationError, match="no deployment 'other/nightly'"):
        made(WHOLE, ["other/nightly"])


def test_nothing_is_stored_if_one_of_them_cannot_be(made: Callable[..., list[Change]]) -> None:
    with pytest.raises(ParameterTypeError, match="count"):
        made(WHOLE + "  - {name: third, entrypoint: 'flows/b1_etl.py:etl', parameters: {count: x}}\n")
    assert [it.what for it in made(WHOLE)] == ["created", "created"]


def test_a_pool_of_another_type_is_refused(made: Callable[..., list[Change]]) -> None:
    made(WHOLE)
    with pytest.raises(ConfigurationError, match=r"is of type 'process'.*says 'docker'"):
        made(WHOLE.replace("type: process", "type: docker"))


@pytest.mark.parametrize("entrypoint", ["../outside.py:etl", "{parent}/outside.py:etl", "os:getcwd", "pytest:main"])
def test_flows_outside_of_the_project_are_refused(
    made: Callable[..., list[Change]], root: Path, entrypoint: str
) -> None:
    where = entrypoint.format(parent=root.parent)
    with pytest.raises(ConfigurationError, match="nothing else may be run"):
        made(f"deployments: [{{name: a, entrypoint: '{where}'}}]")


def test_the_environment_fills_in(made: Callable[..., list[Change]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DAY", "friday")
    text = WHOLE.replace("day: monday", 'day: "on {{ $SHOP_DAY }}, {{ other }}"')
    assert made(text)[0].deployment.parameters == {"day": "on friday, {{ other }}"}
    with pytest.raises(ConfigurationError, match="SHOP_DYA, which is not set"):
        made(WHOLE.replace("day: monday", 'day: "{{ $SHOP_DYA }}"'))


ENTRY = "deployments: [{name: a, entrypoint: 'flows/b1_etl.py:second', %s}]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deployments: [", "not valid YAML"),
        ("- a list", "object"),
        ("deployments: [{name: a}]", "entrypoint"),
        ("deployment: []", "there is no `deployment`. Did you mean `deployments`"),
        (ENTRY % "tag: [x]", r"no `tag` in deployments\[0\]. Did you mean `tags`"),
        (ENTRY % "schedules: [{crno: x}]", "no `crno`.* Did you mean `cron`"),
        (ENTRY % "work_pool: {nmae: x}", "no `nmae`.* Did you mean `name`"),
        (ENTRY % "build: null", "upwell builds nothing"),
        (ENTRY % "paused: often", r"deployments\[0\].paused"),
        (ENTRY % "concurrency_limit: many", "concurrency_limit"),
        (ENTRY % "when_full: explode", "when_full"),
        (ENTRY % "tags: one", "tags"),
        ("name: &a [*a]", "holds itself"),
        ("deployments: [{name: a, entrypoint: 'x:y'}, {name: a, entrypoint: 'x:y'}]", "two deployments 'a'"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(root: Path, text: str, words: str) -> None:
    (root / "upwell.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=words) as raised:
        load_project()
    assert str(raised.value).startswith(str(root / "upwell.yaml"))


def test_an_anchor_that_is_no_time_is_refused(made: Callable[..., list[Change]]) -> None:
    with pytest.raises(ConfigurationError, match="anchor_date must be like"):
        made(ENTRY % "schedules: [{interval: 60, anchor_date: soon}]")


def test_yaml_that_would_make_objects_is_refused(root: Path) -> None:
    (root / "upwell.yaml").write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        load_project()


def test_the_nearest_file_is_found(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="`upwell init` writes one"):
        find_project()
    (root / "upwell.yaml").write_text("")
    assert find_project(root / "flows") == root / "upwell.yaml"
    assert load_project().name == "shop"
    assert load_project().deployments() == []


def test_without_pyyaml_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "upwell.yaml").write_text("")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtraError, match=r"upwell\[server\]"):
        load_project()


# --- a new one ----------------------------------------------------------------------------------------------


def test_a_new_file_names_the_flows_of_the_folder_and_can_be_made_so(
    root: Path, store: None, made: Callable[..., list[Change]]
) -> None:
    (root / "broken.py").write_text("def (:\n")
    (root / "attribute.py").write_text("import upwell\n@upwell.flow(name='x')\ndef one_more(): ...\n")
    for skipped in (".hidden", "venv", "node_modules", "own"):
        (root / skipped).mkdir()
        (root / skipped / "b1_etl.py").write_text(FLOWS)
    (root / "own/pyvenv.cfg").write_text("")
    file = init_project()
    project = load_project()
    assert (project.file, project.name) == (file, "shop")
    assert {entry.entrypoint: entry.name for entry in project.entries} == {
        "flows/b1_etl.py:etl": "etl",
        "flows/b1_etl.py:second": "second",
        "attribute.py:one_more": "one-more",
    }
    assert {it.what for it in made(file.read_text())} == {"created"}
    with pytest.raises(ConfigurationError, match="is there already"):
        init_project()


def test_a_new_file_for_a_folder_without_flows_is_an_example(tmp_path: Path) -> None:
    file = init_project(tmp_path, 'a "name": with: colons')
    assert load_project(file).name == 'a "name": with: colons'
    assert load_project(file).entries == ()
    assert "entrypoint: flows/etl.py:etl" in file.read_text()


def test_looking_for_flows_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("from upwell import flow\nraise SystemExit\n@flow\ndef f(): ...\n")
    assert list(flows_in(tmp_path)) == ["loud.py:f"]
