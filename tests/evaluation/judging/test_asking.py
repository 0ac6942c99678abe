"""A judge at a server that misbehaves: every reply is accounted for, nothing is paid for twice, no bound is passed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from babeltune.data.cleaning.cache import Cache
from babeltune.errors import ConfigError, DataError, EvalError, ModelError
from babeltune.evaluation.judging import deciding, running, store
from babeltune.evaluation.judging.deciding import Judged
from tests.chatserver import Asked, Behaviour, answer, serving
from tests.evaluation.judging.scripted import config, endpoint, items, number_of, replies, saying

GOOD = answer("得分：0.5\n理由：一般。")
COUNT = 30


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BACKOFF", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def judged(behave: Behaviour, folder: Path, *, count: int = COUNT, **options: Any) -> tuple[Judged, int]:
    """What came of asking about so many replies, and the requests that it took."""
    asked = items(count)
    with serving(behave) as server:
        one = endpoint(server.url, **({"max_unreachable": 1.0, "concurrency": 8} | options))
        found = deciding.judge(config(one), asked, replies(asked), folder)
        return found, len(server.requests)


FAULTS: dict[str, tuple[Any, str]] = {
    "429 always": ((429, b"{}"), "unreachable"),
    "429 with Retry-After": ((429, b"{}", {"Retry-After": "0"}), "unreachable"),
    "500": ((500, b"oops"), "unreachable"),
    "drop": ("drop", "unreachable"),
    "drop half-way": ("drop half-way", "unreachable"),
    "HTML": (b"<html>hello</html>", "unreachable"),
    "nothing": (b"", "unreachable"),
    "half a JSON": (GOOD[:40], "unreachable"),
    "no choices": (b'{"choices": []}', "unreachable"),
    "error under 200": (b'{"error": {"message": "busy"}}', "unreachable"),
    "null": (answer(None), "unreachable"),
    "length": (answer("得分：0.5\n理", finish="length"), "truncated"),
    "content filter": (answer("", finish="content_filter"), "refused"),
    "refusal": (answer(None, refusal="no"), "refused"),
    "400": ((400, b'{"error": {"message": "too long"}}'), "refused"),
    "score 11": (answer("得分：11"), "unparsable"),
    "8/10 but 3": (answer("8/10 but 3"), "unparsable"),
    "two verdicts": (answer("得分：0.1\n得分：0.9"), "unparsable"),
    "half a pair of surrogates": (answer("\ud83d 得分：0.5"), "scored"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_an_outcome_and_nothing_is_lost(fault: str, tmp_path: Path) -> None:
    """Every other reply meets the fault, as often as it is asked about."""
    action, outcome = FAULTS[fault]

    def behave(asked: Asked, number: int) -> Any:
        return GOOD if number_of(asked) % 2 else action

    found, sent = judged(behave, tmp_path)
    counts = Counter(verdict.outcome for verdict in found.verdicts.values())
    assert counts == Counter({"scored": COUNT // 2}) + Counter({outcome: COUNT // 2})
    assert found.facts["outcomes"] == dict(counts)
    assert all((verdict.value is None) == (verdict.outcome != "scored") for verdict in found.verdicts.values())
    assert {verdict.value for verdict in found.verdicts.values()} - {None} == {50.0}
    own, _ = found.scores("s", items(COUNT), replies(items(COUNT)))
    assert (own[0].value, own[0].n, own[0].unscored) == (50.0, counts["scored"], COUNT - counts["scored"])
    assert sent <= 2 * COUNT
    assert bool(found.facts["label"]) == (outcome != "scored")
    json.dumps([verdict.text for verdict in found.verdicts.values()], ensure_ascii=False).encode()


def test_a_restart_asks_only_for_what_never_came(tmp_path: Path) -> None:
    """The other server has another port, and a port is part of what is asked: the same one is taken again."""
    asked, fails = items(20), threading.Event()

    def behave(one: Asked, number: int) -> Any:
        return (500, b"") if not fails.is_set() and number_of(one) in (7, 17) else GOOD

    with serving(behave) as server:
        one = endpoint(server.url, retries=0)
        with pytest.raises(EvalError) as error:
            deciding.judge(config(one), asked, replies(asked), tmp_path)
        got = "judge.max_unreachable: got no answer about 2 of 20 replies (status 500); expected at most 0% of them"
        tries = "try again, which asks only for what is missing, or judge.max_unreachable=1 to leave them out"
        assert str(error.value) == f"{got}; {tries}"
        assert len(server.requests) == 20
        fails.set()
        found = deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert len(server.requests) == 22
        assert found.facts["outcomes"] == {"scored": 20}
        assert found.facts["questions_kept"] == 18
        deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert len(server.requests) == 22


def test_429_once_is_waited_for_and_asked_again(tmp_path: Path) -> None:
    found, sent = judged(lambda asked, number: (429, b"", {"Retry-After": "0.2"}) if number == 0 else GOOD, tmp_path, count=3)
    assert (found.facts["outcomes"], sent) == ({"scored": 3}, 4)


def test_a_server_that_hangs_costs_the_timeout(tmp_path: Path) -> None:
    start = time.monotonic()
    found, _ = judged(lambda asked, number: "hang" if number < 2 else GOOD, tmp_path, count=4, timeout=0.3, retries=0)
    assert found.facts["outcomes"] == {"scored": 2, "unreachable": 2}
    assert time.monotonic() - start < 5


def test_a_third_of_everything_at_random_is_counted_exactly(tmp_path: Path) -> None:
    actions = [GOOD] * 14 + [
        (500, b""),
        b"<html>",
        answer("得分：11"),
        answer("x", finish="length"),
        answer("", finish="content_filter"),
        b"",
    ]
    outcomes = ["scored"] * 14 + ["unreachable", "unreachable", "unparsable", "truncated", "refused", "unreachable"]

    def behave(asked: Asked, number: int) -> Any:
        return actions[number_of(asked) % 20]

    found, sent = judged(behave, tmp_path, count=100)
    assert Counter(verdict.outcome for verdict in found.verdicts.values()) == Counter(outcomes * 5)
    assert sent == 100 + 15
    assert found.facts["label"] == "the judge scored 70.0% of 100 replies (15 unreachable, 5 unparsable, 5 truncated, 5 refused)"


def test_every_label_is_silent_from_98_percent_on(tmp_path: Path) -> None:
    def behave(bad: int) -> Callable[[Asked, int], bytes]:
        return lambda asked, number: answer("?") if number_of(asked) < bad else GOOD

    assert judged(behave(1), tmp_path / "a", count=50)[0].facts["label"] == ""
    assert judged(behave(2), tmp_path / "b", count=50)[0].facts["label"].startswith("the judge scored 96.0% of 50")


def test_too_many_questions_are_refused_before_the_first(tmp_path: Path) -> None:
    with serving(saying("得分：1")) as server:
        with pytest.raises(EvalError) as error:
            deciding.judge(config(endpoint(server.url, max_requests=5)), items(6), replies(items(6)), tmp_path)
        hint = "judge.max_requests=6 or a smaller evaluation.max_items"
        assert str(error.value) == f"judge.max_requests: got 6 questions to ask; expected at most 5; try {hint}"
        assert server.requests == []


def test_a_cost_that_may_be_too_much_is_refused_before_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"max_cost": 0.01, "prompt_price": 1.0, "answer_price": 100.0, "max_tokens": 1000}
    with serving(saying("得分：1")) as server, caplog.at_level("INFO"):
        with pytest.raises(EvalError) as error:
            deciding.judge(config(endpoint(server.url, **options)), items(6), replies(items(6)), tmp_path)
        got = "judge.max_cost: got 6 questions that may cost 0.60 (guessed from characters); expected at most 0.01; "
        assert str(error.value).startswith(got)
        assert server.requests == []
    assert "6 questions to the judge, 0 answered before, about " in caplog.text
    assert "at most 6,000 to come (guessed from characters), 0.60 at most" in caplog.text


def test_requests_stop_at_the_bound_whatever_is_tried_again(tmp_path: Path) -> None:
    found, sent = judged(lambda asked, number: (500, b""), tmp_path, count=10, max_requests=12, retries=5, concurrency=2)
    assert sent == 12
    assert found.facts["outcomes"] == {"unreachable": 10}
    spent = "the budget of 12 requests is spent"
    assert any(spent in verdict.facts["detail"] for verdict in found.verdicts.values())


def test_asking_stops_when_the_cost_is_spent(tmp_path: Path) -> None:
    """The server counts 7 and 3 tokens for each, more than prompts so short were guessed to have."""
    found, sent = judged(
        lambda asked, number: answer("得分：1").replace(b'"prompt_tokens": 7', b'"prompt_tokens": 1000000'),
        tmp_path,
        count=10,
        concurrency=1,
        max_cost=2.5,
        prompt_price=1.0,
    )
    assert sent == 3
    assert found.facts["outcomes"] == {"unreachable": 7, "scored": 3}
    assert found.facts["cost"] == pytest.approx(3.0)


def test_questions_under_way_never_pass_the_bound(tmp_path: Path) -> None:
    lock, at_once, most = threading.Lock(), [0], [0]

    def behave(asked: Asked, number: int) -> bytes:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        with lock:
            at_once[0] -= 1
        return GOOD

    judged(behave, tmp_path, concurrency=3)
    assert 1 < most[0] <= 3


def test_ctrl_c_loses_no_answer(tmp_path: Path) -> None:
    asked = items(40)

    def behave(one: Asked, number: int) -> bytes:
        if number == 10:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.005)
        return GOOD

    with serving(behave) as server:
        one = endpoint(server.url, concurrency=4)
        with pytest.raises(KeyboardInterrupt):
            deciding.judge(config(one), asked, replies(asked), tmp_path)
        answered = len(server.requests)
        assert 10 < answered < 40
        found = deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert found.facts["outcomes"] == {"scored": 40}
        assert len(server.requests) == 40


def test_a_refused_key_is_one_sentence_and_keeps_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    asked = items(6)
    with serving(lambda one, number: GOOD if number < 3 else (401, b'{"error": "bad key sk-canary"}')) as server:
        one = endpoint(server.url, concurrency=1)
        with pytest.raises(ConfigError) as error:
            deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert str(error.value).startswith(f"judge.url: got status 401 from {server.url}/chat/completions (bad key ***)")
        with Cache(tmp_path / store.FILE) as kept:
            assert kept._file.execute("SELECT count(*) FROM kept").fetchone() == (3,)
    assert b"sk-canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_server_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        judged(lambda asked, number: "drop", tmp_path, count=40, retries=0)
    assert str(error.value).startswith("judge.url: got no answer to 20 questions in a row from http://127.0.0.1:")


def test_a_damaged_store_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_bytes(b"no database " * 100)
    with pytest.raises(DataError) as error:
        judged(saying("得分：1"), tmp_path)
    assert str(error.value).startswith(f"{tmp_path / store.FILE}: got a file that cannot be used (file is not a database)")


def test_whatever_is_asked_otherwise_is_asked_again(tmp_path: Path) -> None:
    with serving(saying("得分：1")) as server:
        sent = []
        for options in ({}, {"temperature": 0.5}, {"max_tokens": 9}, {"model": "other"}, {"seed": 1}, {"fence": "plain"}):
            deciding.judge(config(endpoint(server.url, **options)), items(2), replies(items(2)), tmp_path)
            sent.append(len(server.requests))
        deciding.judge(config(endpoint(server.url)), items(2), replies(items(2), "other {}".format), tmp_path)
        sent.append(len(server.requests))
        assert sent == [2, 4, 6, 8, 10, 12, 14]
        deciding.judge(config(endpoint(server.url, concurrency=1, retries=0, timeout=9.0)), items(2), replies(items(2)), tmp_path)
        assert len(server.requests) == 14


def test_repeated_judgements_are_asked_for_each_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    with serving(saying("得分：1")) as server:
        one = endpoint(server.url, n_judgements=3, seed=5, concurrency=1)
        found = deciding.judge(config(one), items(2), replies(items(2)), tmp_path)
        assert sorted(asked.body["seed"] for asked in server.requests) == [5, 5, 6, 6, 7, 7]
        assert found.verdicts["q0"].facts["judgements"] == {"": [[100.0]] * 3}
        sent = len(server.requests)
        deciding.judge(config(endpoint(server.url, n_judgements=3)), items(2), replies(items(2)), tmp_path)
        assert len(server.requests) == sent + 6
        deciding.judge(config(endpoint(server.url, n_judgements=4, seed=5)), items(2), replies(items(2)), tmp_path)
        assert len(server.requests) == sent + 8
