"""Cells that stand on cells: books, then instructions, then other instructions; whatever the first ones trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

from babeltune import examining, runner
from babeltune.cells import Cell, cell_of, parent_config, with_parents
from babeltune.config import compose
from babeltune.errors import ConfigError
from babeltune.options import RunConfig, Texts
from tests.modeling import tiny

SMALL = (
    "model.fresh.hidden_size=32",
    "model.fresh.intermediate_size=64",
    "model.fresh.num_hidden_layers=2",
    "model.vocabulary=400",
)
SHORT = ("optimizer.max_steps=2", "optimizer.global_batch=8", "optimizer.learning_rate=0.01", "evaluation=none", "scale=paper")
BOOKS = (
    "data=toy_documents",
    "data.sources.toy_documents.toy.rows=60",
    "data.max_tokens=64",
    "model=tiny_fresh",
    *SMALL,
    "stage=pretrain",
    "template=plain",
    *SHORT,
)
TARGETS = "model.lora_targets=[q_proj,v_proj]"


def books(adapter: str, *more: str) -> str:
    """The words that name a cell which reads books."""
    return " ".join([*BOOKS, f"adapter={adapter}", *more])


def instructed(outputs: Path, base: str, *more: str) -> RunConfig:
    """A cell of Chinese instructions on another cell."""
    return compose(
        [
            "data=toy_zh",
            "data.sources.toy_zh.toy.rows=40",
            "data.max_tokens=128",
            "model=tiny",
            f"model.from_cell='{base}'",
            TARGETS,
            *SHORT,
            "logger=none",
            f"paths.outputs={outputs}",
            *more,
        ]
    )


def run(config: RunConfig) -> Cell:
    """A cell and those it stands on, as a grid runs them. Returns the last."""
    for cell in (chain := with_parents([config])):
        runner.run(cell)
    return chain[-1]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    random = torch.get_rng_state()
    yield tmp_path_factory.mktemp("chains")
    torch.set_rng_state(random)


@pytest.mark.parametrize("adapter", ["lora", "none"])
@pytest.mark.parametrize("read", ["none", "lora", "embeddings", "adalora"])
def test_instructions_are_learned_on_what_has_read_books_in_any_way(read: str, adapter: str, outputs: Path) -> None:
    last = run(instructed(outputs, books(read), f"adapter={adapter}"))
    assert last.parent is not None
    base = AutoModelForCausalLM.from_pretrained(last.parent / "model")
    own = examining.trained_model(last, len(base.get_input_embeddings().weight))
    assert float((tiny.logits(own) - tiny.logits(base)).abs().max()) > 1e-3, "it has learned"
    if adapter == "lora":
        assert json.loads((last.folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
            (last.parent / "model").resolve()
        )
        plain = AutoPeftModelForCausalLM.from_pretrained(last.folder / "adapter")
        assert torch.equal(tiny.logits(plain), tiny.logits(own))
    assert (last.parent / "merged.json").exists() == (read != "none")


def test_a_chain_of_three_stands_on_each_link(outputs: Path) -> None:
    general = run(instructed(outputs, books("lora"), "adapter=lora"))
    medical = run(instructed(outputs, str(general.folder), "adapter=lora", "data.sources.toy_zh.toy.seed=1"))
    assert medical.parent == general.folder
    parts = [tiny.logits(AutoModelForCausalLM.from_pretrained(folder / "model")) for folder in (general.parent, general.folder)]  # type: ignore[operator]
    last = tiny.logits(examining.trained_model(medical, 400))
    assert not torch.allclose(parts[0], parts[1])
    assert not torch.allclose(parts[1], last)


def test_a_parent_named_by_its_folder_is_the_same_as_one_named_by_words(outputs: Path) -> None:
    named = run(instructed(outputs, books("lora")))
    assert named.parent is not None
    by_folder = cell_of(instructed(outputs, str(named.parent)))
    assert (by_folder.identity, by_folder.folder) == (named.identity, named.folder)


@pytest.mark.parametrize("change", ["seed=1", "optimizer.learning_rate=0.02", "adapter.rank=4", "stage.texts=joined"])
def test_another_parent_makes_another_cell(change: str, outputs: Path) -> None:
    first = cell_of(instructed(outputs, books("lora")))
    other = cell_of(instructed(outputs, books("lora", change)))
    assert other.parent != first.parent
    assert other.identity != first.identity


@pytest.mark.parametrize("kind", ["prompt", "p_tuning", "prefix", "sadapter_p", "sadapter_h", "padapter"])
def test_a_parent_whose_adapter_is_no_change_of_weights_is_refused_before_anything_runs(kind: str, tmp_path: Path) -> None:
    config = instructed(tmp_path, books(kind, *(["data.layout=padded"] if kind in ("prompt", "p_tuning", "prefix") else [])))
    said = (
        f"model.from_cell: got a cell with adapter={kind}; expected a cell whose adapter becomes part of its base "
        "(none, lora, rslora, dora, adalora, ia3, embeddings); try adapter=lora there"
    )
    with pytest.raises(ConfigError) as caught:
        cell_of(config)
    assert str(caught.value) == said
    (tmp_path / "identity.json").write_text(json.dumps({"identity": "0" * 64, "parts": {"adapter": {"kind": kind}}}))
    with pytest.raises(ConfigError) as caught:
        cell_of(instructed(tmp_path, str(tmp_path)))
    assert str(caught.value) == said


def test_an_adapter_on_a_fresh_base_loads_with_plain_peft(outputs: Path) -> None:
    cell = cell_of(dataclasses.replace(compose([*BOOKS, "adapter=lora", "logger=none", f"paths.outputs={outputs}"])))
    runner.run(cell)
    plain = AutoPeftModelForCausalLM.from_pretrained(cell.folder / "adapter")
    base = AutoModelForCausalLM.from_pretrained(cell.folder / "base")
    assert torch.equal(tiny.logits(plain), tiny.logits(examining.trained_model(cell, 400)))
    assert not torch.equal(tiny.logits(plain), tiny.logits(base))


def test_a_parent_is_trained_where_its_child_is() -> None:
    alone, shared = (parent_config(compose(["model=tiny", *words])) for words in ([], ["trainer=ddp_cpu"]))
    assert alone is not None
    assert shared is not None
    assert (alone.trainer.name, shared.trainer.name, shared.trainer.devices) == ("cpu", "ddp_cpu", 2)
    assert cell_of(alone).identity == cell_of(shared).identity


def test_the_words_that_name_a_parent_may_say_where_it_is_trained() -> None:
    parent = parent_config(compose(["model.from_cell='experiment=tiny trainer=cpu'", "trainer=ddp_cpu"]))
    assert parent is not None
    assert parent.trainer.name == "cpu"


def test_a_parent_has_room_for_its_own_longer_texts() -> None:
    words = "model.from_cell='experiment=tiny data.max_tokens=1024'"
    parent = parent_config(compose([words, "trainer.micro_tokens=512", "trainer=ddp_cpu"]))
    assert parent is not None
    assert (parent.trainer.name, parent.trainer.micro_tokens) == ("ddp_cpu", 1024)


def test_a_parent_that_cannot_be_trained_where_its_child_is_is_trained_as_it_says() -> None:
    words = "model.from_cell='experiment=tiny optimizer.global_batch=2'"
    parent = parent_config(compose([words, "trainer=ddp_cpu", "trainer.devices=4"]))
    assert parent is not None
    assert (parent.trainer.name, parent.trainer.devices) == ("cpu", 1)


@pytest.mark.parametrize("texts", list(Texts))
@pytest.mark.parametrize("adapter", ["none", "lora", "embeddings"])
def test_books_are_read_in_every_way(texts: Texts, adapter: str, outputs: Path) -> None:
    cell = cell_of(compose([*BOOKS, f"adapter={adapter}", f"stage.texts={texts.value}", "logger=none", f"paths.outputs={outputs}"]))
    result = runner.run(cell)
    assert result.training["steps"] == 2
    assert (cell.folder / ("model" if adapter == "none" else "adapter")).is_dir()
    labels = result.ledger["rows"][0]
    assert labels["target_tokens"] < labels["tokens"], "a first token is not learned"


def test_an_epoch_of_joined_texts_has_fewer_and_fuller_examples(outputs: Path) -> None:
    words = [*BOOKS, "adapter=lora", "optimizer.max_steps=null", "optimizer.epochs=1", "logger=none", f"paths.outputs={outputs}"]
    apart, joined = (runner.run(cell_of(compose([*words, f"stage.texts={texts.value}"]))) for texts in Texts)
    assert joined.training["steps"] < apart.training["steps"]
    assert apart.training["tokens"] * 0.98 < joined.training["tokens"] < apart.training["tokens"] * 1.02
