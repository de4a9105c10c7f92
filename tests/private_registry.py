"""A registry of images that wants a password: what a Docker engine needs to pull one image, over plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER, PASSWORD = "puller", "a-very-secret-word"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_TYPE = "application/vnd.docker.{}"
_MANIFEST = _TYPE.format("distribution.manifest.v2+json")


class PrivateRegistry(ThreadingHTTPServer):
    """Serves the one image of a ``docker save`` file under any name, to whoever knows the password."""

    daemon_threads = True

    def __init__(self, saved: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        with tarfile.open(saved) as archive:

            def blob(name: str, kind: str) -> dict[str, Any]:
                member = archive.extractfile(name)
                assert member is not None
                content = member.read()
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
                self.blobs[digest] = content
                return {"mediaType": _TYPE.format(kind), "size": len(content), "digest": digest}

            index = archive.extractfile("manifest.json")
            assert index is not None
            image = json.load(index)[0]
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": blob(image["Config"], "container.image.v1+json"),
                "layers": [blob(name, "image.rootfs.diff.tar.gzip") for name in image["Layers"]],
            }
        self.manifest = json.dumps(manifest).encode()

    @property
    def name(self) -> str:
        """The first part of its images' names. Docker takes one on the loopback address without TLS."""
        return f"localhost:{self.server_port}"

    def client_config(self) -> str:
        """What ``docker login`` would have written."""
        return json.dumps({"auths": {self.name: {"auth": AUTH}}})


class _Handler(BaseHTTPRequestHandler):
    server: PrivateRegistry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        code, kind, content = self._answer()
        self.send_response(code)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def _answer(self) -> tuple[int, str, bytes]:
        if self.headers.get("Authorization") != f"Basic {AUTH}":
            return 401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        if "/manifests/" in self.path:
            return 200, _MANIFEST, self.server.manifest
        if "/blobs/" in self.path:
            content = self.server.blobs.get(self.path.rpartition("/")[2])
            return (404, "text/plain", b"") if content is None else (200, "application/octet-stream", content)
        return 200, "application/json", b"{}"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def private_registry(saved: Path) -> Iterator[PrivateRegistry]:
    """The registry, as long as it is needed."""
    with PrivateRegistry(saved) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
