"""A report is one page that needs nothing else, shows every row, and takes nothing that was said for anything but words."""

from __future__ import annotations

import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from babeltune import __main__, reporting, statistics
from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.errors import BabelTuneError, ConfigError
from babeltune.figures import Compared, Curves, Spreads
from babeltune.records import Reply
from babeltune.reporting import answers, charts, logged, provenance
from babeltune.reporting.gathering import gather
from babeltune.results import read_json, read_result, write_json, write_replies
from tests.finished import finish, note, score
from tests.reporting.invented import CATEGORIES, SCRIPT, grid, items

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would make of a page: refuses tags that do not close each other."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    grid(outputs)
    return outputs


@pytest.fixture(scope="module")
def name(home: Path) -> str:
    return next((home / "grids").glob("*.json")).stem


@pytest.fixture(scope="module")
def text(home: Path, name: str) -> str:
    return reporting.page([name], home)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_a_page_loads_nothing_and_says_so_to_the_browser(text: str, page: Page) -> None:
    assert set(re.findall(r"https?://[^\"<\s]+", text)) == {"https://wandb.ai/x/y"}
    assert {tag for tag, attributes in page.tags if "https://wandb.ai/x/y" in attributes.values()} == {"a"}
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [attributes for _, attributes in page.tags if "src" in attributes or any(key.startswith("on") for key in attributes)]
    assert "@import" not in text
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key.endswith("href")]
    assert all(value and value.startswith(("#", "https://wandb.ai/")) for value in links)
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_a_page_is_small_and_the_same_each_time(text: str, home: Path, name: str) -> None:
    assert len(text.encode()) < 2_000_000
    assert reporting.page([name], home) == text


def test_every_row_and_cell_is_there_whatever_its_state(page: Page) -> None:
    for words in ("toy_zh", "toy_zh_noisy", "toy_en", "3 of 4 cells are finished.", "not started"):
        assert words in page.words
    assert page.words.count("finished") == 3


def test_what_a_model_or_a_label_says_stays_words(text: str, page: Page) -> None:
    assert "<script>" not in text
    assert "<b>" not in text
    assert f"{SCRIPT} 回答 0" in page.words
    assert f"{SCRIPT} 回答 2" in page.words
    assert f"scale=quick {SCRIPT}" in page.words
    assert f"call me {SCRIPT}" in page.words


def test_every_table_scrolls_in_its_own_box(text: str) -> None:
    assert text.count("<table") == text.count('<div class="scroll">')
    assert not re.search(r'(?<!<div class="scroll">)(?<!<div class="scroll">\n)<table', text)


