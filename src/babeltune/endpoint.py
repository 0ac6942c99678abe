"""A client of OpenAI's chat protocol: one question, one outcome, whatever the server does. No torch.

Nothing that a server sends or fails to send raises, but for what no later question can cure: an address or a key that is
refused, or a server that has been away for long.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from babeltune.errors import ConfigError, ModelError, problem

if TYPE_CHECKING:
    import httpx

KEY = "OPENAI_API_KEY"
"""The environment variable that the key is read from. A local server needs none."""

MOST_BYTES = 16 * 2**20
"""A longer answer is not read to its end."""
LONGEST_WAIT = 120.0
"""Seconds that a server may ask to wait for, or that the waits grow to."""

_LATER = (408, 409, 425, 429)
"""Statuses after which the same request may succeed; so may it after every 5xx."""
_HOPELESS = (401, 402, 404, 405)
"""Statuses that every request will have."""


class Outcome(StrEnum):
    answered = "answered"
    refused = "refused"
    """By a content filter, by the model itself, or because the request cannot be served: too long, forbidden."""
    truncated = "truncated"
    """Cut at the most tokens."""
    unreadable = "unreadable"
    """Something came that is no answer: HTML, half a JSON, an error under status 200, no text."""
    unreachable = "unreachable"
    """Nothing came, or the server said to come back later."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the server counts them; 0 where it does not say."""

    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one question."""

    outcome: Outcome
    text: str = ""
    """The whole answer when answered, as far as it came when truncated."""
    finish: str = ""
    """Why the model ended, in the server's word."""
    usage: Usage = field(default_factory=Usage)
    detail: str = ""
    """Why there is no answer, for people."""
    attempts: int = 1
    """Requests sent for it."""


@dataclass(frozen=True, slots=True)
class _Try:
    """What came of one request."""

    completion: Completion
    wait: float | None = None
    """Seconds after which the server wants to hear again."""
    is_final: bool = False
    """Whether the same request would come out the same."""


