"""What a cell is known by, and what it is not."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from babeltune import cells
from babeltune.cells import Cell, cell_of, with_parents
from babeltune.config import compose
from babeltune.results import write_text
from tests.finished import composed

ROW = {"instruction": "你好", "output": "Xin chào"}


def cell(*overrides: str) -> Cell:
    return cell_of(composed(*overrides))


@functools.cache
def default() -> Cell:
    return cell()


TRAINING = [
    "optimizer.learning_rate=0.001",
    "optimizer.epochs=1",
    "optimizer.global_batch=16",
    "optimizer.schedule=constant",
    "optimizer.clip=null",
    "adapter.rank=4",
    "adapter.targets=[q_proj]",
    "adapter=none",
    "seed=1",
    "data=toy_en",
    "+data.take={toy_zh:{count:5}}",
    "+data.take={toy_zh:{tokens:1.0}}",
    "data.temperature=2",
    "+data.quota.zh=5",
    "data.max_rows=5",
    "data.max_tokens=64",
    "data.loss_on=everything",
    "data.order=grouped",
    "data.sources.toy_zh.toy.rows=1300",
    "data.sources.toy_zh.toy.wrong_fraction=0.1",
    "template=belle",
    "precision=bf16",
    "model.from_cell='experiment=tiny scale=paper optimizer.learning_rate=0.001'",
    "model.from_cell='experiment=tiny scale=paper seed=1'",
    "scale.base=smoke",
]


@pytest.mark.parametrize("override", TRAINING)
def test_what_changes_the_numbers_changes_the_identity(override: str) -> None:
    assert cell(override).identity != default().identity


SAME = [
    "data.sources.toy_zh.hub_files=[other.json]",
    "paths.outputs=elsewhere",
    "logger=none",
    "logger.project=other",
    "grid.name=other",
    "grid.title=other",
    "grid.workers=1",
    "grid.cells=[{data:toy_en}]",
    "data.title=other",
    "model.title=other",
    "data.sources.toy_zh.title=other",
    "data.sources.toy_zh.license=other",
    "data.sources.toy_zh.note=other",
    "trainer=ddp_cpu",
    "trainer=gpu",
    "trainer.micro_tokens=512",
    "trainer.attention=mask",
    "trainer.checkpointing=true",
    "trainer.compile=true",
    "trainer.threads=2",
    "trainer.checkpoint_steps=3",
    "data.workers=2",
    "data.max_passes=9",
    "data.temperature_over=language",
    "+data.take={toy_zh:{}}",
    "evaluation.batch=3",
]


@pytest.mark.parametrize("override", SAME)
def test_what_changes_no_number_changes_no_identity(override: str) -> None:
    changed, first = cell(override), default()
    assert (changed.identity, changed.evaluation, changed.folder.name) == (first.identity, first.evaluation, first.folder.name)


@pytest.mark.parametrize(
    "override",
    [
        "evaluation=toy_zh",
        "evaluation.prompt='{question}!'",
        "evaluation.max_items=3",
        "evaluation.metrics=[chrf]",
        "decoding.max_new_tokens=5",
        "decoding=belle",
    ],
)
def test_another_way_of_judging_trains_nothing_again(override: str) -> None:
    changed, first = cell(override), default()
    assert (changed.identity, changed.folder) == (first.identity, first.folder)
    assert changed.evaluation != first.evaluation


def test_the_seed_counts_in_judging_only_when_replies_are_drawn() -> None:
    assert cell("data=none", "seed=0").evaluation == cell("data=none", "seed=1").evaluation
    drawn = ("data=none", "decoding=belle")
    assert cell(*drawn, "seed=0").evaluation != cell(*drawn, "seed=1").evaluation


def test_no_training_has_no_seed_and_no_adapter() -> None:
    first = cell("data=none", "seed=0")
    assert cell("data=none", "seed=1", "adapter=none") == Cell(
        config=compose(["data=none", "seed=1", "adapter=none"]),
        identity=first.identity,
        evaluation=first.evaluation,
        folder=first.folder,
        parts=first.parts,
        parent=first.parent,
    )
    assert first.folder.name == f"none-tiny-{first.identity[:8]}"


def test_a_folder_is_readable_in_front_and_exact_at_the_end() -> None:
    own = cell("data=toy_vi", "seed=3")
    assert own.folder == Path("outputs") / f"toy_vi-tiny-lora-s3-{own.identity[:8]}"


def test_alone_or_in_a_grid_it_is_the_same_cell() -> None:
    alone = with_parents([compose(["data=toy_vi", "seed=1"])])
    grid = with_parents([compose([f"data={mix}", f"seed={seed}"]) for mix in ("toy_zh", "toy_vi") for seed in (0, 1)])
    assert alone[-1] in grid
    assert len(grid) == 5, "four cells and the one base they share"
    assert grid[0] == alone[0], "the base comes first"


def test_the_parents_identity_is_in_the_childs() -> None:
    base, child = with_parents([compose()])
    assert child.parent == base.folder
    assert child.parts["base"] == base.identity
    assert cell("model.from_cell='experiment=tiny scale=paper data.sources.toy_documents.toy.rows=9'").identity != child.identity


def test_another_tokenizer_over_the_same_parent_is_another_cell(tmp_path: Path) -> None:
    write_text(tmp_path / "tokenizer.json", "{}")
    assert cell(f"model.tokenizer={tmp_path}").identity != default().identity


def folder_of_rows(root: Path, *rows: dict[str, str]) -> list[str]:
    write_text(root / "alpaca4_zh" / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cells._digest.cache_clear()
    return ["data=zh_alpaca4", "evaluation=none", f"paths.data={root}", f"paths.outputs={root / 'out'}"]


def test_the_bytes_of_the_data_are_in_the_identity_and_their_place_is_not(tmp_path: Path) -> None:
    first = cell(*folder_of_rows(tmp_path / "a", ROW)).identity
    assert cell(*folder_of_rows(tmp_path / "b", ROW)).identity == first
    assert cell(*folder_of_rows(tmp_path / "b", ROW, ROW)).identity != first


def test_a_local_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / name / "config.json", '{"max_position_embeddings": 512}')
        write_text(tmp_path / name / "model.safetensors", "weights")
    own = ["model.from_cell=null", f"paths.outputs={tmp_path / 'out'}"]
    first = cell(*own, f"model.path={tmp_path / 'a'}").identity
    assert cell(*own, f"model.path={tmp_path / 'b'}").identity == first
    write_text(tmp_path / "b" / "model.safetensors", "other weights")
    assert cell(*own, f"model.path={tmp_path / 'b'}").identity != first


def test_a_hub_model_is_known_by_its_name_and_revision() -> None:
    own = ["model=llama_7b", "scale=paper"]
    assert cell(*own).identity == cell(*own, "model.title=x").identity
    assert cell(*own).identity != cell(*own, "model.revision=abc").identity