def test_ids_of_a_page_are_each_there_once(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures = {name for name in ids if name and name.startswith("figure-")}
    wanted = ("scores", "languages", "ablation", "losses", "categories", "lengths")
    assert figures == {f"figure-{name}" for name in wanted}


def test_the_answers_are_five_of_each_category_to_the_same_questions(home: Path, name: str) -> None:
    found = answers.sampled(gather([name], home))
    assert list(found) == list(CATEGORIES)
    for questions in found.values():
        assert len(questions) == 5
        for question in questions:
            assert [answer.label for answer in question.answers] == ["toy_zh", "toy_zh_noisy"]
            assert question.turns == (("user", f"问题 {question.id[2:]}: đúng không?\n<b>x</b>"),)
    assert found == answers.sampled(gather([name], home))


def test_a_question_that_a_row_has_no_answer_to_is_not_shown(tmp_path: Path) -> None:
    name = grid(tmp_path)
    cells = gather([name], tmp_path)
    shown = answers.sampled(cells)[CATEGORIES[0]][0].id
    path = cells.firsts[1].judged / "replies.jsonl"
    write_replies(path, [Reply(item.id, "x", "stop", 1) for item in items() if item.id != shown])
    assert shown not in [question.id for question in answers.sampled(cells)[CATEGORIES[0]]]


@pytest.mark.parametrize(("categories", "texts"), [(1, 3), (10, 9), (57, 13), (57, 40)])
def test_the_answers_of_a_large_suite_stay_within_a_budget(categories: int, texts: int) -> None:
    count, longest = answers._sizes([100] * categories, texts)
    assert 1 <= count <= answers.PER_CATEGORY
    assert categories * count * texts * longest <= answers.BUDGET


def test_the_figure_by_category_shows_the_means_and_intervals_of_its_items(home: Path, name: str) -> None:
    cells = gather([name], home)
    chart = charts.by_category(cells)
    assert isinstance(chart, Compared)
    assert chart.groups == CATEGORIES
    assert chart.rows == ("toy_zh", "toy_zh_noisy")
    place = 1
    own, other = (
        [[run["toy_zh/exact_match"].items[f"{place}-{number}"] for number in range(8)] for run in row.scores]
        for row in cells.judged
    )
    wanted = statistics.mean_interval(own, statistics.pooled_seed_variance([own, other]))
    assert wanted is not None
    assert chart.estimates[0][place] == (wanted.value, wanted.low, wanted.high)
    bars = charts.ablation(cells)
    assert isinstance(bars, Compared)
    assert bars.groups == (charts.ALL, *CATEGORIES)
    whole = bars.estimates[0][0]
    assert whole is not None
    assert whole.value == pytest.approx(sum(map(sum, own)) / 16, abs=20)
    table = reporting.comparison.table_of(cells.tree, cells.rows)
    assert f"{whole.value:.1f}" == table.rows[0][1]


def test_no_interval_of_a_metric_from_0_to_100_leaves_it(home: Path, name: str) -> None:
    chart = charts.by_category(gather([name], home))
    assert isinstance(chart, Compared)
    found = [estimate for row in chart.estimates for estimate in row if estimate is not None]
    assert min(estimate.low for estimate in found) == 0.0
    assert max(estimate.high for estimate in found) == 100.0


def test_notes_stand_below_their_table_and_not_in_it(text: str) -> None:
    assert "<tfoot>" not in text
    assert re.search(r'</table>\n<p class="note">toy_zh/exact_match: ', text)


def test_the_curves_are_those_of_the_file_up_to_a_line_cut_off(home: Path, name: str) -> None:
    cells = gather([name], home)
    found = logged.losses(cells.cells[0])
    assert list(found) == ["loss", "toy_zh", "中文"]
    assert found["loss"][:2] == [(1, 3.0), (2, 1.5)]
    assert len(found["loss"]) == 400
    chart = charts.losses(cells)
    assert isinstance(chart, Curves)
    assert [line.label for line in chart.lines] == ["toy_zh", "toy_zh", "toy_zh_noisy"]
    thin = logged.thinned(found["loss"], 40)
    assert len(thin) == 40
    assert sum(loss for _, loss in thin) / 40 == pytest.approx(sum(loss for _, loss in found["loss"]) / 400)
    by_source = charts.by_source(cells.cells[0])
    assert isinstance(by_source, Curves)
    assert [line.label for line in by_source.lines] == ["toy_zh", "中文"]


def test_the_lengths_are_those_of_questions_with_their_inputs_and_of_references(home: Path, name: str) -> None:
    chart = charts.lengths(gather([name], home))
    assert isinstance(chart, Spreads)
    assert chart.values[0][0] == tuple(float(len(f"问题 {number}: đúng không?<b>x</b>")) for number in range(8))
    assert chart.values[1][0] == (3.0,) * 8


def test_the_commands_make_the_same_cells(home: Path, name: str) -> None:
    cells = gather([name], home)
    commands = provenance.commands(cells)
    assert [command.label for command in commands] == ["toy_zh", "toy_zh_noisy"]
    words = shlex.split(commands[0].line)
    assert words[:3] == ["python", "train.py", "-m"]
    assert words[-2:] == ["seed=0,1", f"paths.outputs={home}"]
    made = cell_of(compose([*words[3:-2], "seed=1", words[-1]]))
    assert made.folder == cells.of("toy_zh")[1].folder


def test_a_key_that_no_option_says_is_in_the_command(tmp_path: Path) -> None:
    overrides = ["data=toy_zh", "evaluation=toy_zh", "adapter=dora", "optimizer.clip=null", "data.max_rows=7"]
    finish(overrides, [score("toy_zh/exact_match", {"a": 1.0})], tmp_path)
    cells = gather([next(tmp_path.glob("toy_zh-*")).name], tmp_path)
    (command,) = provenance.commands(cells)
    words = shlex.split(command.line)
    assert {"adapter=dora", "optimizer.clip=null", "data.max_rows=7"} <= set(words)
    assert cell_of(compose(words[2:])).folder == cells.cells[0].folder


def test_a_config_that_no_short_line_makes_is_pointed_at(tmp_path: Path) -> None:
    folder = finish(["data=toy_zh", "evaluation=toy_zh"], [score("toy_zh/exact_match", {"a": 1.0})], tmp_path)
    tree = read_json(folder / "result.json")
    tree["config"]["data"]["name"] = "mine_that_is_gone"
    write_json(folder / "result.json", tree)
    text = reporting.page([str(folder)], tmp_path)
    assert f"No short command line makes these cells. What was asked is in {folder}/config.yaml." in text


def test_folders_are_compared_as_a_grid_is(home: Path, name: str) -> None:
    cells = gather([name], home)
    folders = [str(cell.folder) for cell in cells.firsts]
    together = gather(folders, Path("outputs"))
    assert together.labels == ["toy_zh", "toy_zh_noisy"]
    assert reporting.comparison.table_of(together.tree, together.rows).columns[1] == "exact_match"
    both = gather([name, cells.cells[1].folder.name], home)
    assert [cell.folder for cell in both.cells] == [cell.folder for cell in cells.cells]
    assert "toy_zh_noisy" in Page(reporting.page(folders, home)).words


def test_the_differences_leave_out_what_follows_from_a_sources_name(home: Path, name: str) -> None:
    table = provenance.differences(gather([name], home))
    assert table is not None
    assert table.rows == (("data.name", "toy_zh", "toy_zh_noisy"), ("data.sources", "toy_zh", "toy_zh_noisy"))


def test_pretraining_is_known_from_the_paper_or_from_the_cells_below(tmp_path: Path) -> None:
    values = {"a": 100.0, "b": 0.0, "c": 100.0}
    for model in ("llama_voc_100b", "llama_voc_0b", "llama_7b"):
        finish(["data=toy_zh", "evaluation=toy_zh", f"model={model}"], [score("toy_zh/exact_match", values)], tmp_path)
    base = finish(
        ["data=toy_documents", "stage=pretrain", "template=plain", "evaluation=none"], [], tmp_path, training={"tokens": 2_500_000}
    )
    own = finish(["data=toy_zh", "evaluation=toy_zh"], [score("toy_zh/exact_match", values)], tmp_path)
    result = read_result(base)
    assert result is not None
    write_json(own / "identity.json", {"identity": "1", "parts": {"base": result.identity}})
    cells = gather([path.parent.name for path in sorted(tmp_path.glob("toy_zh-*/result.json"))], tmp_path)
    chart = charts.vocabulary(cells)
    assert isinstance(chart, Curves)
    assert chart.ticks == ("0B", "2.5M", "100B")
    assert chart.lines[0].x == (0.0, 1.0, 2.0)


def test_cells_judged_in_different_ways_are_refused(tmp_path: Path) -> None:
    finish(["data=toy_zh", "evaluation=toy_zh"], [score("toy_zh/exact_match", {"a": 1.0})], tmp_path)
    finish(["data=toy_en", "evaluation=toy_zh"], [score("toy_zh/exact_match", {"a": 1.0}, "s2")], tmp_path)
    with pytest.raises(BabelTuneError, match="table: got cells measured in 2 different ways"):
        reporting.page([path.parent.name for path in tmp_path.glob("*/result.json")], tmp_path)


def test_a_grid_of_which_nothing_has_run_has_a_page(tmp_path: Path) -> None:
    name = note([["data=toy_zh"], ["data=toy_en"]], tmp_path).stem
    words = Page(reporting.page([name], tmp_path)).words
    assert "0 of 2 cells are finished." in words
    assert words.count("not started") == 2


def test_a_cell_that_only_prepared_has_its_ledger(tmp_path: Path) -> None:
    ledger = {"rows": [], "epochs": 1.0, "standins": [], "cleaning": []}
    row = {"source": "a", "language": "zh", "asked": "all", "found": 3, "usable": 3, "heldout": 0, "taken": 3, "tokens": 9}
    row |= {"target_tokens": 5, "token_share": 1.0, "cut_answers": 0, "dropped_turns": 0, "dropped": {}}
    folder = finish(["data=toy_zh", "stage=prepare"], [], tmp_path, ledger=ledger | {"rows": [row]})
    words = Page(reporting.page([str(folder)], tmp_path)).words
    assert "1 of 1 cells are finished." in words
    assert "to learn" in words


def test_a_link_is_only_one_to_an_address(tmp_path: Path) -> None:
    scores = [score("toy_zh/exact_match", {"a": 1.0})]
    folder = finish(["data=toy_zh", "evaluation=toy_zh"], scores, tmp_path, url="javascript:alert(1)")
    assert "javascript:" not in reporting.page([str(folder)], tmp_path)


def test_without_matplotlib_the_page_says_what_is_missing(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = reporting.page([name], home)
    assert "There are no figures here because matplotlib is not installed: <code>pip install '.[plots]'</code>." in text
    assert "<svg" not in text


def test_what_names_no_cells_is_refused_in_one_sentence(home: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reporting.page([name[:-1]], home)
    where = f"a grid in {home}/grids, or a finished cell's folder"
    assert str(caught.value) == f"report: got {name[:-1]!r}; expected {where}; try {name}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("score", "svg"),
            "figure: got 'score'; expected one of scores, languages, losses, ablation, vocabulary, categories, lengths; ",
        ),
        (("scores", "pdf"), "--output: got a file that ends in .pdf; expected one that ends in .svg or .png; try scores.svg"),
        (("vocabulary", "svg"), "expected judged cells of two bases whose pretraining is known; try another figure (scores, "),
    ],
)
def test_a_figure_that_cannot_be_is_refused_in_one_sentence(home: Path, name: str, words: tuple[str, str], sentence: str) -> None:
    with pytest.raises(BabelTuneError) as caught:
        reporting.figure(words[0], [name], home, words[1])
    assert sentence in str(caught.value)


