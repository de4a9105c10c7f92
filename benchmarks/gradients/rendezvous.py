"""A key-value store over HTTP, as Horovod's gloo wants it to find the other ranks. For measurements only."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGEST_VALUE_BYTES = 65536
MOST_KEYS = 4096


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    values: dict[str, bytes] = {}

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        value = self.values.get(self.path)
        self._answer(404) if value is None else self._answer(200, value)

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > LARGEST_VALUE_BYTES or len(self.values) >= MOST_KEYS:
            self._answer(413)
            return
        self.values[self.path] = self.rfile.read(length)
        self._answer(200)

    def do_DELETE(self) -> None:
        self.values.pop(self.path, None)
        self._answer(200)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: gloo asks every 10 ms."""


def serve(address: str, port: int) -> None:
    """Serve until killed; prints the port as one JSON line first."""
    server = ThreadingHTTPServer((address, port), _Handler)
    server.daemon_threads = True
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
