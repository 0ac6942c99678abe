"""Layers that are computed twice train the same; what cannot be had is refused; the model is afterwards as it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from babeltune.config import compose
from babeltune.data.rows import Document, Rowing, flat_rows, flatten
from babeltune.errors import ConfigError, ModelError
from babeltune.modeling import attention, blocks
from babeltune.modeling.loss import target_losses
from babeltune.options import Attention, TrainerConfig
from tests.modeling import tiny


def _trainer(**changes: Any) -> TrainerConfig:
    return dataclasses.replace(tiny.config().trainer, **changes)


def _gradients(model: Any, trainer: TrainerConfig) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Gradients of a step of documents that share their beginning, and the layers that ran, in order."""
    ids = np.arange(40, dtype=np.int32) + 5
    documents = [Document(ids + np.int32(n) * (ids > 20), np.arange(40) > 25, 0) for n in range(3)]
    (row,) = flat_rows(documents, Rowing.shared, 1000)
    batch, ran = flatten(documents, row), []
    model.zero_grad()
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, layer in model.model.layers.named_children()
    ]
    with attention.attending(model, Attention.documents), blocks.prepared(model, trainer):
        losses = target_losses(
            model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT, batch.clusters
        )
        losses.sum().backward()
    for hook in hooks:
        hook.remove()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}, ran


def test_layers_that_are_computed_twice_have_the_same_gradients() -> None:
    model = tiny.model("llama").train()
    expected, once = _gradients(model, _trainer())
    found, twice = _gradients(model, _trainer(checkpointing=True))
    assert (once, twice) == (["0", "1"], ["0", "1", "1", "0"])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert _gradients(model, _trainer())[1] == once, "switched off again"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_below_the_lowest_trained_weight_nothing_is_differentiated(checkpointing: bool) -> None:
    model = tiny.model("llama").train().requires_grad_(False)
    model.model.layers[1].self_attn.v_proj.weight.requires_grad_(True)
    seen = []
    hook = model.model.layers[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
    found, _ = _gradients(model, _trainer(checkpointing=checkpointing))
    hook.remove()
    assert list(found) == ["model.layers.1.self_attn.v_proj.weight"]
    assert not any(seen)


def test_a_family_whose_layers_change_is_not_compiled() -> None:
    with pytest.raises(ModelError) as caught, blocks.prepared(tiny.model("bloom"), _trainer(compile=True)):
        pass
    assert str(caught.value) == (
        "trainer.compile=true: got bloom; expected a family whose layers stay as they are from step to step; "
        "try trainer.compile=false"
    )


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError) as caught, blocks.prepared(tiny.model("llama"), _trainer(compile=True)):
        pass
    assert str(caught.value) == (
        "trainer.compile=true: got no C++ compiler on the path; expected g++ or clang++; "
        "try installing one, or trainer.compile=false"
    )


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # of torch, by torch
def test_a_compiled_model_is_as_it_was_afterwards() -> None:
    model = tiny.model("llama")
    with blocks.prepared(model, _trainer(compile=True)):
        assert all(layer._compiled_call_impl is not None for layer in model.model.layers)
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["adapter=prefix", "data.layout=padded", "trainer.checkpointing=true"],
            "adapter=prefix with trainer.checkpointing=true: got trained keys in a cache",
        ),
        (["trainer.checkpointing=true", "trainer.compile=true"], "trainer.compile=true with trainer.checkpointing=true: got both"),
        (
            ["adapter=prompt", "data.layout=padded", "trainer.attention=documents"],
            "adapter=prompt with trainer.attention=documents: got trained tokens in front of each text",
        ),
    ],
)
def test_pairs_that_break_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["data=toy_zh", "model=tiny_fresh", "evaluation=none", "logger=none", *overrides])
