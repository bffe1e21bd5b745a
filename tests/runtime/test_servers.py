"""Servers as people start, find and stop them; what they acknowledge outlives them."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from tests.runtime.server.serving import PATIENCE_SECONDS, Process, free_port, server_process

from upwell import servers
from upwell.core.errors import ConfigurationError
from upwell.settings import temporary_settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with temporary_settings(home=str(tmp_path)):
        yield tmp_path
        servers.stop_server()


def test_a_server_in_the_background_is_started_found_and_stopped(home: Path) -> None:
    assert servers.server_status().info is None
    assert servers.stop_server() is None
    info = servers.start_in_background(port=free_port())
    found = servers.server_status()
    assert found.info == info
    assert found.answers
    assert httpx.get(f"{info.url}/api/version").status_code == 200
    with pytest.raises(ConfigurationError, match="runs already"):
        servers.start_in_background(port=free_port())
    for file in home.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    assert servers.stop_server() == info
    assert servers.server_status().info is None
    assert not (home / "server.json").exists()


def test_a_server_loads_no_library_that_it_does_not_use() -> None:
    code = "import sys; from upwell.server import app; app.Server(app.api_routes()); print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_a_dead_server_has_left_is_no_server(home: Path) -> None:
    home.mkdir(exist_ok=True)
    dead = f'{{"pid":{os.getpid()},"pid_started":"0","host":"127.0.0.1","port":1,"started":0}}'
    for left in (dead, "", "{", "[]"):
        (home / "server.json").write_text(left)
        assert servers.server_status().info is None
        assert servers.stop_server() is None


def test_a_port_that_cannot_be_is_said(home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot answer on 127.0.0.1:99999: .*must be 0-65535"):
        servers.run_server(port=99_999, services=False, quiet=True)


def test_a_port_that_is_taken_is_said_with_what_to_do(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match=r"Is another one running there.*--port"):
            servers.start_in_background(port=taken.getsockname()[1])


def test_a_server_needs_a_store_that_others_can_reach() -> None:
    with temporary_settings(journal="memory"), pytest.raises(ConfigurationError, match="store that others can reach"):
        servers.run_server(port=0)


def test_a_server_ends_though_somebody_listens(tmp_path: Path) -> None:
    with server_process(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)) as listener:
        listener.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert listener.recv(15) == b"HTTP/1.1 200 OK"
        assert server.end() == 0
        told = b"".join(iter(lambda: listener.recv(65_536), b""))
        assert told.endswith(b"\r\n0\r\n\r\n")  # to its end; of an answer that was cut off there is no last chunk


def test_what_was_acknowledged_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    acknowledged = 0
    with server_process(tmp_path) as server:
        with httpx.Client(base_url=server.url) as http:
            for number in range(20):
                http.put(f"/api/concurrency-limits/limit-{number}", json={"slots": number}).raise_for_status()
                acknowledged += 1
        server.kill()
    with server_process(tmp_path, server.port) as server:
        limits = httpx.get(f"{server.url}/api/concurrency-limits").json()
        assert sorted(limit["slots"] for limit in limits) == list(range(acknowledged))
        audit = httpx.get(f"{server.url}/api/audit", params={"limit": 100}).json()["items"]
        assert len(audit) == acknowledged


def test_two_servers_of_one_store_are_one(postgres_url: str, tmp_path: Path) -> None:
    def start(name: str) -> AbstractContextManager[Process]:
        return server_process(tmp_path / name, UPWELL_DATABASE_URL=postgres_url)

    with start("1") as one, start("2") as other:
        made = httpx.post(f"{one.url}/api/api-keys", json={"name": "k", "scope": "admin"}).json()
        headers = {"Authorization": f"Bearer {made['secret']}"}
        deployment = {
            "flow_name": "f",
            "name": "d",
            "entrypoint": "a.py:f",
            "schedules": [{"kind": "interval", "expression": "60", "slug": "each-minute"}],
        }
        wanted = httpx.put(f"{one.url}/api/deployments", json=deployment, headers=headers).raise_for_status().json()
        until_there(other, f"/api/deployments/{wanted['id']}", headers)
        for server in (one, other) * 3:
            httpx.post(f"{server.url}/api/upkeep/ticks", headers=headers).raise_for_status()
        runs = httpx.get(f"{other.url}/api/flow-runs", params={"limit": 1000}, headers=headers).json()["items"]
        due = [run["due"] for run in runs]
        assert len(due) == len(set(due)) >= 3
        for path in ("flows", "flows?text=f", "counts", "workers", "concurrency-limits", "audit"):
            httpx.get(f"{other.url}/api/{path}", headers=headers).raise_for_status()
        assert "upwell_jobs" in httpx.get(f"{other.url}/metrics", headers=headers).text
        run = httpx.post(
            f"{one.url}/api/deployments/{wanted['id']}/runs", headers={**headers, "Idempotency-Key": "x"}
        ).json()
        again = httpx.post(
            f"{other.url}/api/deployments/{wanted['id']}/runs", headers={**headers, "Idempotency-Key": "x"}
        ).json()
        assert run["id"] == again["id"]
        key = f"/api/api-keys/{made['key']['id']}"
        httpx.delete(f"{one.url}{key}", headers=headers).raise_for_status()
        until_refused(other, headers)
        assert (one.end(), other.end()) == (0, 0)


def until_there(server: Process, path: str, headers: dict[str, str]) -> None:
    assert httpx.get(f"{server.url}{path}", headers=headers).status_code == 200


def until_refused(server: Process, headers: dict[str, str]) -> None:
    """A key that was revoked elsewhere is refused soon."""
    until = time.monotonic() + PATIENCE_SECONDS
    while httpx.get(f"{server.url}/api/version", headers=headers).status_code != 401:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_server_that_was_killed_while_it_was_asked_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        with server_process(tmp_path, port) as server:
            async with httpx.AsyncClient(base_url=server.url) as http:
                asking = [
                    asyncio.ensure_future(http.put(f"/api/concurrency-limits/{n}", json={"slots": 1}))
                    for n in range(20)
                ]
                await asyncio.sleep(0.05)
                server.kill()
                await asyncio.gather(*asking, return_exceptions=True)
        with server_process(tmp_path, port) as server:
            assert server.get("/api/ready")[0] == 200

    asyncio.run(main())
