"""The papers' recipes run: here one cell of each kind, all of them by `make check-recipes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from babeltune.config import build_source, dump
from babeltune.data import preparing
from babeltune.options import SourceConfig
from babeltune.records import Dropped
from tests import recipes_data
from tests.commands import cells, train
from tests.recipes import KINDS, smoke, wrong_with


@pytest.mark.slow
def test_a_cell_of_each_kind_runs_from_rows_to_a_result(tmp_path: Path) -> None:
    recipes_data.write(tmp_path / "data")
    tuned = [cell for (_, _, stage), cell in KINDS.items() if stage == "tune"]  # one of them stands on the books
    listed = ",".join("{" + ",".join(f"{key}:{value}" for key, value in cell.items()) + "}" for cell in tuned)
    train("-m", f"grid.cells=[{listed}]", "evaluation=heldout", *smoke(tmp_path))
    train("experiment=belle_pretrain", *smoke(tmp_path))
    done = cells(tmp_path / "outputs")
    assert sum(json.loads((folder / "result.json").read_text())["scores"] != {} for folder in done.values()) == len(tuned)
    assert {folder.name: list(wrong_with(folder)) for folder in done.values()} == {name: [] for name in done}
    last = next(folder for name, folder in done.items() if name.startswith("medchat_mix"))
    assert '"tiny in place of baichuan_7b"' in (last / "result.json").read_text(), "what a base is made of is passed on"


def test_rows_are_written_for_every_source_as_its_card_describes_them(tmp_path: Path) -> None:
    recipes_data.write(tmp_path)
    found = {}
    for card in recipes_data.cards():
        plain = dump(SourceConfig(name=card["name"], language=card["language"]))
        source = build_source(plain | {key: value for key, value in card.items() if key in plain})
        rows = list(preparing.conversations(source, tmp_path, 0.0))
        assert [row for row in rows if isinstance(row, Dropped)] == []
        assert len(rows) == recipes_data.ROWS
        found[card["name"]] = (source.format.value, source.encoding)
    assert {name for name, _ in found.values()} >= {"alpaca", "prompt_response", "sharegpt", "text", "niv2"}
    assert {encoding for _, encoding in found.values()} == {"utf-8", "gb18030"}
