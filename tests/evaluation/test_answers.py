"""Recorded answers are rows like any other: found by id or question, counted where they are missing, known by their bytes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from babeltune import comparison
from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.errors import BabelTuneError, ConfigError, EvalError
from babeltune.evaluation import scoring, suites
from babeltune.evaluation.answers import plain, recorded
from babeltune.options import PathsConfig, RunConfig
from babeltune.records import Item, Reply, Score
from babeltune.results import evaluation_folder, read_replies, write_replies
from babeltune.tables import render
from tests.finished import finish, note, score

SUITE = ["data=none", "evaluation=toy_zh", "evaluation.max_items=6", "logger=none"]
CONFIG = compose(["model=answers", *SUITE])
ITEMS = suites.items(CONFIG)


def asking(path: Path, *overrides: str) -> RunConfig:
    config = compose(["model=answers", *SUITE, *overrides])
    model = dataclasses.replace(config.model, answers=str(path))
    return dataclasses.replace(config, model=model, paths=PathsConfig(outputs=str(path.parent / "outputs")))


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(config: RunConfig) -> dict[str, str]:
    return {reply.item: reply.text for reply in recorded(config, suites.items(config))}


@pytest.mark.parametrize("name", ["item", "question_id", "id"])
@pytest.mark.parametrize("answer", ["answer", "text", "output", "reply"])
def test_an_answer_is_found_by_the_id_of_its_item(name: str, answer: str, tmp_path: Path) -> None:
    path = written(tmp_path, {name: ITEMS[1].id, answer: "二"}, {name: ITEMS[0].id, answer: "一"}, {name: "other", answer: "?"})
    replies = recorded(asking(path), ITEMS)
    assert [(reply.item, reply.text) for reply in replies] == [(ITEMS[0].id, "一"), (ITEMS[1].id, "二")]


@pytest.mark.parametrize("prompt", ["{question}", "问：{question}"])
def test_an_answer_is_found_by_its_question_whatever_the_white_space_and_width(prompt: str, tmp_path: Path) -> None:
    question, rest = ITEMS[2].messages[0], ITEMS[3].messages[0]
    path = written(
        tmp_path,
        {"instruction": f"　{question.text.replace('。', '。 ')}\r\n", "input": question.input, "output": "三"},
        {"question": f"{rest.text}\n{rest.input}", "output": "四"},
    )
    assert texts(asking(path, f"evaluation.prompt='{prompt}'")) == {ITEMS[2].id: "三", ITEMS[3].id: "四"}
    assert plain("Ａ，b ") == plain("A,b") != plain("a,b")


def test_the_number_of_a_question_is_a_name_of_its_item(tmp_path: Path) -> None:
    items = [dataclasses.replace(item, facts={"question_id": n}) for n, item in enumerate(ITEMS, 1)]
    replies = recorded(asking(written(tmp_path, {"question_id": 2, "text": "二", "model_id": "x"})), items)
    assert [(reply.item, reply.text) for reply in replies] == [(ITEMS[1].id, "二")]


def test_a_cells_own_replies_come_back_as_they_were(tmp_path: Path) -> None:
    replies = [Reply(item.id, f"{n}\n", "length", n, (-0.5, -1.0)) for n, item in enumerate(ITEMS)]
    write_replies(tmp_path / "replies.jsonl", replies)
    assert recorded(asking(tmp_path / "replies.jsonl"), ITEMS) == replies


def test_items_without_an_answer_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": ITEMS[0].id, "output": ITEMS[0].reference}, {"id": ITEMS[1].id, "output": None})
    found = scoring.score(CONFIG, ITEMS, recorded(asking(path), ITEMS), {}, {})
    whole = found["toy_zh/exact_match"]
    assert (whole.value, whole.n, whole.unscored) == (100.0, 1, len(ITEMS) - 1)
    assert not any("loss" in name for name in found)


def test_a_suite_with_scores_of_its_own_counts_the_unanswered_by_category(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(config: RunConfig, items: Any, replies: Any, verdicts: Any) -> list[Score]:
        values = {item.id: float(reply.text == item.reference) for item, reply in zip(items, replies, strict=True)}
        one = score("toy_zh/accuracy", values)
        return [one, dataclasses.replace(one, name=f"toy_zh/accuracy_{ITEMS[0].category}")]

    monkeypatch.setitem(suites.SUITES, "toy", dataclasses.replace(suites.SUITES["toy"], scores=own))
    missing = ITEMS[0].category
    replies = [Reply(item.id, item.reference, "stop", 1) for item in ITEMS[1:-1]]
    found = scoring.score(CONFIG, ITEMS, replies, {}, {})
    left = [ITEMS[0], ITEMS[-1]]
    assert (found["toy_zh/accuracy"].n, found["toy_zh/accuracy"].unscored) == (len(replies), 2)
    assert found[f"toy_zh/accuracy_{missing}"].unscored == sum(item.category == missing for item in left)


def refusal(path: Path, *overrides: str, items: list[Item] | None = None) -> str:
    config = asking(path, *overrides)
    items = items or suites.items(config)
    with pytest.raises(EvalError) as caught:
        recorded(config, items)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    first, second = ITEMS[0].id, ITEMS[1].id
    path = tmp_path / "answers.jsonl"
    keys = "an id (item, question_id, id) or a question (instruction, question, prompt), and an answer"
    written(tmp_path, {"id": first, "ouput": "x"})
    assert refusal(path).startswith(f"{path}:1: got keys id, ouput; expected {keys}")
    written(tmp_path, {"output": "x"})
    assert refusal(path).startswith(f"{path}:1: got keys output; expected {keys}")
    written(tmp_path, {"id": first, "output": 3})
    assert f"{path}:1" in refusal(path)
    written(tmp_path, {"id": first, "output": "x"}, {"id": first, "output": "y"})
    assert (
        refusal(path)
        == f"{path}:2: got a second answer to {first}; expected one answer to an item; try keeping the one at {path}:1"
    )
    question = ITEMS[1].messages[0]
    written(tmp_path, {"id": first, "instruction": question.text, "input": question.input, "output": "x"})
    assert f"{path}:1: got the id of {first} with the question of {second}; expected" in refusal(path)
    written(tmp_path, {"id": "9", "output": "x"})
    expected = (
        f"model.answers: got {path} with answers (1), none of them to an item of toy_zh; expected ids or questions of the suite"
    )
    assert refusal(path) == f"{expected}; try ids like {first}"
    path.write_text('{"id": \n', encoding="utf-8")
    assert f"{path}:1: got " in refusal(path)


def test_answers_in_words_have_no_probabilities_to_choose_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(suites.SUITES, "toy", dataclasses.replace(suites.SUITES["toy"], asks="choice"))
    said = refusal(written(tmp_path, {"id": ITEMS[0].id, "output": "A"}), items=ITEMS)
    assert "without the log-probability of each label, for toy_zh; expected a replies.jsonl of a cell on this suite" in said


TOGETHER = {
    "model=answers data=toy_zh": "model.answers: got recorded answers and the mix toy_zh to train on; "
    "expected recorded answers to judge; try data=none, or model.answers=null",
    "model=tiny model.answers=x data=none": "model: got from_cell and answers; expected one of path, from_cell, fresh and answers; "
    "try model.from_cell=null, model.answers=null",
    "model=answers model.adapter=x data=none": "model.adapter: got an adapter over model.answers; "
    "expected trained weights below it",
    "model=answers data=none evaluation=none": "model.answers: got answers without questions; expected a suite to judge them on",
    "model=tiny model.adapter=x": "model.adapter: got an adapter that is there already and the mix toy_zh to train on",
}


@pytest.mark.parametrize("overrides", TOGETHER)
def test_what_goes_with_no_answers_is_refused(overrides: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides.split())
    assert TOGETHER[overrides] in str(caught.value)


def test_a_cell_of_answers_is_known_by_their_bytes_and_by_nothing_that_asks_a_model(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": ITEMS[0].id, "output": "x"})
    own = cell_of(asking(path))
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = written(other, {"id": ITEMS[0].id, "output": "x"})
    asked = ["seed=3", "decoding.sample=true", "decoding.max_new_tokens=99", "template=belle", "precision=bf16", "paths.answers=y"]
    same = cell_of(asking(moved, *asked))
    assert (same.identity, same.evaluation, same.folder.name) == (own.identity, own.evaluation, own.folder.name)
    assert own.folder.name.startswith("none-answers-")
    assert cell_of(asking(path, "evaluation.max_items=5")).evaluation != own.evaluation
    written(tmp_path, {"id": ITEMS[0].id, "output": "y"})
    assert cell_of(asking(path)).identity != own.identity
    path.unlink()
    with pytest.raises(
        BabelTuneError, match=r"model.answers: got .*, which cannot be read \(No such file or directory\); expected"
    ):
        cell_of(asking(path))


def test_a_table_shows_the_losses_of_the_rows_that_have_one(tmp_path: Path) -> None:
    path = written(tmp_path, {"id": ITEMS[0].id, "output": "x"})
    values = {item.id: 100.0 for item in ITEMS}
    cells = [["model=answers", f"model.answers={path}", *SUITE], ["model=tiny", *SUITE]]
    finish(cells[0], [score("toy_zh/exact_match", values)], tmp_path)
    loss = score("toy_zh/loss", {"a": 2.5}, higher_is_better=False)
    finish(cells[1], [score("toy_zh/exact_match", values), loss], tmp_path)
    said = render(comparison.table(note(cells, tmp_path)))
    assert "loss" in said.splitlines()[2]
    assert "2.500" in said


@pytest.mark.slow
def test_answers_make_a_cell_with_no_model_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, *({"question_id": item.id, "text": item.reference} for item in ITEMS[:4]))
    code = "\n".join(
        [
            "import babeltune.modeling.loading as loading",
            "def never(*args, **kwargs): raise AssertionError('a model was loaded')",
            "loading.load_base = loading.load_tokenizer = never",
            "from babeltune.config import compose",
            "from babeltune.runner import run",
            f"config = compose(['model=answers', *{SUITE!r}, 'paths.answers={path}', 'paths.outputs={tmp_path}/outputs'])",
            "result = run(config)",
            "one = result.scores['toy_zh/exact_match']",
            "print(one.value, one.n, one.unscored, result.cell)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    value, n, unscored, folder = done.stdout.split()
    assert (value, n, unscored) == ("100.0", "4", str(len(ITEMS) - 4))
    cell = cell_of(asking(path))
    assert cell.folder.name == folder
    kept = read_replies(evaluation_folder(cell.folder, cell.evaluation) / "replies.jsonl")
    assert [reply.text for reply in kept] == [item.reference for item in ITEMS[:4]]
