"""A client of chat endpoints, against a real server that does everything wrong."""

from __future__ import annotations

import logging
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest

from babeltune.endpoint import KEY, Completion, Endpoint, Outcome, Usage
from babeltune.errors import ConfigError, ModelError
from tests.chatserver import Behaviour, answer, serving

QUESTION = [{"role": "user", "content": "Xin chào 你好"}]
CANARY = "sk-canary-1234567890"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def ask(behave: Behaviour, **settings: Any) -> tuple[Completion, int]:
    """What comes of one question, and how many requests it took."""
    with serving(behave) as server:
        settings = {"retries": 2, "backoff": 0.001, "timeout": 5.0} | settings
        with Endpoint(server.url, "tiny", where="judge.url", **settings) as endpoint:
            completion = endpoint.chat(QUESTION, {"max_tokens": 8, "temperature": 0})
        return completion, len(server.requests)


def first(fault: Any, then: Any = None) -> Behaviour:
    """The fault once, and sound answers after it."""
    return lambda asked, number: fault if number == 0 else (then or answer("Paris"))


def test_an_answer_comes_with_its_text_finish_and_usage() -> None:
    with serving(lambda asked, number: answer("Paris 巴黎")) as server, Endpoint(server.url, "tiny", where="judge.url") as endpoint:
        completion = endpoint.chat(QUESTION, {"max_tokens": 8, "temperature": 0})
        assert completion == Completion(Outcome.answered, "Paris 巴黎", "stop", Usage(7, 3))
        [asked] = server.requests
        assert asked.path == "/v1/chat/completions"
        assert asked.body == {"model": "tiny", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
        assert "Authorization" not in asked.headers


FAULTS = {
    "429 with Retry-After": ((429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.01"}), "unreachable", "slow down"),
    "500": ((500, b"oops"), "unreachable", "status 500: oops"),
    "503 without a body": ((503, b""), "unreachable", "status 503"),
    "dropped connection": ("drop", "unreachable", ""),
    "dropped half-way": ("drop half-way", "unreachable", ""),
    "HTML under status 200": (b"<html><body>Bad gateway</body></html>", "unreadable", "no JSON: <html><body>Bad gateway"),
    "truncated JSON": (answer("Paris")[:-9], "unreadable", "no JSON"),
    "error under status 200": (b'{"error": {"message": "overloaded"}}', "unreadable", "overloaded"),
    "no choices": (b'{"choices": []}', "unreadable", "no choices"),
    "choices that are none": (b'{"choices": ["a"]}', "unreadable", "no choices"),
    "a list": (b"[1]", "unreadable", "no object"),
    "deep JSON": (b"[" * 100_000, "unreadable", "no JSON"),
    "no bytes": (b"", "unreadable", "no JSON"),
    "bytes that are no UTF-8": (b'{"choices": "\xff"}', "unreadable", "no"),
    "empty content": (answer(""), "unreadable", "an empty answer"),
    "null content": (answer(None), "unreadable", "an empty answer"),
    "content that is no text": (answer([1]), "unreadable", "an answer that is no text"),  # type: ignore[arg-type]
    "a body that is not what its encoding says": ((200, b"abc", {"Content-Encoding": "gzip"}), "unreachable", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_asked_again_and_then_counts(name: str) -> None:
    fault, outcome, detail = FAULTS[name]
    completion, requests = ask(first(fault))
    assert (completion.outcome, completion.text, completion.attempts, requests) == (Outcome.answered, "Paris", 2, 2)
    completion, requests = ask(lambda asked, number: fault)
    assert (completion.outcome, completion.text, completion.attempts, requests) == (Outcome(outcome), "", 3, 3)
    assert detail in completion.detail


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_server_that_does_not_end_its_answer_is_left(fault: str) -> None:
    started = time.monotonic()
    completion, requests = ask(first(fault), timeout=0.3)
    assert (completion.outcome, requests) == (Outcome.answered, 2)
    completion, requests = ask(lambda asked, number: fault, timeout=0.15)
    assert (completion.outcome, requests) == (Outcome.unreachable, 3)
    assert time.monotonic() - started < 5


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babeltune.endpoint.MOST_BYTES", 1000)
    completion, _ = ask(lambda asked, number: answer("a" * 5000), retries=0)
    assert (completion.outcome, completion.detail) == (Outcome.unreachable, "no whole answer in 5 s and 1,000 bytes")


@pytest.mark.parametrize(
    ("response", "outcome", "text"),
    [
        (answer("half of", "length"), Outcome.truncated, "half of"),
        (answer(None, "content_filter"), Outcome.refused, ""),
        (answer(None, refusal="I will not"), Outcome.refused, ""),
    ],
)
def test_what_would_come_out_the_same_is_not_asked_again_unless_wanted(response: bytes, outcome: Outcome, text: str) -> None:
    completion, requests = ask(lambda asked, number: response)
    assert (completion.outcome, completion.text, requests) == (outcome, text, 1)
    completion, requests = ask(first(response), retry_on=Outcome)
    assert (completion.outcome, requests) == (Outcome.answered, 2)


def test_a_request_that_cannot_be_served_is_refused_at_once() -> None:
    completion, requests = ask(lambda asked, number: (400, b'{"error": {"message": "too many tokens"}}'))
    assert (completion.outcome, completion.detail, requests) == (Outcome.refused, "status 400: too many tokens", 1)


@pytest.mark.parametrize("header", ["1", "date"])
def test_a_server_that_says_when_is_not_asked_before(header: str) -> None:
    value = formatdate(time.time() + 2, usegmt=True) if header == "date" else header
    moments = []

    def behave(asked: Any, number: int) -> Any:
        moments.append(time.monotonic())
        return (429, b"", {"Retry-After": value}) if number == 0 else answer("Paris")

    assert ask(behave)[0].outcome is Outcome.answered
    assert moments[1] - moments[0] > 0.95


def test_a_retry_after_that_is_neither_number_nor_date_is_passed_over() -> None:
    completion, requests = ask(first((429, b"", {"Retry-After": "soon"})))
    assert (completion.outcome, requests) == (Outcome.answered, 2)


@pytest.mark.parametrize("status", [401, 402, 404, 405])
def test_what_no_later_question_can_cure_is_said_at_once(status: int) -> None:
    with pytest.raises(ConfigError) as error:
        ask(lambda asked, number: (status, b'{"error": {"message": "no such thing"}}'))
    url = r"http://127.0.0.1:\d+/v1/chat/completions"
    tries = f"a valid key in the environment, {KEY}" if status < 404 else "the address up to and with /v1, and its model"
    text = rf"judge.url: got status {status} from {url} \(no such thing\); expected a chat endpoint that serves 'tiny'; try {tries}"
    assert re.fullmatch(text, str(error.value))


def test_a_key_is_not_carried_to_where_a_server_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, CANARY)
    with serving(lambda asked, number: answer("stolen")) as other:
        with pytest.raises(ConfigError, match="got status 307"):
            ask(lambda asked, number: (307, b"", {"Location": f"{other.url}/chat/completions"}))
        assert other.requests == []


def test_a_server_that_is_down_ends_the_run() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with Endpoint(url, "tiny", where="judge.url", retries=0, give_up=3) as endpoint:
            assert [endpoint.chat(QUESTION).outcome for _ in range(2)] == [Outcome.unreachable] * 2
            with pytest.raises(ModelError) as error:
                endpoint.chat(QUESTION)
    assert str(error.value).startswith(f"judge.url: got no answer to 3 questions in a row from {url}/chat/completions (")
    assert str(error.value).endswith("expected a server that answers; try again when it is up: what it answered is kept")


def test_the_budget_counts_every_request() -> None:
    with serving(lambda asked, number: (500, b"")) as server:
        with Endpoint(server.url, "tiny", where="judge.url", retries=2, backoff=0.001, budget=4) as endpoint:
            completions = [endpoint.chat(QUESTION) for _ in range(3)]
            assert endpoint.sent == 4
        assert len(server.requests) == 4
    assert [one.attempts for one in completions] == [3, 1, 0]
    assert completions[1].detail == "status 500; the budget of 4 requests is spent"
    assert completions[2] == Completion(Outcome.unreachable, detail="the budget of 4 requests is spent", attempts=0)


def test_the_budget_holds_for_many_threads() -> None:
    with serving(lambda asked, number: answer("a")) as server:
        with Endpoint(server.url, "tiny", where="judge.url", budget=25) as endpoint, ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(lambda _: endpoint.chat(QUESTION).outcome, range(60)))
        assert (len(server.requests), outcomes.count(Outcome.answered)) == (25, 25)


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(KEY, f" {CANARY}\n")
    caplog.set_level(logging.DEBUG)
    said = f'{{"error": {{"message": "wrong key {CANARY}"}}}}'.encode()
    with serving(first((500, said), then=said)) as server:
        with Endpoint(server.url, "tiny", where="judge.url", retries=1, backoff=0.001) as endpoint:
            completion = endpoint.chat(QUESTION)
        assert server.requests[0].headers["Authorization"] == f"Bearer {CANARY}"
    assert completion.detail == "an error under status 200: wrong key ***"
    with pytest.raises(ConfigError) as error:
        ask(lambda asked, number: (401, said))
    assert "wrong key ***" in str(error.value)
    everything = [str(error.value), repr(completion), caplog.text, repr(endpoint), *(repr(one.args) for one in caplog.records)]
    assert not [one for one in everything if CANARY in one]


def test_a_key_that_cannot_be_one_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-a\nb")
    with pytest.raises(ConfigError) as error:
        Endpoint("http://127.0.0.1:1/v1", "tiny", where="judge.url")
    text = "environment OPENAI_API_KEY: got a value with characters that no key has; expected a key; try copying it again"
    assert str(error.value) == text


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:b/v1", "http://[1/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        Endpoint(url, "tiny", where="judge.url")
    assert str(error.value) == f"judge.url: got {url!r}; expected an http or https address; try http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("url", ["http://me:secret@a/v1", "http://a/v1?key=secret"])
def test_a_secret_in_the_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        Endpoint(url, "tiny", where="judge.url")
    expected = "expected the bare address; try the key in the environment, OPENAI_API_KEY"
    assert str(error.value) == f"judge.url: got an address of a with a user, a password or a query in it; {expected}"


def test_the_whole_address_may_be_given() -> None:
    with serving(lambda asked, number: answer("a")) as server:
        with Endpoint(f"{server.url}/chat/completions", "tiny", where="judge.url") as endpoint:
            assert endpoint.chat(QUESTION).outcome is Outcome.answered
        assert server.requests[0].path == "/v1/chat/completions"
