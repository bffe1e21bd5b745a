"""Code of repositories: which commit it is, what is said where it cannot be had, and what the killed leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.serving.repository import Repository, served_to

from upwell.core.errors import SourceError
from upwell.pull_steps import GitClone
from upwell.serving.git import Access, GitFailed, git
from upwell.serving.repositories import MOST_TRIES, Fetched, Repositories
from upwell.serving.source_cache import KEPT_SECONDS, UNFINISHED_SECONDS, SourceCache


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "shop")
    repository.commit(flows="VERSION = 1")
    return repository


@pytest.fixture
def cache(tmp_path: Path) -> SourceCache:
    return SourceCache(tmp_path / "cache")


def fetched(cache: SourceCache, url: str, **what: Any) -> Fetched:
    """By a process that has not fetched anything yet."""
    return asyncio.run(Repositories(cache).fetch(GitClone(repository=url, **what)))


def code_in(found: Fetched) -> str:
    return (found.folder / "flows.py").read_text()


def unfinished(cache: SourceCache) -> list[Path]:
    return [path for path in cache.root.glob("*/*/*") if path.name.startswith(".making-")]


def test_the_code_is_that_of_the_branch_as_it_is_now(repository: Repository, cache: SourceCache) -> None:
    first = fetched(cache, repository.url)
    assert (code_in(first), first.commit) == ("VERSION = 1", repository.git("rev-parse", "HEAD"))
    assert fetched(cache, repository.url).folder == first.folder
    repository.commit(flows="VERSION = 2")
    second = fetched(cache, repository.url, branch="main")
    assert code_in(second) == "VERSION = 2"
    assert code_in(first) == "VERSION = 1"  # whoever runs it keeps it
    repository.git("commit", "--quiet", "--amend", "--message=other", "--date=2001-01-01T00:00:00")  # moved by force
    assert fetched(cache, repository.url, branch="main").commit == repository.git("rev-parse", "HEAD")


def test_a_tag_and_a_commit_stay_what_they_are(repository: Repository, cache: SourceCache) -> None:
    repository.git("tag", "--annotate", "--message=one", "v1")
    first = repository.git("rev-parse", "HEAD")
    repository.commit(flows="VERSION = 2")
    assert fetched(cache, repository.url, tag="v1").commit == first
    assert code_in(fetched(cache, repository.url, commit=first)) == "VERSION = 1"
    (repository.folder / ".git").rename(repository.folder / "away")
    assert fetched(cache, repository.url, commit=first).commit == first  # which needs nobody


def test_submodules_come_along_if_they_are_wanted(repository: Repository, cache: SourceCache, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    other.commit(helper="X = 1")
    repository.git("submodule", "--quiet", "add", other.url, "inner")
    repository.commit()
    assert list((fetched(cache, repository.url).folder / "inner").iterdir()) == []
    with_them = fetched(cache, repository.url, include_submodules=True)
    assert (with_them.folder / "inner/helper.py").read_text() == "X = 1"


def test_those_who_ask_at_once_are_answered_together(
    repository: Repository, cache: SourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    run = git

    async def counted(*arguments: str, **options: Any) -> str:
        asked.append(arguments[0])
        return await run(*arguments, **options)

    monkeypatch.setattr("upwell.serving.repositories.git", counted)

    async def main() -> None:
        ours = Repositories(cache)
        step = GitClone(repository=repository.url)
        await ours.fetch(step)
        asked.clear()
        assert len({found.commit for found in await asyncio.gather(*(ours.fetch(step) for _ in range(20)))}) == 1
        before = asked.count("fetch")
        assert before <= 2  # one that had begun when others asked, and one for all of those
        await ours.fetch(step)
        assert asked.count("fetch") == before + 1  # who asks later has the code of later

    asyncio.run(main())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"branch": "nope"}, "has no branch 'nope'. It has: main."),
        ({"tag": "v9"}, "has no tag 'v9'. It has: none."),
        ({"commit": "a" * 40}, f"has no commit '{'a' * 40}'."),
    ],
)
def test_what_is_not_there_is_named(repository: Repository, cache: SourceCache, what: Any, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        fetched(cache, repository.url, **what)
    assert said in str(caught.value)


def test_where_there_is_no_repository_it_says_so(cache: SourceCache, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no repository at file://"):
        fetched(cache, f"file://{tmp_path}/nowhere")


def test_a_server_that_cannot_be_reached_is_asked_again(cache: SourceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upwell.serving.repositories.PAUSE_SECONDS", 0.0)
    asked: list[str] = []
    run = git

    async def counted(*arguments: str, **options: Any) -> str:
        asked.append(arguments[0])
        return await run(*arguments, **options)

    monkeypatch.setattr("upwell.serving.repositories.git", counted)
    with pytest.raises(SourceError, match=r"could not be fetched. Git says: .*Failed to connect"):
        fetched(cache, "http://127.0.0.1:1/shop.git")
    assert asked.count("fetch") == MOST_TRIES


# --- who asks for a name and a word ---------------------------------------------------------------------------


def test_a_token_is_sent_to_its_server_and_told_to_nobody(
    repository: Repository, cache: SourceCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    with served_to("s3cret", tmp_path) as address:
        url = f"{address}/shop/.git"
        found = fetched(cache, url, access_token_variable="SHOP_TOKEN")
        assert code_in(found) == "VERSION = 1"
        assert subprocess.run(["grep", "-r", "s3cret", str(cache.root)], check=False).returncode == 1
        monkeypatch.setenv("SHOP_TOKEN", "wr0ng")
        with pytest.raises(SourceError, match="does not take the token in SHOP_TOKEN") as caught:
            fetched(cache, url, access_token_variable="SHOP_TOKEN")
        assert "wr0ng" not in str(caught.value)
        monkeypatch.delenv("SHOP_TOKEN")
        with pytest.raises(SourceError, match="environment variable SHOP_TOKEN, which is not set"):
            fetched(cache, url, access_token_variable="SHOP_TOKEN")
        with pytest.raises(SourceError, match=r"asks who it is. Give workers a token in a variable"):
            fetched(cache, url)


def test_what_git_says_is_told_without_secrets(tmp_path: Path) -> None:
    access = Access("https", "https://example.org", "x", "s3cret")
    with pytest.raises(GitFailed) as caught:
        asyncio.run(git("s3cret://a:b@c/d", folder=tmp_path, access=access, timeout_seconds=10))
    assert "'***://***@c/d' is not a git command" in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(cache: SourceCache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/shop.git"
        with pytest.raises(SourceError, match=r"git had not ended after 0.3 seconds, and was killed"):
            fetched(cache, url, timeout_seconds=0.3)


# --- what the killed leave behind ----------------------------------------------------------------------------

_STOPS_IN_THE_MIDDLE = """#!/bin/sh
case " $* " in *" {command} "*)
  touch half-made; echo $$ > {folder}/pid.new; mv {folder}/pid.new {folder}/pid; exec sleep 1000
