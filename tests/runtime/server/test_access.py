"""Who is let in: programs of this machine, keys, sessions; by which names; and what other sites' pages cannot do."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tests.runtime.server.serving import Asked, asking, maker, settings_of

from upwell.core.errors import AccessError, ConfigurationError
from upwell.server.access import host_of, is_loopback
from upwell.server.serve import serve

VERSION = "/api/version"
FORM_TYPE = "application/x-www-form-urlencoded"


async def status(asked: Asked, **headers: str) -> int:
    """What a request with these headers is answered."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await asked.http.get(VERSION, headers=said)).status_code


NOT_LOCAL: tuple[dict[str, str], ...] = (
    {"X-Forwarded-For": "1.2.3.4"},
    {"Forwarded": "for=1.2.3.4"},
    {"Via": "1.1 proxy"},
    {"X-Real-IP": "1.2.3.4"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": ""},
    {"Host": "flows.example.com"},
)
OURS = ("localhost:4200", "LOCALHOST", "127.0.0.1", "[::1]:4200", "127.8.8.8:1")
NOT_OURS = (
    *("evil.example.com", "127.0.0.1.evil.com", "localhost.evil.com", "10.0.0.7", ""),
    *("[::1", "a b", "127.0.0.1:x", "@", "localhost@evil.com", "localhost, evil.com"),
)


def test_only_a_program_of_this_machine_needs_no_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, server_hosts=("flows.example.com",)) as asked:
            assert await status(asked) == 200
            for headers in NOT_LOCAL:
                assert await status(asked, **headers) == 401, headers
        for client, expected in (("::1", 200), ("192.168.1.7", 401), ("testclient", 401)):
            async with asking(tmp_path, client) as asked:
                assert await status(asked) == expected

    asyncio.run(main())


def test_a_name_that_was_pointed_here_reads_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            for host in NOT_OURS:
                assert await status(asked, Host=host) == 421, host
            for host in OURS:
                assert await status(asked, Host=host) == 200, host

    asyncio.run(main())


