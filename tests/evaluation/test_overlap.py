"""The mix is compared with what the run is judged on; the report changes no number, dropping does."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.data import preparing
from babeltune.errors import ConfigError
from babeltune.evaluation import overlap
from babeltune.evaluation.suites import items
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import RunConfig

LEAK = "Hãy giải thích vì sao người bị cao huyết áp nên giảm lượng muối ăn vào mỗi ngày và đưa ra ba lời khuyên cụ thể về ăn uống."
OTHER = "Viết một bài thơ ngắn về mùa thu ở thành phố quê hương của bạn và nói vì sao bạn chọn những hình ảnh đó để tả cảnh vật."


def rows(*questions: str) -> str:
    answers = (f"Đây là câu trả lời số {number}." for number in range(len(questions)))
    return "".join(
        json.dumps({"instruction": one, "output": two, "prompt": one, "response": two}) + "\n"
        for one, two in zip(questions, answers, strict=True)
    )


def config(root: Path, *overrides: str) -> RunConfig:
    for name, questions in {
        "alpaca_vi": (OTHER, f"Xin chào! {LEAK}", "Hai cộng hai?"),
        "chatdoctor_vi": (LEAK, "Hai cộng hai?"),
    }.items():
        (root / "data" / name).mkdir(parents=True, exist_ok=True)
        (root / "data" / name / "rows.jsonl").write_text(rows(*questions), encoding="utf-8")
    usual = ["data=vi_alpaca", "evaluation=none", f"paths.data={root}/data", f"paths.outputs={root}/out", "data.heldout_fraction=0"]
    return compose([*usual, "+source@data.contamination.against.chatdoctor_vi=chatdoctor_vi", *overrides])


def way(run: RunConfig) -> preparing.Writing:
    return preparing.writing(run, train_tokenizer([LEAK, OTHER] * 20, 600))


def test_rows_that_hold_items_are_counted_and_named_and_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = config(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = overlap.report(run, way(run), tmp_path / "cache")
    assert found is not None
    assert found.suites == {"chatdoctor_vi": {"items": 2, "found": 2}}
    assert found.sources == {"alpaca_vi": {"rows": 3, "hold": 2}}
    assert found.label == "2 of 2 evaluation items are in the training data (2 rows)"
    assert f"{found.label}, as {tmp_path}/data/alpaca_vi/rows.jsonl:2 has " in caplog.text
    assert overlap.apart(run) is None


def test_rows_that_hold_items_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    run = config(tmp_path, "data.contamination.action=drop")
    ledger = preparing.prepare(run, way(run), tmp_path / "cache", overlap.apart(run)).ledger
    assert [(row.taken, row.dropped) for row in ledger.rows] == [(1, {"in the evaluation set": 2})]
    found = overlap.report(run, way(run), tmp_path / "cache")
    assert found is not None
    assert (found.sources, found.label) == ({"alpaca_vi": {"rows": 1, "hold": 0}}, "")


def test_the_items_of_the_suite_are_compared_as_they_were_before_their_prompt(tmp_path: Path) -> None:
    there = ["data=toy_vi", "evaluation=toy_vi", "evaluation.max_items=30", f"paths.outputs={tmp_path}"]
    run = compose([*there, "evaluation.prompt='Trả lời thật ngắn gọn và rõ ràng câu hỏi sau đây giúp tôi nhé bạn: {question}'"])
    found = overlap.report(run, way(run), tmp_path / "cache", items(run))
    assert found is not None
    assert found.suites == {"toy_vi": {"items": 30, "found": 0}}


def test_only_rows_that_are_drawn_count(tmp_path: Path) -> None:
    run = config(tmp_path, "data.max_rows=1")
    found = overlap.report(run, way(run), tmp_path / "cache")
    assert found is not None
    assert found.sources["alpaca_vi"]["rows"] == 1
    assert found.sources["alpaca_vi"]["hold"] <= 1


def test_nothing_is_compared_when_it_is_switched_off_or_there_is_nothing(tmp_path: Path) -> None:
    off = config(tmp_path, "data.contamination.action=off")
    assert overlap.report(off, way(off), tmp_path / "cache") is None
    nothing = compose(["data=toy_vi", "evaluation=none", f"paths.outputs={tmp_path}"])
    assert overlap.report(nothing, way(nothing), tmp_path / "cache") is None


def test_a_report_is_no_part_of_the_cell_and_dropping_is(tmp_path: Path) -> None:
    report, off, other = (
        cell_of(config(tmp_path, *way)) for way in ([], ["data.contamination.action=off"], ["data.contamination.words=8"])
    )
    drop = cell_of(config(tmp_path, "data.contamination.action=drop"))
    assert report.identity == off.identity == other.identity != drop.identity
    assert len({report.evaluation, off.evaluation, other.evaluation}) == 3
    judged_otherwise = cell_of(config(tmp_path, "data.contamination.action=drop", "evaluation=toy_vi"))
    measured_otherwise = cell_of(
        config(tmp_path, "data.contamination.action=drop", "evaluation=toy_vi", "evaluation.metrics=[chrf]")
    )
    assert judged_otherwise.identity == measured_otherwise.identity != drop.identity
    usual = cell_of(compose(["data=toy_vi", f"paths.outputs={tmp_path}"]))
    assert "apart" not in usual.parts


@pytest.mark.parametrize(
    "override", ["data.contamination.words=0", "data.contamination.characters=-1", "data.contamination.overlap=1.5"]
)
def test_sizes_that_cannot_be_are_refused(override: str) -> None:
    key, value = override.split("=")
    with pytest.raises(ConfigError, match=f"^{key}: got {value}; expected "):
        compose([override])
