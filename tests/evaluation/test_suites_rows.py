"""Suites of question rows: each in the form its data has, from rows to the scores that the paper's table reads."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from babeltune import cells, results
from babeltune.config import compose
from babeltune.errors import ConfigError, DataError
from babeltune.evaluation import scoring, suites
from babeltune.evaluation.judging.deciding import Judged
from babeltune.evaluation.suites import rows, rowscores
from babeltune.options import RunConfig
from babeltune.records import Item, Reply, Score, Verdict

CLASSES = (
    *("rewrite", "classification", "generation", "summarization", "extract"),
    *("open qa", "brainstorming", "closed qa", "math", "code"),
)
BARE = ("rewrite", "generation", "brainstorming")
"""Classes whose rows have no reference here."""


def _belle() -> list[dict[str, str]]:
    """Two rows of each class, math three; the names with the capitals and no-break spaces that the published files have."""
    names = {"open qa": "open QA", "closed qa": "closed\u00a0qa"}
    made = []
    for name in (*CLASSES, *CLASSES, "math"):
        number = len(made)
        answer = "" if name in BARE else f"第{number}题的答案是{number * 7}。"
        made.append({"question": f"第{number}题：请回答{name}。", "std_answer": answer, "class": names.get(name, name)})
    return made


def _vicuna(field: str, value: Any = str) -> list[dict[str, Any]]:
    kinds = ("generic", "common-sense", "math")
    return [{"question_id": n, "category": kinds[n % 3], field: value(f"Question {n}?")} for n in range(9)]


def _webmedqa() -> list[dict[str, Any]]:
    """One answer of two is the chosen one."""
    return [
        {
            "id": n,
            "label": label,
            "category": ("内科", "外科")[n % 2],
            "question": f"头痛{n}天怎么办？",
            "answer": f"多喝水，{text}{n}次。",
        }
        for n in range(6)
        for label, text in ((1, "休息"), (0, "广告"))
    ]


DATA: dict[str, dict[str, list[dict[str, Any]]]] = {
    "belle_1k": {
        "eval_set.jsonl.gz": _belle(),
        "eval_set_v1172.jsonl.gz": _belle()[:2],
        "eval_prompt.jsonl.gz": [
            {"class": name.replace("qa", "QA").replace(" ", "\u00a0"), "prompt": f"请给{name}打分。"} for name in CLASSES
        ],
    },
    "vicuna80_en": {"question_turns.jsonl.gz": _vicuna("turns", lambda text: [text])},
    "vicuna80_zh": {"data.jsonl.gz": _vicuna("text")},
    "vicuna80_vi": {"data.jsonl.gz": _vicuna("text")},
    "icliniq": {
        "data.jsonl.gz": [
            {
                "answer": f"drink water {n} times a day --> <link>",
                "question": f"is pain {n} bad?",
                "question_text": f"\r\n\t Hi doctor,\nI have had pain for {n} days.\t",
                "tags": ["pain"],
                "url": f"https://example.org/{n}",
            }
            for n in range(130)
        ]
    },
    "webmedqa": {"data.jsonl": _webmedqa()},
    "impact": {
        "data.jsonl": [
            {"Category": kind, "Definition": f"Write a {kind} text.", "Prompt": f"About topic {n}."}
            for kind in ("Informative", "Professional", "Argumentative", "Creative")
            for n in range(2)
        ]
    },
}
"""Suite to its files, with few rows of our own."""
FOLDERS = {"icliniq": "eval_icliniq_465"}


def _write(root: Path, suite: str, files: Mapping[str, Sequence[Any]] | None = None) -> Path:
    folder = root / FOLDERS.get(suite, f"eval_{suite}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in (files or DATA[suite]).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


def _config(root: Path, suite: str, *words: str) -> RunConfig:
    return compose([f"evaluation={suite}", f"paths.data={root}", f"paths.outputs={root}/outputs", "scale=paper", *words])


def _items(root: Path, suite: str, *words: str) -> list[Item]:
    _write(root, suite)
    return suites.items(_config(root, suite, *words))


def _verdicts(items: Sequence[Item], values: Mapping[str, float], **facts: Any) -> dict[str, Verdict]:
    return {item.id: Verdict(item.id, "scored", values[item.category], "", facts) for item in items}


def _scores(config: RunConfig, items: Sequence[Item], verdicts: Mapping[str, Verdict]) -> dict[str, Score]:
    replies = [Reply(item.id, item.reference or "好的。", "stop", 3) for item in items]
    return {one.name: one for one in rowscores.scores(config, items, replies, verdicts)}


def test_belle_has_its_ten_classes_repaired_with_what_the_judge_is_told_of_each(tmp_path: Path) -> None:
    items = _items(tmp_path, "belle_1k")
    assert sorted({item.category for item in items}) == sorted(CLASSES)
    assert len(items) == 21
    assert all(item.facts["judge_prompt"] == f"请给{item.category}打分。" for item in items)
    assert sum(not item.reference for item in items) == 6
    assert {item.language for item in items} == {"zh"}


def test_belles_score_is_the_mean_of_nine_classes_with_math_and_code_as_one(tmp_path: Path) -> None:
    items = _items(tmp_path, "belle_1k")
    config = _config(tmp_path, "belle_1k")
    values = {name: 10.0 * place for place, name in enumerate(CLASSES)}
    found = _scores(config, items, _verdicts(items, values))
    assert next(iter(found)) == "belle_1k/score"
    others = (3 * 80 + 2 * 90) / 5  # items of both classes, not the mean of 80 and 90
    assert found["belle_1k/score_others"].value == pytest.approx(others)
    assert found["belle_1k/score_others"].n == 5
    assert found["belle_1k/score"].value == pytest.approx((sum(range(0, 80, 10)) + others) / 9)
    assert found["belle_1k/score_without_others"].value == pytest.approx(35.0)
    assert found["belle_1k/score_of_ten"].value == pytest.approx(45.0)
    assert [found[f"belle_1k/score_{name.replace(' ', '_')}"].value for name in CLASSES] == [values[name] for name in CLASSES]
    assert "belle_1k/chrf" in found


def test_the_items_of_a_mean_of_classes_have_its_value_as_their_mean(tmp_path: Path) -> None:
    items = _items(tmp_path, "belle_1k")
    verdicts = {item.id: Verdict(item.id, "scored", float(place), "") for place, item in enumerate(items)}
    for name in ("score", "score_without_others", "score_of_ten"):
        score = _scores(_config(tmp_path, "belle_1k"), items, verdicts)[f"belle_1k/{name}"]
        assert score.value == pytest.approx(sum(score.items.values()) / len(score.items))
        assert len(score.items) == score.n


def test_a_reply_that_the_judge_did_not_score_is_counted_and_in_no_mean(tmp_path: Path) -> None:
    items = _items(tmp_path, "belle_1k")
    verdicts = _verdicts(items, dict.fromkeys(CLASSES, 50.0))
    lost = next(item for item in items if item.category == "math")
    verdicts[lost.id] = Verdict(lost.id, "unparsable", None, "?")
    found = _scores(_config(tmp_path, "belle_1k"), items, verdicts)
    assert (found["belle_1k/score_math"].n, found["belle_1k/score_math"].unscored) == (2, 1)
    assert (found["belle_1k/score"].value, found["belle_1k/score"].n, found["belle_1k/score"].unscored) == (50.0, 20, 1)


def test_a_mean_says_how_many_of_its_classes_are_in_it(tmp_path: Path) -> None:
    items = [item for item in _items(tmp_path, "belle_1k") if item.category != "extract"]
    found = _scores(_config(tmp_path, "belle_1k"), items, _verdicts(items, dict.fromkeys(CLASSES, 50.0)))
    assert found["belle_1k/score"].signature.startswith("mean of 8 of 9 categories|")
    assert found["belle_1k/score_of_ten"].signature.startswith("mean of 9 of 10 categories|")


def test_without_a_judge_the_references_score_and_the_result_says_so(tmp_path: Path) -> None:
    items, config = _items(tmp_path, "belle_1k"), _config(tmp_path, "belle_1k")
    found = _scores(config, items, {})
    assert next(iter(found)) == "belle_1k/chrf"
    assert not [name for name in found if "/score" in name]
    assert (found["belle_1k/chrf"].value, found["belle_1k/chrf"].n, found["belle_1k/chrf"].unscored) == (100.0, 15, 6)
    assert (found["belle_1k/chrf_rewrite"].value, found["belle_1k/chrf_rewrite"].unscored) == (None, 2)
    assert results.labels(config, ()) == ("belle_1k without the judge of the paper",)


def test_questions_without_references_and_judge_have_a_score_with_nothing_scored(tmp_path: Path) -> None:
    items = _items(tmp_path, "vicuna80_en")
    found = _scores(_config(tmp_path, "vicuna80_en"), items, {})
    assert list(found) == [f"vicuna80_en/{name}" for name in ("total", "common_sense", "generic", "math")]
    assert {(one.value, one.n, one.signature) for one in found.values()} == {(None, 0, "not judged")}
    assert found["vicuna80_en/total"].unscored == 9


@pytest.mark.parametrize("language", ["en", "zh", "vi"])
def test_vicunas_total_is_the_mean_over_questions(language: str, tmp_path: Path) -> None:
    suite = f"vicuna80_{language}"
    items = _items(tmp_path, suite)
    assert {item.language for item in items} == {language}
    assert {item.id for item in items} == {f"eval_{suite}:{n}" for n in range(9)}
    judged = _verdicts(items[:-1], {"generic": 90.0, "common-sense": 60.0, "math": 30.0})
    found = _scores(_config(tmp_path, suite), items, judged)
    total = found[f"{suite}/total"]
    assert (total.n, total.unscored) == (8, 1)
    assert total.value == pytest.approx(sum(verdict.value or 0 for verdict in judged.values()) / 8)
    assert found[f"{suite}/common_sense"].value == 60.0


def test_vicuna_asks_the_same_questions_in_the_same_order_in_every_language(tmp_path: Path) -> None:
    orders = {
        tuple(item.id.split(":")[1] for item in _items(tmp_path, f"vicuna80_{tag}", "evaluation.sample=4")) for tag in ("en", "zh")
    }
    assert len(orders) == 1


def test_a_stand_in_for_the_papers_questions_is_named_in_the_result(tmp_path: Path) -> None:
    said = results.labels(_config(tmp_path, "vicuna80_vi"), ())
    assert said[0] == "another translation of the Vicuna questions than the paper's"


def test_icliniq_takes_one_hundred_by_what_they_say(tmp_path: Path) -> None:
    items = _items(tmp_path, "icliniq")
    assert len(items) == 100
    assert items[0].messages[0].text.startswith("Hi doctor,\nI have had pain for ")
    assert items[0].messages[0].text.endswith("days.")
    found = list(DATA["icliniq"]["data.jsonl.gz"])
    random.Random(1).shuffle(found)
    _write(tmp_path / "other", "icliniq", {"data.jsonl.gz": found})
    assert suites.items(_config(tmp_path / "other", "icliniq")) == items
    assert suites.items(_config(tmp_path, "icliniq", "evaluation.max_items=7")) == items[:7]
    other = suites.items(_config(tmp_path, "icliniq", "evaluation.sample_seed=1"))
    assert {item.id for item in other} != {item.id for item in items}


def test_webmedqa_asks_each_question_once_against_its_chosen_answer_in_every_variant(tmp_path: Path) -> None:
    items = _items(tmp_path, "webmedqa")
    assert [sorted(item.reference for item in items)] == [[f"多喝水，休息{n}次。" for n in range(6)]]
    found = _scores(_config(tmp_path, "webmedqa"), items, {})
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "gleu", "rouge_1", "rouge_2", "rouge_l")
    assert next(iter(found)) == "webmedqa/bleu_1"
    assert [found[f"webmedqa/{name}"].value for name in names] == [pytest.approx(100.0)] * 8
    assert found["webmedqa/bleu_4_内科"].n == 3
    assert "rouge_l|norm:nfc|tok:char|grams:set" in found["webmedqa/rouge_l"].signature
    choices = {one.signature for one in found.values()}
    assert len(choices) == 46
    assert "webmedqa/bleu_4:jieba:individual:none" in found


def test_all_answers_to_a_question_may_be_its_references(tmp_path: Path) -> None:
    alone = _items(tmp_path, "webmedqa")
    words = ("~evaluation.where.label", "evaluation.same_question=together")
    together = _items(tmp_path, "webmedqa", *words)
    assert [item.id for item in together] == [item.id for item in alone]
    assert all(len(item.facts["references"]) == 2 for item in together)
    config = _config(tmp_path, "webmedqa", *words)
    replies = [Reply(item.id, "多喝水，广告三次。", "stop", 3) for item in together]
    lifted, plain = (rowscores.scores(config, items, replies, {})[0] for items in (together, alone))
    assert lifted.value is not None
    assert plain.value is not None
    assert lifted.value > plain.value
    assert lifted.signature.endswith("|several references:joint")


def test_impact_has_two_rubrics_by_kind_of_writing(tmp_path: Path) -> None:
    items = _items(tmp_path, "impact")
    assert {item.messages[0].text.split(".")[0] for item in items} >= {"Write a Informative text", "Write a Creative text"}
    assert all(" About topic " in item.messages[0].text and item.messages[0].input == "" for item in items)
    verdicts = _verdicts(
        items, dict.fromkeys(("informative", "professional", "argumentative", "creative"), 3.0), relevance=4.0, coherence=2.0
    )
    found = _scores(_config(tmp_path, "impact"), items, verdicts)
    assert {name: one.value for name, one in found.items()} == {
        f"impact/{aspect}{kind}": value
        for aspect, value in (("relevance", 4.0), ("coherence", 2.0))
        for kind in ("", "_informative", "_professional", "_argumentative", "_creative")
    }


def test_the_suites_scores_take_the_place_of_the_judges_own(tmp_path: Path) -> None:
    items, config = _items(tmp_path, "vicuna80_zh"), _config(tmp_path, "vicuna80_zh")
    replies = [Reply(item.id, "好", "stop", 1) for item in items]
    judged = Judged(_verdicts(items, {"generic": 90.0, "common-sense": 60.0, "math": 30.0}), "vicuna", "judge:x")
    found = scoring.score(config, items, replies, {}, {}, judged)
    assert next(iter(found)) == "vicuna80_zh/total"
    assert found["vicuna80_zh/total"].value == pytest.approx(60.0)


def test_an_answer_ends_at_the_suites_mark(tmp_path: Path) -> None:
    config = _config(tmp_path, "belle_1k", "evaluation.answer_ends='###'")
    said = [Reply("a", "好的。\n\n### Instruction:\n再来", "length", 9), Reply("b", "好", "stop", 1)]
    assert [reply.text for reply in rows.answers(config, said)] == ["好的。", "好"]
    assert [reply.text for reply in rows.answers(_config(tmp_path, "belle_1k"), said)] == [reply.text for reply in said]
    items = _items(tmp_path, "belle_1k")
    assert _scores(config, items, {})["belle_1k/chrf"].signature.endswith("|answer ends at '###'")


def test_equal_rows_are_items_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path, "belle_1k", DATA["belle_1k"] | {"eval_set.jsonl.gz": [_belle()[1]] * 2})
    first, second = sorted(item.id for item in suites.items(_config(tmp_path, "belle_1k")))
    assert second == f"{first}#2"


def test_languages_and_categories_are_chosen_and_renamed(tmp_path: Path) -> None:
    tagged = [{**row, "lang": ("zh-CN", "en")[place % 2]} for place, row in enumerate(_belle())]
    _write(tmp_path, "belle_1k", DATA["belle_1k"] | {"eval_set.jsonl.gz": tagged})
    words = ("evaluation.languages=[zh]", "+evaluation.categories={MATH: others, code: others}", "evaluation.judge_prompts=''")
    config = _config(tmp_path, "belle_1k", *words, "evaluation.sources.eval_belle_1k.files=[eval_set.json*]")
    items = suites.items(config)
    assert len(items) == 11
    assert {item.category for item in items} & {"others", "math", "code"} == {"others"}


ROW = _vicuna("text")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            [*ROW, {"question_id": 10, "category": "math"}],
            "data.jsonl.gz:10: got no 'text' (it has 'question_id', 'category'); "
            "expected the field of evaluation.question; try evaluation.question=NAME",
        ),
        ([{**ROW[0], "text": " "}], "data.jsonl.gz:1: got an empty 'text'; expected a question; try repairing the file"),
        (
            [{**ROW[0], "text": ["a"]}],
            "data.jsonl.gz:1: got list at 'text'; expected a text or a number; try a path into it: text.0",
        ),
        ([ROW[0], {**ROW[0], "text": "other"}], "data.jsonl.gz:2: got question_id '0', which "),
    ],
)
def test_a_row_that_is_no_question_is_refused_by_its_place(found: list[Any], words: str, tmp_path: Path) -> None:
    folder = _write(tmp_path, "vicuna80_zh", {"data.jsonl.gz": found})
    with pytest.raises(DataError) as caught:
        suites.items(_config(tmp_path, "vicuna80_zh"))
    assert str(caught.value).startswith(f"{folder}/{words}")


def test_a_line_that_cannot_be_read_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    folder = _write(tmp_path, "vicuna80_zh", {"data.jsonl": ROW})
    with (folder / "data.jsonl").open("a") as stream:
        stream.write('{"text": \n')
    with pytest.raises(
        DataError, match=r"data\.jsonl:10: got invalid JSON .+; expected a row of the suite; try repairing the file"
    ):
        suites.items(_config(tmp_path, "vicuna80_zh"))


def test_two_questions_under_one_id_are_no_references_of_one(tmp_path: Path) -> None:
    folder = _write(tmp_path, "webmedqa", {"data.jsonl": [*_webmedqa(), {**_webmedqa()[0], "question": "另一个问题"}]})
    with pytest.raises(DataError) as caught:
        suites.items(_config(tmp_path, "webmedqa", "evaluation.same_question=together"))
    assert str(caught.value).startswith(f"{folder}/data.jsonl:13: got another question or category under the id '0' of ")


def test_other_counts_than_the_card_says_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _items(tmp_path, "vicuna80_zh")
    assert "eval_vicuna80_zh has 9 rows where its card says 80" in caplog.text


def test_a_suite_whose_rows_are_not_here_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        cells.cell_of(_config(tmp_path, "vicuna80_zh", "experiment=tiny"))
    assert str(caught.value).startswith("evaluation.sources.eval_vicuna80_zh: got no data files in ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["evaluation=belle_1k", "evaluation.reference=''"],
            "evaluation.reference: got ''; expected the field that metrics compare with",
        ),
        (
            ["evaluation=vicuna80_zh", "evaluation.judged_by=''"],
            "evaluation.metrics: got []; expected at least one metric, or evaluation.j",
        ),
        (
            ["evaluation=vicuna80_zh", "evaluation.judged_by=vicunia"],
            "evaluation.judged_by: got 'vicunia'; expected one of belle, vicuna",
        ),
        (
            ["evaluation=impact", "judge=belle", "judge.url=http://127.0.0.1/v1", "judge.model=m"],
            "judge.protocol: got 'belle'; expected impact, which gives relevance and coherence; try judge.protocol=impact",
        ),
        (["evaluation=icliniq", "evaluation.sample=0"], "evaluation.sample: got 0; expected a number above zero, or null for all"),
        (["evaluation=icliniq", "+evaluation.score_names.bleu_9=b"], "evaluation.score_names: got 'bleu_9'; expected some of chrf"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert expected in str(caught.value)


def test_a_label_changes_no_identity_and_a_sample_does(tmp_path: Path) -> None:
    _write(tmp_path, "icliniq")

    def known(*words: str) -> str:
        return cells.cell_of(_config(tmp_path, "icliniq", "data=toy_zh", "model=tiny_fresh", "adapter=none", *words)).evaluation

    assert known("evaluation.standin=other") == known()
    assert (
        len({known(), known("evaluation.sample=9"), known("evaluation.answer_ends=x"), known("evaluation.question=question")}) == 4
    )


def test_the_cookbooks_beams_are_its_codes_settings() -> None:
    from babeltune.evaluation.generating import decoding_settings

    settings = decoding_settings(compose(["decoding=cookbook_beams", "scale=paper"]).decoding)
    expected = {"num_beams": 4, "do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 40}
    expected |= {"no_repeat_ngram_size": 6, "repetition_penalty": 1.8, "max_new_tokens": 512}
    assert {key: settings[key] for key in expected} == expected
    assert decoding_settings(compose(["decoding=greedy"]).decoding)["no_repeat_ngram_size"] == 0


@pytest.mark.slow
def test_every_suite_runs_from_its_rows_to_its_result(tmp_path: Path) -> None:
    from babeltune import runner

    words = ("data=toy_zh", "model=tiny_fresh", "adapter=none", "scale=smoke", "logger=none", "grid.name=null")
    for suite in DATA:
        _write(tmp_path, suite)
        done = runner.run(_config(tmp_path, suite, *words, "evaluation.max_items=5"))
        items = suites.items(_config(tmp_path, suite, *words, "evaluation.max_items=5"))
        main = next(iter(done.scores.values()))
        assert len(items) == 5
        assert (main.n, main.unscored) == (
            (0, 5) if suite[:6] in ("vicuna", "impact") else (sum(bool(i.reference) for i in items), 5 - main.n)
        )
        measured = [one for one in items if one.reference]
        assert (f"{suite}/loss" in done.scores) == bool(measured)
        assert any("without the judge" in label for label in done.labels) == (suite != "webmedqa")