def test_once_there_was_a_key_everybody_needs_one_unless_that_is_set(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            assert (await asked.http.get(VERSION)).status_code == 200
            made = await asked.http.post("/api/api-keys", json={"name": "first", "scope": "admin"})
            assert made.status_code == 201
            header = {"Authorization": f"Bearer {made.json()['secret']}"}
            assert (await asked.http.get(VERSION)).status_code == 401
            assert (await asked.http.get(VERSION, headers=header)).status_code == 200
            key_id = made.json()["key"]["id"]
            assert (await asked.http.delete(f"/api/api-keys/{key_id}", headers=header)).status_code == 200
            assert (await asked.http.get(VERSION, headers=header)).status_code == 401, "revoked at once"
            assert (await asked.http.get(VERSION)).status_code == 401, "the last key that goes opens nothing"
        async with asking(tmp_path, server_require_key=False) as asked:
            assert await status(asked) == 200
        async with asking(tmp_path / "new", server_require_key=True) as asked:
            assert await status(asked) == 401

    asyncio.run(main())


def test_another_address_than_loopback_is_refused_without_a_key(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    for host in ("0.0.0.0", "::", "192.0.2.1", "localhost.example.com"):
        with pytest.raises(ConfigurationError, match="upwell api-key create"):
            asyncio.run(serve(maker(settings), settings, host=host, port=0))


def test_another_address_needs_keys_whatever_is_set(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path, server_require_key=False) as asked:
            await asked.key("admin")
            with pytest.raises(ConfigurationError, match="REQUIRE_KEY"):
                await asked.parts.access.check_address("0.0.0.0")
        async with asking(tmp_path) as asked:
            header = await asked.key("read")
            await asked.parts.access.check_address("0.0.0.0")
            assert (await asked.http.get(VERSION)).status_code == 401
            assert (await asked.http.get(VERSION, headers={"Host": "10.1.2.3"})).status_code == 401
            assert (await asked.http.get(VERSION, headers={"Host": "10.1.2.3", **header})).status_code == 200
            assert (await asked.http.get(VERSION, headers={"Host": "evil.com", **header})).status_code == 421

    asyncio.run(main())


# --- other sites' pages -------------------------------------------------------------------------------------

FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "http://evil.example.com"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://127.0.0.1:4200.evil.com"},
    {"Origin": ""},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:4200", "Sec-Fetch-Site": "cross-site"},
)


def test_a_foreign_page_changes_nothing_and_our_own_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            limit = "/api/concurrency-limits/x"
            for headers in FOREIGN:
                for method in ("POST", "PUT", "PATCH", "DELETE"):
                    answer = await asked.http.request(method, limit, json={"slots": 1}, headers=headers)
                    assert answer.status_code == 403, (method, headers)
                    assert "access-control-allow-origin" not in answer.headers
            assert await asked.parts.limits.limits() == []
            ours = {"Origin": "http://127.0.0.1:4200", "Sec-Fetch-Site": "same-origin"}
            answer = await asked.http.put("/api/concurrency-limits/x", json={"slots": 1}, headers=ours)
            assert answer.status_code == 200

    asyncio.run(main())


def test_a_session_changes_something_only_with_the_word_of_its_pages(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            _, secret = await asked.parts.control.create_key("me", "admin")
            token = await asked.parts.access.log_in(secret)
            cookie = {"Cookie": f"upwell_session={token}"}
            word = await asked.parts.access.actor({}, token, None, "")
            assert word is not None
            put, limit = asked.http.put, "/api/concurrency-limits/x"
            assert (await asked.http.get(VERSION, headers=cookie)).status_code == 200
            assert (await put(limit, json={"slots": 1}, headers=cookie)).status_code == 403
            wrong = {**cookie, "X-CSRF-Token": "x"}
            assert (await put(limit, json={"slots": 1}, headers=wrong)).status_code == 403
            right = {**cookie, "X-CSRF-Token": word.csrf_token}
            assert (await put(limit, json={"slots": 1}, headers=right)).status_code == 200
            await asked.parts.access.log_out(token)
            assert (await asked.http.get(VERSION, headers=cookie)).status_code == 401

    asyncio.run(main())


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            key, secret = await asked.parts.control.create_key("me", "admin")
            cookie = {"Cookie": f"upwell_session={await asked.parts.access.log_in(secret)}"}
            assert (await asked.http.get(VERSION, headers=cookie)).status_code == 200
            await asked.parts.control.revoke_key(key.id)
            assert (await asked.http.get(VERSION, headers=cookie)).status_code == 401
            with pytest.raises(AccessError):
                await asked.parts.access.log_in(secret)

    asyncio.run(main())


def test_a_form_of_a_session_that_has_ended_is_answered_by_a_page_that_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            _, secret = await asked.parts.control.create_key("me", "admin")
            token = await asked.parts.access.log_in(secret)
            await asked.parts.access.log_out(token)
            browser = {"Cookie": f"upwell_session={token}", "Accept": "text/html", "Content-Type": FORM_TYPE}
            answer = await asked.http.post("/limits/put", content=b"name=x&slots=1", headers=browser)
            assert answer.status_code == 401
            assert answer.headers["content-type"].startswith("text/html")
            assert "Your session has ended" in answer.text
            program = {**browser, "Accept": "*/*"}
            answer = await asked.http.post("/limits/put", content=b"name=x&slots=1", headers=program)
            assert (answer.status_code, answer.json()["status"]) == (401, 401)

    asyncio.run(main())


def test_whoever_makes_the_first_key_on_a_page_stays_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            word = re.search(r'name="csrf_token" value="([^"]+)"', (await asked.http.get("/keys")).text)
            assert word is not None
            body = f"csrf_token={word[1]}&name=me&scope=admin&days="
            made = await asked.http.post("/keys/new", content=body, headers={"Content-Type": FORM_TYPE})
            assert made.status_code == 200
            assert "upwell_session=" in made.headers["set-cookie"]
            cookie = {"Cookie": made.headers["set-cookie"].partition(";")[0]}
            assert (await asked.http.get("/keys", headers=cookie)).status_code == 200
            asked.http.cookies.clear()
            assert (await asked.http.get("/keys")).status_code == 401

    asyncio.run(main())


def test_a_form_of_a_foreign_page_cannot_be_sent_in_the_name_of_this_machine(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
                headers = {"Content-Type": kind}
                answer = await asked.http.post("/api/upkeep/jobs", content=b"a=b", headers=headers)
                assert answer.status_code in (400, 403), kind

    asyncio.run(main())


def test_no_secret_is_kept(tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with asking(tmp_path) as asked:
            _, secret = await asked.parts.control.create_key("me", "admin")
            token = await asked.parts.access.log_in(secret)
            assert len(secret) >= 32
            assert len(token) >= 43
            return [secret, token]

    secrets = asyncio.run(main())
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        for secret in secrets:
            assert secret.encode() not in file.read_bytes()


def test_every_answer_has_a_browser_load_and_run_nothing_foreign(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            for path in ("/api/version", "/nothing", "/api/health", "/api/task-runs?limit=0"):
                for headers in ({}, {"Host": "evil.com"}, {"Authorization": "Bearer wrong"}):
                    said = (await asked.http.get(path, headers=headers)).headers
                    assert said["content-security-policy"].startswith("default-src 'self';")
                    assert "unsafe" not in said["content-security-policy"]
                    assert "frame-ancestors 'none'" in said["content-security-policy"]
                    assert said["x-content-type-options"] == "nosniff"
                    assert said["x-frame-options"] == "DENY"
                    assert "server" not in said

    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:80", "a.b"), ("[::1]:80", "::1"), ("A", "a"), (":80", None), ("[::1]x", None), ("a:b:c", None), ("a:", "a")],
)
def test_the_name_in_a_host_header(header: str, name: str | None) -> None:
    assert host_of(header) == name


def test_loopback_names() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "::1", "127.9.9.9"]))
    assert not any(
        map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.com", "example.com", "", "127.1.evil"])
    )
