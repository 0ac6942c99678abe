"""A cell asks its judge, goes on where the judge was interrupted, and says what its scores stand on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from babeltune import examining, results, runner
from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.errors import EvalError
from babeltune.evaluation.judging import running
from tests.chatserver import Asked, answer, serving
from tests.evaluation.judging.scripted import saying, shown

TINY = [
    "data=toy_zh",
    "model=tiny_fresh",
    "evaluation=toy_zh",
    "evaluation.max_items=50",
    "decoding.max_new_tokens=2",
    "data.max_rows=96",
    "optimizer.max_steps=1",
    "logger=none",
]


def test_a_cell_is_judged_once_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BACKOFF", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fails = True
    unreadable = set()

    def behave(asked: Asked, number: int) -> object:
        if number < 2:
            unreadable.add(asked.text)
        if asked.text in unreadable:
            return answer("I cannot say")
        return (500, b"") if fails and number > 40 else answer("得分：0.5")

    with serving(behave) as server:  # type: ignore[arg-type]
        words = ["judge=belle", f"judge.url={server.url}", "judge.retries=0", f"paths.outputs={tmp_path}"]
        config = compose([*TINY, *words])
        with pytest.raises(EvalError, match=r"^judge.max_unreachable: got no answer about "):
            runner.run(config)
        cell = cell_of(config)
        folder = cell.folder / "evaluations" / cell.evaluation[:8]
        written = (folder / "replies.jsonl").read_bytes()
        assert not cell.is_done

        fails, sent = False, len(server.requests)
        monkeypatch.setattr(examining, "trained_model", None)
        result = runner.run(config)
        assert (folder / "replies.jsonl").read_bytes() == written
        assert len(server.requests) < sent + 15
        asked = len(server.requests)
        assert runner.run(config).scores == result.scores
        assert len(server.requests) == asked

        verdicts = results.read_verdicts(folder / "verdicts.jsonl")
        lost = sum(verdict.outcome == "unparsable" for verdict in verdicts)
        assert len(verdicts) == 50
        assert lost >= 2
        score = result.scores["toy_zh/score"]
        assert next(iter(result.scores)) == score.name
        assert (score.value, score.n, score.unscored) == (50.0, 50 - lost, lost)
        assert score.signature.startswith("judge:gpt-3.5-turbo|belle:1|words:")
        assert f"the judge scored {(50 - lost) / 50:.1%} of 50 replies ({lost} unparsable)" in result.labels
        judged = results.read_judged(cell.folder, cell.evaluation)
        assert judged is not None
        assert judged["outcomes"] == {"scored": 50 - lost, "unparsable": lost}
        assert judged["signature"] == score.signature
        assert "url" not in results.read_json(folder / "asked.json")["judge"]
        elsewhere = replace(config, judge=replace(config.judge, url="http://127.0.0.1:1/v1", concurrency=1))  # type: ignore[call-arg]
        assert cell_of(elsewhere).evaluation == cell.evaluation

    def longer(one: Asked) -> str:
        first, second = shown(one)
        return f"{5 + (len(first) > len(second))} {5 + (len(second) > len(first))}"

    with serving(saying(longer)) as server:
        words = ["judge=vicuna", f"judge.url={server.url}", f"judge.against={folder}", f"paths.outputs={tmp_path}"]
        monkeypatch.setattr(examining, "generate", None)
        again = compose([*TINY, *words])
        place = cell_of(again).folder / "evaluations" / cell_of(again).evaluation[:8]
        place.mkdir()
        for name in ("replies.jsonl", "losses.json"):
            (place / name).write_bytes((folder / name).read_bytes())
        compared = runner.run(again)
        assert compared.scores["toy_zh/win_rate"].value == 50.0
        assert compared.scores["toy_zh/flip_rate"].value == 0.0
        assert compared.scores["toy_zh/score"].value == 50.0
