"""A Weights & Biases server as far as its client asks: it says yes to everything and keeps nothing but the questions."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef0123456789abcdefcafecafe"
STOP = "/stop"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.asked: list[dict[str, Any]] = []
        """GraphQL questions in order, each with `query` and `variables`."""

    @property
    def environment(self) -> dict[str, str]:
        """What sends a process here."""
        return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": f"http://127.0.0.1:{self.server_address[1]}"}

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """Of every question of this name."""
        return [one["variables"] for one in self.asked if f" {operation}" in one["query"].split("{")[0]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up when they are killed; that is what some tests are about."""


@contextlib.contextmanager
def serving(status: int = 200) -> Iterator[Server]:
    with Server(status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def stop(address: str) -> None:
    """Take the server away: from now on it answers nobody."""
    with contextlib.suppress(OSError):
        urllib.request.urlopen(urllib.request.Request(address + STOP, data=b""), timeout=5).read()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        answer: dict[str, Any] = {}
        if self.path == STOP:
            threading.Thread(target=lambda: (self.server.shutdown(), self.server.socket.close())).start()
        elif self.path == "/graphql":
            question = json.loads(raw)
            self.server.asked.append({"query": question["query"], "variables": question.get("variables") or {}})
            answer = {"data": _answer(question)}
        data = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    times = {"createdAt": "2024-01-01T00:00:00Z", "isBenchmark": False, "user": None}
    project = times | {
        "id": "p",
        "internalId": "cDE=",
        "name": "babeltune",
        "entityName": "me",
        "entity": {"id": "e", "name": "me"},
    }
    name = (question.get("variables") or {}).get("name") or "run"
    bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "project": project, "historyLineCount": 0}
    viewer = {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
    view = {"id": "view", "name": "view", "displayName": "t", "spec": (question.get("variables") or {}).get("spec")}
    return {
        "viewer": viewer,
        "serverInfo": {"cliVersionInfo": {"max_cli_version": "0.31.0"}, "latestLocalVersionInfo": None, "features": []},
        "upsertBucket": {"bucket": bucket, "inserted": True},
        "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []},
        "model": None,
        "project": project,
        "models": {"edges": [{"node": project, "cursor": "c"}], "pageInfo": {"endCursor": "c", "hasNextPage": False}},
        "upsertView": {"view": view | {"type": "runs", "description": "", "project": project, "user": viewer}, "inserted": True},
    }
