"""A central that says what a test wants it to say."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class StubCentral:
    """Answers of the control API by path; requests as they came."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.tokens: list[str | None] = []

    def says(self, path: str, value: Any, status: int = 200) -> None:
        """A JSON value, or bytes for a plain answer."""
        self.answers[f"/api/v1/{path}"] = (status, value)

    @property
    def posts(self) -> list[tuple[str, Any]]:
        return [(path, body) for method, path, body in self.requests if method == "POST"]


@contextmanager
def stub_central() -> Iterator[StubCentral]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    stub = StubCentral(server.server_address[1])
    server.stub = stub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        stub: StubCentral = self.server.stub  # type: ignore[attr-defined]
        stub.requests.append((self.command, self.path, body))
        stub.tokens.append(self.headers.get("Authorization"))
        path = urlsplit(self.path).path
        usual = (200, {}) if self.command == "POST" else (404, {"error": f"nothing at {path}"})
        status, value = stub.answers.get(path, usual)
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass
