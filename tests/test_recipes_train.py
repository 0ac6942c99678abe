"""The papers' recipes run: here one cell of each kind, all of them by `make check-recipes`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from babeltune import cells, grid
from babeltune.config import CONF, build_source, compose, dump
from babeltune.data import preparing
from babeltune.records import Dropped
from tests import recipes_data
from tests.recipes import smoke, wrong_with
from tests.sweeps import PAPERS, architecture, sweep_cells

KINDS = {
    ("llama", "none", "pretrain"): ["experiment=medchatzh_books"],
    ("llama", "none", "tune"): ["experiment=medchatzh"],
    ("llama", "lora", "tune"): ["experiment=flacuna"],
    ("gptj", "lora", "tune"): ["experiment=gptj_doctor"],
    ("codegen", "lora", "tune"): ["experiment=cookbook", "model=moss_base"],
    ("gpt_neox", "lora", "tune"): ["experiment=cookbook", "model=chatglm_6b"],
    ("bloom", "lora", "tune"): ["experiment=cookbook", "evaluation.prompt='{question}先思考，再决定'"],
    ("bloom", "adalora", "tune"): ["experiment=cookbook", "adapter=adalora"],
    ("bloom", "prompt", "tune"): ["experiment=cookbook", "adapter=prompt"],
    ("bloom", "p_tuning", "tune"): ["experiment=cookbook", "adapter=p_tuning"],
    ("bloom", "prefix", "tune"): ["experiment=cookbook", "adapter=prefix"],
    ("bloom", "sadapter_p", "tune"): ["experiment=cookbook", "adapter=sadapter_p"],
    ("bloom", "sadapter_h", "tune"): ["experiment=cookbook", "adapter=sadapter_h"],
    ("bloom", "padapter", "tune"): ["experiment=cookbook", "adapter=padapter"],
}
"""Architecture, adapter and stage of a cell, and one cell that has them."""


def kind(*overrides: str) -> tuple[str, str, str]:
    config = compose([*overrides, "scale=smoke"])
    return architecture(config), config.adapter.kind, config.stage.kind


def test_every_kind_of_the_papers_cells_is_here() -> None:
    found = {kind(*cell) for name in PAPERS for cell in sweep_cells(name) if compose([*cell]).data.sources}
    assert {*found, kind("experiment=medchatzh_books")} == set(KINDS)
    assert {known: kind(*cell) for known, cell in KINDS.items()} == {known: known for known in KINDS}


@pytest.mark.slow
def test_a_cell_of_each_kind_runs_from_rows_to_a_result(tmp_path: Path) -> None:
    recipes_data.write(tmp_path / "data")
    wanted = cells.with_parents(compose([*cell, *smoke(tmp_path)]) for cell in KINDS.values())
    standings = grid.run(wanted)
    assert {standing.cell.folder.name: standing.note for standing in standings if standing.state != "done"} == {}
    for cell in wanted:
        assert list(wrong_with(cell.folder, cell.evaluation)) == [], cell.folder.name
    labels = (wanted[2].folder / "result.json").read_text()
    assert "tiny in place of baichuan_7b" in labels, "what a base is made of is said of what is made of it"


def test_rows_are_written_for_every_source_as_its_card_describes_them(tmp_path: Path) -> None:
    recipes_data.write(tmp_path)
    formats, encodings = set(), set()
    for path in sorted((CONF / "source").glob("*.yaml")):
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "toy" in card:
            continue
        sources = compose([f"+data.sources.{card['name']}={{}}", f"+source@data.sources.{card['name']}={card['name']}"]).data.sources
        rows = list(preparing.conversations(build_source(dump(sources[card["name"]])), tmp_path, 0.0))
        assert not [row for row in rows if isinstance(row, Dropped)], card["name"]
        assert len(rows) == recipes_data.ROWS
        formats.add(sources[card["name"]].format.value)
        encodings.add(sources[card["name"]].encoding)
    assert formats >= {"alpaca", "prompt_response", "sharegpt", "text", "niv2"}
    assert encodings == {"utf-8", "gb18030"}
