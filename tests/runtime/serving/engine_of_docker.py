"""A Docker engine as far as workers use it: its HTTP API, whose containers are processes of this machine.

Requests and answers are those of Docker Engine API 1.43, as its reference tells them.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = "1.43"


class Engine:
    """What it holds, and what it was asked. folder: where the files of containers are.

    hidden: variables of this process's environment that containers do not have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hidden: set[str] = set()
        self.images = {"shop:1"}
        self.asked: list[str] = []
        self.created: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        match (method, *path.strip("/").split("/")):
            case ("GET", "_ping"):
                return 200, "OK"
            case ("GET", "version"):
                return 200, {"ApiVersion": VERSION, "MinAPIVersion": "1.24"}
            case ("GET", "images", image, "json"):
                known = image in self.images
                return (200, {"Id": image, "RepoTags": [image]}) if known else (404, {"message": "No such image"})
            case ("POST", "images", "create"):
                self.images.add(f"{query['fromImage'][0]}:{query['tag'][0]}")
                return 200, {"status": "Pulled"}
            case ("POST", "containers", "create"):
                name = f"c{len(self.created)}"
                self.created[name] = json.loads(body)
                return 201, {"Id": name, "Warnings": []}
            case ("GET", "containers", name, "json"):
                return 200, {"Id": name, "Name": f"/{name}", "State": {}, "Config": self.created[name]}
            case ("PUT", "containers", name, "archive"):
                with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                    archive.extractall(self.folder / name, filter="data")
                return 200, None
            case (method, "containers", name, *action):
                return self._act(method, name, *action)
            case _:
                return 404, {"message": f"page not found: {method} {path}"}

    def _act(self, method: str, name: str, action: str = "") -> tuple[int, Any]:
        if action == "start":
            self._start(name)
        elif action == "wait":
            code = self.processes[name].wait()
            return 200, {"StatusCode": code if code >= 0 else 128 - code}
        elif action == "kill":
            os.kill(self.processes[name].pid, signal.SIGKILL)
        elif method == "DELETE":
            del self.created[name]
        return 204, None

    def _start(self, name: str) -> None:
        said = self.created[name]
        command = [str(self.folder / name / part.lstrip("/")) if part.startswith("/") else part for part in said["Cmd"]]
        command[0] = sys.executable if command[0] == "python" else command[0]
        environment = dict(entry.split("=", 1) for entry in said["Env"])
        around = {name: value for name, value in os.environ.items() if name not in self.hidden}
        self.processes[name] = subprocess.Popen(command, cwd=self.folder, env={**around, **environment})


@contextmanager
def docker_engine(folder: Path) -> Generator[tuple[Engine, str]]:
    """An engine that answers on this machine, and where."""
    engine = Engine(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            url = urlsplit(self.path)
            status, answer = engine.answer(
                self.command, url.path.removeprefix(f"/v{VERSION}"), parse_qs(url.query), self._body()
            )
            text = (
                b"" if answer is None else answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            )
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Api-Version", VERSION)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = b""
            while size := int(self.rfile.readline(), 16):
                parts += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return parts

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=[0.02])
    serving.start()
    try:
        yield engine, f"tcp://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