def test_the_commands_write_their_files(
    home: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["report", name], ["figure", "lengths", name], ["figure", "scores", name]):
        output = tmp_path / ("a.html" if words[0] == "report" else f"{words[1]}.{'svg' if words[1] == 'lengths' else 'png'}")
        monkeypatch.setattr(sys, "argv", ["babeltune", *words, "--outputs", str(home), "--output", str(output)])
        assert __main__.main() == 0
        assert f"written: {output}" in capsys.readouterr().out
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "lengths.svg").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_one_damaged_list_of_questions_is_named(tmp_path: Path) -> None:
    name = grid(tmp_path)
    cells = gather([name], tmp_path)
    (cells.firsts[0].judged / "items.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    with pytest.raises(BabelTuneError, match=r"items.json: got dict; expected a list of items; try deleting"):
        reporting.page([name], tmp_path)


def test_a_ledger_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    ledger = {"rows": [{"source": "a", "dropped": {}}], "cleaning": [], "standins": []}
    folder = finish(["data=toy_zh", "evaluation=toy_zh"], [score("toy_zh/exact_match", {"a": 1.0})], tmp_path, ledger=ledger)
    words = Page(reporting.page([str(folder)], tmp_path)).words
    assert "Its ledger was written by another version of babeltune: it has no 'found'." in words