class Endpoint:
    """A model at a server. Any number of threads may ask at a time.

    >>> with Endpoint("http://127.0.0.1:8000/v1", "tiny", where="judge.url") as endpoint:
    ...     endpoint.chat([{"role": "user", "content": "Hello"}], {"max_tokens": 64}).text
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        where: str,
        retries: int = 3,
        timeout: float = 120.0,
        backoff: float = 1.0,
        budget: int | None = None,
        give_up: int = 20,
        retry_on: Collection[Outcome] = (Outcome.unreachable, Outcome.unreadable),
    ) -> None:
        """`where` is the option that holds the address, for messages. `timeout` is of one request, in seconds; `backoff` is the
        first wait, doubled each time. `budget` is the most requests to send, retries included. After `give_up` questions in a
        row without any answer the server counts as down. `retry_on` are the outcomes worth another try.

        Raises ConfigError for an address that is none, or a key that cannot be sent.
        """
        self.url = _address(url, where)
        self.model = model
        self._where = where
        self._retries, self._timeout, self._backoff = retries, timeout, backoff
        self._budget, self._give_up = budget, give_up
        self._retry_on = frozenset(retry_on) - {Outcome.answered}
        self._key = _key()
        self._random = random.Random()  # of its own: how long a wait is must not move anybody else's numbers
        self._lock = threading.Lock()
        self._sent = 0
        self._unreachable = 0
        self._not_before = 0.0
        self._client = self._connected()

    @property
    def sent(self) -> int:
        """Requests sent so far."""
        return self._sent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any] | None = None) -> Completion:
        """Ask, and ask again while that may help. `options` are fields of the request: max_tokens, temperature, seed, ...

        Raises ConfigError when the server refuses the key or does not know the address or model, ModelError when it is down.
        """
        body = json.dumps({"model": self.model, "messages": list(messages), **(options or {})}).encode()
        attempts = 0
        completion = Completion(Outcome.unreachable)
        for number in range(self._retries + 1):
            if not self._may_send():
                said = f"the budget of {self._budget} requests is spent"
                return replace(completion, detail=f"{completion.detail}; {said}".lstrip("; "), attempts=attempts)
            attempts += 1
            tried = self._try(body)
            completion = tried.completion
            if tried.is_final or completion.outcome not in self._retry_on:
                break
            if number < self._retries:
                self._rest(number, tried.wait)
        self._watch(completion)
        return replace(completion, attempts=attempts)

    def _connected(self) -> httpx.Client:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it writes a line for every request
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx.Client(headers=headers, timeout=self._timeout, limits=limits, follow_redirects=False)

    def _may_send(self) -> bool:
        with self._lock:
            if self._budget is not None and self._sent >= self._budget:
                return False
            self._sent += 1
            pause = self._not_before - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        return True

    def _rest(self, number: int, asked: float | None) -> None:
        """Wait before the next try. What a server asks for holds for every thread."""
        if asked is not None:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + min(asked, LONGEST_WAIT))
        else:
            time.sleep(min(self._backoff * 2**number, LONGEST_WAIT) * self._random.uniform(0.5, 1.0))

    def _try(self, body: bytes) -> _Try:
        import httpx

        deadline = time.monotonic() + self._timeout
        try:
            with self._client.stream("POST", self.url, content=body, headers={"Content-Type": "application/json"}) as response:
                content = _content(response, deadline)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            said = str(error) or type(error).__name__
            return _Try(_nothing(Outcome.unreachable, self._without_key(said)))
        if content is None:
            return _Try(_nothing(Outcome.unreachable, f"no whole answer in {self._timeout:g} s and {MOST_BYTES:,} bytes"))
        if response.status_code in _HOPELESS or response.is_redirect:
            raise self._refused(response.status_code, content)
        tried = _status(response, content) if response.status_code != 200 else _Try(_answer(content))
        return replace(tried, completion=replace(tried.completion, detail=self._without_key(tried.completion.detail)))

    def _refused(self, status: int, content: bytes) -> ConfigError:
        said = self._without_key(_said(content))
        got = f"status {status} from {self.url} ({said})" if said else f"status {status} from {self.url}"
        hint = f"a valid key in the environment, {KEY}" if status in (401, 402) else "the address up to and with /v1, and its model"
        return ConfigError(problem(self._where, got, f"a chat endpoint that serves {self.model!r}", hint))

    def _watch(self, completion: Completion) -> None:
        """Raise ModelError once too many questions in a row came to nothing."""
        with self._lock:
            self._unreachable = self._unreachable + 1 if completion.outcome is Outcome.unreachable else 0
            is_down = self._unreachable >= self._give_up
        if is_down:
            got = f"no answer to {self._give_up} questions in a row from {self.url} ({completion.detail})"
            raise ModelError(problem(self._where, got, "a server that answers", "again when it is up: what it answered is kept"))

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _address(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigError(problem(where, repr(url), "an http or https address", "http://127.0.0.1:8000/v1"))
    if parts.username or parts.password or parts.query:
        got = f"an address of {parts.hostname} with a user, a password or a query in it"
        raise ConfigError(problem(where, got, "the bare address", f"the key in the environment, {KEY}"))
    return url if parts.path.rstrip("/").endswith("/chat/completions") else f"{url.rstrip('/')}/chat/completions"


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        got = "a value with characters that no key has"
        raise ConfigError(problem(f"environment {KEY}", got, "a key", "copying it again"))
    return key


def _content(response: httpx.Response, deadline: float) -> bytes | None:
    """The body, or None when it does not end in time or grows too long."""
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if time.monotonic() > deadline or len(content) > MOST_BYTES:
            return None
    return bytes(content)


def _status(response: httpx.Response, content: bytes) -> _Try:
    status = response.status_code
    said = _said(content)
    detail = f"status {status}: {said}" if said else f"status {status}"
    if status in _LATER or status >= 500:
        return _Try(_nothing(Outcome.unreachable, detail), wait=_retry_after(response.headers.get("retry-after")))
    return _Try(_nothing(Outcome.refused, detail), is_final=True)


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date; None where there is neither."""
    if not value:
        return None
    if value.strip().replace(".", "", 1).isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _answer(content: bytes) -> Completion:
    """What stands in the body of a response with status 200."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _nothing(Outcome.unreadable, f"no JSON: {_beginning(content)}")
    if not isinstance(tree, dict):
        return _nothing(Outcome.unreadable, f"no object: {_beginning(content)}")
    if tree.get("error"):
        return _nothing(Outcome.unreadable, f"an error under status 200: {_said(content)}")
    match tree.get("choices"):
        case [{"message": dict(message), **rest}, *_]:
            return _choice(message, str(rest.get("finish_reason") or ""), _usage(tree.get("usage")))
    return _nothing(Outcome.unreadable, f"no choices: {_beginning(content)}")


def _choice(message: Mapping[str, Any], finish: str, usage: Usage) -> Completion:
    text = message.get("content")
    refusal = message.get("refusal")
    if finish == "content_filter" or refusal:
        detail = f"the model refused: {refusal}" if refusal else "a content filter"
        return Completion(Outcome.refused, finish=finish, usage=usage, detail=detail)
    if text is not None and not isinstance(text, str):
        return Completion(Outcome.unreadable, finish=finish, usage=usage, detail="an answer that is no text")
    if finish == "length":
        detail = "cut at the most tokens"
        return Completion(Outcome.truncated, text or "", finish, usage, detail)
    if not text or not text.strip():
        return Completion(Outcome.unreadable, finish=finish, usage=usage, detail="an empty answer")
    return Completion(Outcome.answered, text, finish, usage)


def _usage(value: Any) -> Usage:
    counts = value if isinstance(value, dict) else {}
    prompt, completion = (counts.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0)


def _nothing(outcome: Outcome, detail: str) -> Completion:
    return Completion(outcome, detail=detail)


def _said(content: bytes) -> str:
    """What an error says, in one short line."""
    try:
        tree = json.loads(content)
        error = tree.get("error", tree) if isinstance(tree, dict) else tree
        said = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError):
        return _beginning(content)
    return " ".join(str(said).split())[:200]


def _beginning(content: bytes) -> str:
    return " ".join(content[:400].decode("utf-8", "replace").split())[:80]
