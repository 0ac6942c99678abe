"""What differs between two finished cells, what that changes, and what became of their scores."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from babeltune.errors import ConfigError
from babeltune.explaining import explain, find
from babeltune.identity import digest
from babeltune.records import Item, Message, Reply
from babeltune.results import evaluation_folder, read_json, read_result, write_json, write_replies
from babeltune.tables import Table, render
from tests.finished import finish, score

NAME = "toy_zh/exact_match"
SUITE = ["evaluation=toy_zh", "model=tiny_fresh"]
ITEMS = [
    Item(f"{kind}-{n}", (Message("user", f"问题 {kind} {n}？" + "很长" * 40),), "答", kind, "zh" if n % 2 else "vi")
    for kind in ("add", "sort")
    for n in range(10)
]


def cell(outputs: Path, overrides: list[str], right: set[str]) -> Path:
    """A finished cell that has these items right, with items and replies on disk."""
    values = {item.id: 100.0 * (item.id in right) for item in ITEMS}
    folder = finish([*SUITE, *overrides], [score(NAME, values), score(f"{NAME}_zh", values), score("toy_zh/loss", values)], outputs)
    result = read_result(folder)
    assert result is not None
    judged = evaluation_folder(folder, result.evaluation)
    write_json(judged / "items.json", [asdict(item) for item in ITEMS])
    write_replies(judged / "replies.jsonl", [Reply(i.id, "对" if i.id in right else "错\n了", "stop", 1) for i in ITEMS])
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = cell(tmp_path, ["data=toy_zh", "adapter.rank=4"], {item.id for item in ITEMS})
    second = cell(
        tmp_path,
        ["data=toy_zh_small", "adapter.rank=8", "seed=1", "data.workers=1", "trainer.micro_tokens=8192", "decoding.beams=2"],
        {item.id for item in ITEMS if item.category == "sort"},
    )
    return first, second


def rows(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def test_each_difference_says_what_it_changes(two: tuple[Path, Path]) -> None:
    options = rows(explain(str(two[0]), str(two[1]), two[0].parent)[0])
    assert options["adapter.rank"] == ("4", "8", "training")
    assert options["seed"] == ("0", "1", "training")
    assert options["decoding.beams"] == ("1", "2", "judging")
    assert options["trainer.micro_tokens"] == ("1024", "8192", "last digits")
    assert options["data.name"] == ("toy_zh", "toy_zh_small", "nothing")
    assert options["data.workers"] == ("0", "1", "nothing")
    order = ["training", "judging", "last digits", "nothing"]
    assert [row[-1] for row in options.values()] == sorted((row[-1] for row in options.values()), key=order.index)


def test_no_difference_said_to_change_nothing_moves_an_identity(two: tuple[Path, Path]) -> None:
    """Every part in which the identities differ is among the rows that change training."""
    first, second = (read_json(folder / "identity.json")["parts"] for folder in two)
    parts = {part for part in {*first, *second} if digest(first.get(part)) != digest(second.get(part))}
    told = [what for what, row in rows(explain(*map(str, two), two[0].parent)[0]).items() if row[-1] == "training"]
    assert parts == {"adapter", "data", "seed"}
    assert parts == {what.split(".")[0] for what in told}


def test_scores_are_compared_in_pairs_overall_and_by_group(two: tuple[Path, Path]) -> None:
    _, scores, *others = explain(*map(str, two), two[0].parent)
    assert rows(scores)[NAME][:3] == ("100.0", "50.0", "−50.0")
    assert rows(scores)[NAME][4:] == ("worse", "20")
    assert f"{NAME}_zh" not in rows(scores)
    by_language, by_category, changed = others
    assert rows(by_category) == {
        "add": ("100.0", "0.0", "−100.0", "−100.0 … −100.0", "worse", "10"),
        "sort": ("100.0", "100.0", "0.0", "0.0 … 0.0", "not told apart", "10"),
    }
    assert set(rows(by_language)) == {"vi", "zh"}
    assert [row[0] for row in changed.rows] == ["add-0", "add-1", "add-2"]
    assert changed.rows[0][4:] == ("对", "错 了")
    assert len(changed.rows[0][3]) == 60
    assert changed.notes == ("0 items rose, 10 fell, 10 are as they were",)


def test_a_cell_beside_itself_differs_in_nothing(two: tuple[Path, Path]) -> None:
    options, scores = explain(str(two[0]), two[0].name, two[0].parent)[:2]
    assert options.rows == ()
    assert "their identities are the same" in options.notes[0]
    assert rows(scores)[NAME][2:5] == ("0.0", "0.0 … 0.0", "not told apart")
    assert render(options, "text").startswith("What differs: A = ")


def test_scores_measured_in_two_ways_are_not_compared(tmp_path: Path) -> None:
    values = {"a": 1.0, "b": 0.0}
    first = finish([*SUITE, "data=toy_zh"], [score(NAME, values, "s1")], tmp_path)
    second = finish([*SUITE, "data=toy_en"], [score(NAME, values, "s2")], tmp_path)
    options, scores = explain(str(first), str(second), tmp_path)
    assert scores.rows == ()
    assert f"measured in two ways, and not compared: {NAME}" in scores.notes
    assert {"data.sources.toy_zh", "data.sources.toy_en"} <= set(rows(options))


def test_a_cell_is_found_by_folder_name_and_beginning_of_its_identity(two: tuple[Path, Path]) -> None:
    outputs = two[0].parent
    identity = read_json(two[0] / "identity.json")["identity"]
    assert find(str(two[0]), outputs) == find(two[0].name, outputs) == find(identity[:6], outputs) == two[0]


def refusal(name: str, outputs: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        find(name, outputs)
    return str(caught.value)


def test_names_of_no_cell_or_several_are_refused_in_one_sentence(two: tuple[Path, Path]) -> None:
    outputs = two[0].parent
    expected = f"expected a cell in {outputs}: its folder, or how its identity begins"
    assert refusal("toy_zh-tiny", outputs) == f"explain: got 'toy_zh-tiny'; {expected}; try {two[0].name}"
    assert refusal(two[1].name[:-2] + "xx", outputs).endswith(f"{expected}; try {two[1].name}, {two[0].name}")
    assert refusal("nothing", outputs / "empty").endswith("try python train.py sweeps=demo")
    for folder in two:
        tree = read_json(folder / "identity.json")
        write_json(folder / "identity.json", tree | {"identity": f"abcd{tree['identity']}"})
    names = ", ".join(sorted(folder.name for folder in two))
    assert refusal("abcd", outputs) == f"explain: got 'abcd'; expected the beginning of one cell's identity; try one of {names}"
    (two[0] / "result.json").unlink()
    assert refusal(two[0].name, outputs).startswith(f"explain: got {two[0].name}, which has not finished; expected a finished cell")


def test_the_command_prints_it_without_torch_and_refuses_with_exit_code_2(two: tuple[Path, Path], tmp_path: Path) -> None:
    def explained(one: str, other: str) -> subprocess.CompletedProcess[str]:
        words = ["babeltune", "explain", one, other, "--outputs", str(tmp_path), "--format", "md"]
        return subprocess.run([sys.executable, "-X", "importtime", "-m", *words], capture_output=True, text=True)

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = explained(two[0].name, two[1].name)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1
    assert "| adapter.rank | 4 | 8 | training |" in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    wrong = explained("nix", "nix")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1].startswith("error: explain: got 'nix'")


def test_options_of_a_config_that_change_no_number_are_all_told_as_such(tmp_path: Path) -> None:
    """What is left out of the identity on purpose, changed all at once: same cell, other words."""
    quiet = ["data.workers=2", "logger=none", "trainer.checkpoint_steps=7", "grid.title=x", "model.title=other"]
    first, second = (cell(tmp_path / name, ["data=toy_zh", *more], set()) for name, more in (("a", []), ("b", quiet)))
    assert first.name == second.name
    options = explain(str(first), str(second), tmp_path)[0]
    assert {row[3] for row in options.rows} == {"nothing"}
    changed = {"data.workers", "logger.kind", "trainer.checkpoint_steps", "grid.title", "model.title"}
    assert changed <= set(rows(options))
