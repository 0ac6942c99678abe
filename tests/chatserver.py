"""A real HTTP server that speaks OpenAI's chat protocol, and everything that goes wrong with such servers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Asked", int], bytes | tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | str]
"""The request and its number, from 0, to a body, a status and body, the same with headers, or the name of a fault."""


@dataclass(frozen=True)
class Asked:
    body: dict[str, Any]
    headers: dict[str, str]
    path: str

    @property
    def text(self) -> str:
        """What the user says, without the tags that a translator puts around it."""
        content: str = self.body["messages"][-1]["content"]
        return content.removeprefix("<text>").removesuffix("</text>")


@dataclass
class Server:
    behave: Behaviour
    port: int = 0
    requests: list[Asked] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def texts(self) -> list[str]:
        return [asked.text for asked in self.requests]


def answer(text: str | None, finish: str = "stop", **message: Any) -> bytes:
    """A sound response."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


@contextlib.contextmanager
def serving(behave: Behaviour, port: int = 0) -> Iterator[Server]:
    """A server on a port, or on one of its own, for the length of a `with`."""
    server = Server(behave)
    listener = ThreadingHTTPServer(("127.0.0.1", port), _handler(server))
    listener.daemon_threads = True
    server.port = listener.server_port
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = Asked(json.loads(body), dict(self.headers), self.path)
            with server.lock:
                number = len(server.requests)
                server.requests.append(asked)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._do(server.behave(asked, number))

        def _do(self, action: Any) -> None:
            match action:
                case "hang":
                    server.stopping.wait(30)
                    self.close_connection = True
                case "drop":
                    self.close_connection = True
                case "drop half-way":
                    content = answer("all of it")
                    self._send(200, content[:20], {"Content-Length": str(len(content))})
                    self.close_connection = True
                case "trickle":
                    self._send(200, b"", {"Content-Length": "100000"})
                    while not server.stopping.is_set():
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.02)
                case bytes():
                    self._send(200, action, {})
                case (status, content):
                    self._send(status, content, {})
                case (status, content, headers):
                    self._send(status, content, headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content)), "Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