esac
exec {git} "$@"
"""
_FETCHES = """
import asyncio, sys
from pathlib import Path
from upwell.pull_steps import GitClone
from upwell.serving.repositories import Repositories
from upwell.serving.source_cache import SourceCache
asyncio.run(Repositories(SourceCache(Path(sys.argv[1]))).fetch(GitClone(repository=sys.argv[2])))
"""


@pytest.mark.parametrize("command", ["fetch", "checkout"])
def test_who_is_killed_while_fetching_leaves_nothing_that_others_take_for_whole(
    repository: Repository, cache: SourceCache, tmp_path: Path, command: str
) -> None:
    git = subprocess.run(["which", "git"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/git"
    script.write_text(_STOPS_IN_THE_MIDDLE.format(command=command, folder=tmp_path, git=git))
    script.chmod(0o755)
    env = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    fetcher = subprocess.Popen([sys.executable, "-c", _FETCHES, str(cache.root), repository.url], env=env)
    try:
        while not (tmp_path / "pid").exists():
            assert fetcher.poll() is None
            time.sleep(0.01)
        fetcher.send_signal(signal.SIGKILL)
    finally:
        fetcher.kill()
        fetcher.wait()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert len(unfinished(cache)) == 1
    found = fetched(cache, repository.url)
    assert sorted(path.name for path in found.folder.iterdir()) == [".git", "flows.py"]
    (left,) = unfinished(cache)
    os.utime(left, (0, left.stat().st_mtime - UNFINISHED_SECONDS - 1))
    cache.sweep()
    assert unfinished(cache) == []
    assert found.folder.is_dir()


def test_a_mirror_that_was_damaged_is_replaced(repository: Repository, cache: SourceCache) -> None:
    (mirror,) = fetched(cache, repository.url).folder.parent.glob("mirror")
    (mirror / "shallow.lock").touch()  # as a git that was killed leaves it
    (mirror / "HEAD").write_text("nonsense")
    repository.commit(flows="VERSION = 2")
    assert code_in(fetched(cache, repository.url)) == "VERSION = 2"


def test_what_nobody_has_used_for_long_is_swept(repository: Repository, cache: SourceCache) -> None:
    old = fetched(cache, repository.url)
    repository.commit(flows="VERSION = 2")
    new = fetched(cache, repository.url)
    long_ago = new.folder.stat().st_mtime - KEPT_SECONDS - 1
    os.utime(old.folder, (long_ago, long_ago))
    cache.sweep()
    assert (old.folder.exists(), new.folder.exists()) == (False, True)
    for folder in (new.folder, new.folder.parent):
        os.utime(folder, (long_ago, long_ago))
    SourceCache(cache.root).sweep()
    assert list((cache.root / "git").iterdir()) == []
