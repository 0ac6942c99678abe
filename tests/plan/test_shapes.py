"""Parameters without weights: a plan counts what training then finds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from babeltune.modeling import adapters
from babeltune.options import ModelConfig, RunConfig
from babeltune.plan import measuring, shapes
from babeltune.suites import NoSuite
from tests.modeling import kinds, tiny


@pytest.mark.parametrize("family", ["llama", "bloom"])
@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_a_plan_counts_the_parameters_that_training_audits(kind: str, family: str) -> None:
    base = tiny.model(family)
    settings = kinds.config(kind, family)
    assert shapes.parameters(settings, base.config) == adapters.audit(adapters.attach(base, settings), settings)


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_all_weights_are_counted_where_all_are_trained(family: str) -> None:
    base = tiny.model(family)
    settings = tiny.config()
    assert shapes.parameters(settings, base.config) == adapters.audit(adapters.attach(base, settings), settings)


def test_counting_allocates_nothing() -> None:
    large = shapes.AutoConfig.for_model("llama")  # the 7B
    settings = kinds.config("lora", "llama", rank=8)
    counts = shapes.parameters(settings, large)
    assert counts == {"trainable": 4_194_304, "total": 6_738_415_616 + 4_194_304}


def test_a_shallow_model_differs_in_its_layers_alone() -> None:
    shape = tiny.model("qwen2").config
    one, two = shapes.weighing(shapes.with_layers(shape, 1)), shapes.weighing(shape)
    assert one.head == two.head
    assert abs(two.body - 2 * one.body) == tiny.LLAMA["hidden_size"]  # the last norm
    assert shape.num_hidden_layers == 2


def test_random_weights_are_a_folder_to_start_from(tmp_path: Path) -> None:
    shape = tiny.model("llama").config
    shapes.write_random(shape, tiny.tokenizer(), tmp_path)
    settings = _at(tmp_path)
    assert shapes.architecture(settings, 0).hidden_size == shape.hidden_size
    assert len(shapes.load_tokenizer(settings)) == len(tiny.tokenizer())


def test_a_cell_whose_mix_is_not_here_has_parameters_and_no_steps(tmp_path: Path) -> None:
    shapes.write_random(tiny.model("llama").config, tiny.tokenizer(), tmp_path)
    settings = dataclasses.replace(_at(tmp_path), evaluation=NoSuite(name="none"))
    facts = measuring.look(settings, is_trained=False, has_data=False)
    assert facts.steps is None
    assert facts.tokens is None
    assert facts.seconds is None
    assert facts.trainable == sum(2 * 4 * (64 + out) for out in (64, 32))  # two layers, q and v
    assert facts.how == "not calibrated: its mix is not here"
    assert facts.memory["optimizer"] == 8 * facts.trainable


def _at(folder: Path) -> RunConfig:
    settings = tiny.config(folder, adapter="lora", targets=["q_proj", "v_proj"])
    return dataclasses.replace(settings, model=ModelConfig(name="tiny", path=str(folder)))
