"""A cell with an adapter as the base of other cells: base and adapter in one folder that says what the cell says."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from babeltune.cells import MERGEABLE
from babeltune.config import dump
from babeltune.errors import ModelError
from babeltune.modeling import adapters, loading
from babeltune.modeling.merging import make_whole, measure
from babeltune.options import Precision, RunConfig
from tests.modeling import kinds, tiny

MERGES = [kind for kind in MERGEABLE if kind != "none"]


def trained_cell(folder: Path, kind: str, family: str = "llama", precision: Precision = Precision.fp32) -> tuple[Any, RunConfig]:
    """A cell's folder as training leaves it, and the model that was trained."""
    settings = kinds.config(kind, family, tiny.save(family, folder.parent / f"base-{family}"), precision)
    model = adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings)
    kinds.train(model, 3)
    adapters.save(model, tiny.tokenizer(), folder, settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(dump(settings)))
    return model, settings


@pytest.mark.parametrize(("kind", "family"), [(kind, family) for kind in MERGES for family in kinds.FAMILIES])
def test_a_cells_model_is_one_of_transformers_and_says_what_the_cell_says(kind: str, family: str, tmp_path: Path) -> None:
    model, settings = trained_cell(tmp_path / "cell", kind, family)
    make_whole(tmp_path / "cell", settings.trainer)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "cell" / "model")
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in tiny.model(family).named_parameters()}
    trained = tiny.logits(model)
    assert float((tiny.logits(plain) - trained).abs().max() / trained.abs().max()) < 1e-5
    assert not torch.allclose(tiny.logits(plain), tiny.logits(tiny.model(family)), rtol=1e-3)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "cell" / "model")) == len(tiny.tokenizer())
    drift = json.loads((tmp_path / "cell" / "merged.json").read_text())
    assert drift["tokens"] > 100
    assert drift["agreement"] == 1
    assert abs(drift["divergence"]) < 1e-8


def test_the_base_of_another_cell_is_loaded_from_there(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    make_whole(tmp_path / "cell", settings.trainer)
    child = dataclasses.replace(settings, model=dataclasses.replace(settings.model, path=None, from_cell=str(tmp_path / "cell")))
    base = loading.load_base(child, tmp_path / "cell", len(tiny.tokenizer()))
    assert base.name_or_path == str(tmp_path / "cell" / "model"), "what an adapter on it will name"
    assert len(loading.load_tokenizer(child.model, tmp_path / "cell")) == len(tiny.tokenizer())
    assert {part.dtype for part in base.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.nf4])
def test_a_rounded_base_is_merged_with_the_numbers_that_its_adapter_was_trained_on(precision: Precision, tmp_path: Path) -> None:
    model, settings = trained_cell(tmp_path / "cell", "lora", precision=precision)
    make_whole(tmp_path / "cell", settings.trainer)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "cell" / "model")
    assert {part.dtype for part in plain.parameters()} == {torch.float32}
    trained = tiny.logits(model.float() if precision is Precision.bf16 else model)  # so that only the weights are rounded
    unseen = AutoModelForCausalLM.from_pretrained(tmp_path / "base-llama", dtype=torch.float32)
    unrounded = adapters.merge(adapters.load(unseen, tmp_path / "cell", settings))
    assert _off(plain, trained) < 1e-5
    assert _off(unrounded, trained) > 1e-3, "the adapter was trained on other numbers than those of the folder"
    assert json.loads((tmp_path / "cell" / "merged.json").read_text())["agreement"] == 1


def _off(model: Any, expected: torch.Tensor) -> float:
    return float((tiny.logits(model) - expected).abs().max() / expected.abs().max())


def test_an_8_bit_base_rounds_what_passes_through_it_and_is_refused_when_that_decides_its_words(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora", precision=Precision.int8)
    said = _refusal(tmp_path / "cell", settings)
    assert said.startswith(f"{tmp_path / 'cell'}: got a merged model that agrees with base and adapter apart on 9")


def test_a_cells_tokenizer_is_there_before_it_is_merged(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    child = dataclasses.replace(settings.model, path=None, from_cell=str(tmp_path / "cell"))
    assert loading.load_tokenizer(child, tmp_path / "cell").get_vocab() == tiny.tokenizer().get_vocab()
    assert not (tmp_path / "cell" / "model").exists()


def test_it_is_merged_once(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    make_whole(tmp_path / "cell", settings.trainer)
    written = (tmp_path / "cell" / "model" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "cell" / "adapter")
    make_whole(tmp_path / "cell", settings.trainer)
    assert (tmp_path / "cell" / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_cells_that_ask_at_the_same_time_find_one_whole_model(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    processes = [
        multiprocessing.get_context("fork").Process(target=make_whole, args=(tmp_path / "cell", settings.trainer)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "cell" / "model")
    assert not list((tmp_path / "cell").glob(".model*"))


def _refusal(cell: Path, settings: RunConfig) -> str:
    with pytest.raises(ModelError) as caught:
        make_whole(cell, settings.trainer)
    assert not (cell / "model").exists()
    return str(caught.value)


def test_a_cell_that_was_not_trained_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, kinds.config("lora", "llama")) == (
        f"model.from_cell: got {tmp_path} without a model or an adapter; expected a cell that has been trained; "
        "try running it first"
    )


def test_a_cell_whose_base_is_gone_is_refused(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    shutil.rmtree(tmp_path / "base-llama")
    assert _refusal(tmp_path / "cell", settings) == (
        f"model.from_cell: got {tmp_path / 'cell'}, whose adapter stands on {tmp_path / 'base-llama'}, which is gone; "
        "expected a cell whose base is there; try running it again"
    )


def test_a_cell_of_another_version_is_refused(tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    (tmp_path / "cell" / "config.yaml").write_text("data: {name: x}")
    said = _refusal(tmp_path / "cell", settings)
    assert said.startswith(f"{tmp_path / 'cell' / 'config.yaml'}: got a file that cannot be read (")
    assert said.endswith("; expected the config of a cell of this version; try running that cell again")


@pytest.mark.parametrize("kind", ["prompt", "sadapter_p"])
def test_an_adapter_that_is_no_change_of_weights_is_not_merged(kind: str, tmp_path: Path) -> None:
    _, settings = trained_cell(tmp_path / "cell", kind)
    assert _refusal(tmp_path / "cell", settings).startswith("merge: got ")


def test_a_merged_model_that_says_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, settings = trained_cell(tmp_path / "cell", "lora")
    monkeypatch.setattr(adapters, "merge", lambda model: tiny.model("llama", seed=1))
    said = _refusal(tmp_path / "cell", settings)
    assert said.startswith(f"{tmp_path / 'cell'}: got a merged model that agrees with base and adapter apart on ")
    assert said.endswith(" of tokens; expected at least 99%; try precision=fp32, bf16 or nf4 in that cell")


def test_the_drift_is_a_mean_over_tokens() -> None:
    one = [torch.tensor([[2.0, 0.0], [0.0, 1.0]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    same = measure(one, [part + 3 for part in one])
    assert (same.tokens, same.agreement) == (3, 1)
    other = [torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    assert measure(one[1:], other[1:]).divergence == pytest.approx(0)
    half = measure([torch.tensor([[0.9, 0.1]]).log()], [torch.tensor([[0.1, 0.9]]).log()])
    assert half.divergence == pytest.approx(0.8 * torch.log(torch.tensor(9.0)).item(), rel=1e-6)
    assert half.agreement == 0
