"""Stands for a weather service on the internet, and is like one: of three requests it answers two."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

CELSIUS = {"Oslo": 3, "Lima": 21, "Quito": 15, "Cairo": 24, "Rome": 17}
requests = count(1)


class Weather(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if next(requests) % 3 == 0:
            self.send_error(503, "Try again later")
            return
        city = self.path.strip("/")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"city": city, "celsius": CELSIUS.get(city, 10)}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8765), Weather)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
