"""The items of a suite: the same for every cell, and in no cell's training data."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

from babeltune.data import preparing, templates
from babeltune.errors import EvalError
from babeltune.evaluation import suites
from babeltune.options import RunConfig, SourceConfig, ToyConfig
from babeltune.records import Item, Message
from tests.modeling import tiny

FRACTION = 0.2


def _rows() -> list[dict[str, Any]]:
    rows = [{"instruction": f"问题 {n}：Hà Nội?", "input": "x" if n % 3 else "", "output": f"answer {n}"} for n in range(200)]
    rows += [{**row, "output": row["output"] + " again"} for row in rows[:100]]  # the same prompts, other answers
    rows += [{**row, "instruction": row["instruction"].upper() + " "} for row in rows[50:150]]  # told apart by spacing alone
    return rows


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def _config(
    root: Path, *sources: SourceConfig, kind: str = "heldout", fraction: float = FRACTION, max_items: int = 1000
) -> RunConfig:
    made = tiny.config()
    by_name = {source.name: source for source in sources}
    evaluation = dataclasses.replace(made.evaluation, kind=kind, name="own", sources=by_name, max_items=max_items)
    data = dataclasses.replace(made.data, sources=by_name, heldout_fraction=fraction)
    return dataclasses.replace(made, evaluation=evaluation, data=data, paths=dataclasses.replace(made.paths, data=str(root)))


def _source(name: str = "own") -> SourceConfig:
    return SourceConfig(name=name, language="vi")


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("{question}", ("译这句。", "{question} 你好")),
        ("{question}先思考，再决定", ("译这句。先思考，再决定", "{question} 你好")),
        ("{question}.\n\n{input}\nOutput:", ("译这句。.\n\n{question} 你好\nOutput:", "")),
        ("{a} {question} {}", ("{a} 译这句。 {}", "{question} 你好")),
    ],
)
def test_a_question_is_put_as_the_suite_says(prompt: str, asked: tuple[str, str], tmp_path: Path) -> None:
    _write(tmp_path / "own", [{"instruction": "译这句。", "input": "{question} 你好", "output": "Xin chào"}])
    made = _config(tmp_path, _source(), fraction=0.999)
    plain = suites.items(made)
    put = suites.items(dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, prompt=prompt)))
    assert [(item.messages[-1].text, item.messages[-1].input) for item in put] == [asked]
    assert [(item.id, item.reference) for item in put] == [(item.id, item.reference) for item in plain]


def test_flacunas_writing_is_asked_in_its_own_words() -> None:
    template = templates.choose("vicuna")
    item = Item("i", (Message("user", "Write a story", input="About a cat"),), "", "", "en")
    put = suites.asked(item, "{question}.\n\n{input}\nOutput:")
    laid_out = templates.render_prompt(put.messages, template, templates.Marks(bos=None, eos="</s>"))
    text = "".join(segment.text for segment in laid_out)
    assert text.rstrip().endswith(" USER: Write a story.\n\nAbout a cat\nOutput: ASSISTANT:")


def test_no_item_is_in_any_training_pool(tmp_path: Path) -> None:
    _write(tmp_path / "own", _rows())
    _write(tmp_path / "copy", _rows()[::-1])
    settings = _config(tmp_path, _source("own"), _source("copy"))
    asked = {_letters(item.messages[-1].text + item.messages[-1].input) for item in suites.items(settings)}
    assert 20 < len(asked) < 60
    way = tiny.writing(settings)
    for stream in preparing.cleaned(settings, way, tmp_path / ".cache").of.values():
        found = preparing.tokenise(stream, settings, way, tmp_path / ".cache")
        trained = {_letters(way.encoder.decode(found[int(row)][0], skip_special=True)) for row in found.pool}
        assert len(found.pool) > 200
        prompts = [_letters(f"### Instruction:{item}") for item in asked]
        assert not [text for text in trained if any(prompt in text.replace("###input:", "") for prompt in prompts)]


def test_the_order_of_the_rows_does_not_change_the_items(tmp_path: Path) -> None:
    rows = _rows()
    _write(tmp_path / "one" / "own", rows)
    random.Random(0).shuffle(rows)
    _write(tmp_path / "two" / "own", rows)
    one, two = (suites.items(_config(tmp_path / name, _source())) for name in ("one", "two"))
    assert one == two
    assert len({item.id for item in one}) == len(one)


def test_each_prompt_is_asked_once(tmp_path: Path) -> None:
    _write(tmp_path / "own", _rows())
    asked = [_letters(item.messages[-1].text + item.messages[-1].input) for item in suites.items(_config(tmp_path, _source()))]
    assert len(asked) == len(set(asked))


def test_a_smaller_suite_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    _write(tmp_path / "own", _rows())
    small, large = (suites.items(_config(tmp_path, _source(), max_items=count)) for count in (7, 30))
    assert len(small) == 7
    assert large[:7] == small


def test_an_item_is_the_first_turn_with_its_system_message(tmp_path: Path) -> None:
    turns = [("system", "S"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    _write(tmp_path / "own", [{"messages": [{"role": role, "content": text} for role, text in turns]}])
    source = dataclasses.replace(_source(), format=tiny.compose([]).data.sources["toy_zh"].format.__class__.messages)
    (item,) = suites.items(_config(tmp_path, source, fraction=0.999999))
    assert item.messages == (Message("system", "S"), Message("user", "Q1"))
    assert (item.reference, item.category, item.language) == ("A1", "own", "vi")


def test_a_suite_of_generated_items_is_the_same_each_time() -> None:
    settings = tiny.compose(["evaluation=toy", "evaluation.max_items=5", "data=toy_zh"])
    once, again = suites.items(settings), suites.items(settings)
    assert once == again
    counts = {language: sum(item.language == language for item in once) for language in settings.evaluation.languages}
    assert counts == dict.fromkeys(settings.evaluation.languages, 5)


def test_no_suite_has_no_items(tmp_path: Path) -> None:
    assert suites.items(_config(tmp_path, kind="none")) == []


def test_holding_out_nothing_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "own", _rows())
    with pytest.raises(EvalError) as caught:
        suites.items(_config(tmp_path, _source(), fraction=0.0))
    assert str(caught.value) == (
        "data.heldout_fraction: got 0; expected a share for evaluation=heldout to take its items from; "
        "try data.heldout_fraction=0.02"
    )


def test_a_generated_source_holds_out_nothing_and_is_refused(tmp_path: Path) -> None:
    source = dataclasses.replace(_source("toy"), toy=ToyConfig(rows=10, language="zh"))
    with pytest.raises(
        EvalError, match=r"^evaluation.sources.toy: got 0; expected a share .+; try evaluation=toy, which has items"
    ):
        suites.items(_config(tmp_path, source))


def test_a_suite_without_items_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "own", _rows()[:2])
    with pytest.raises(EvalError) as caught:
        suites.items(_config(tmp_path, _source(), fraction=1e-9))
    assert str(caught.value) == (
        "evaluation=own: got no items; expected at least one; try another suite or a larger data.heldout_fraction"
    )


def test_a_source_that_cannot_be_had_leaves_the_suite_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path / "own", _rows())
    caplog.set_level("INFO")
    both = suites.items(_config(tmp_path, _source("gone"), _source()))
    assert both == suites.items(_config(tmp_path, _source()))
    assert f"gone is not below {tmp_path} and has no hub id: it is left out of the evaluation" in caplog.text


def test_an_answered_item_ends_with_its_reference() -> None:
    item = Item("a", (Message("user", "Q"),), "A", "t", "en")
    assert suites.answered(item) == (Message("user", "Q"), Message("assistant", "A"))
