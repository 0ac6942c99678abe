"""A base that stays in memory: the same as one that is loaded anew, whatever was done to the one before."""

from __future__ import annotations

import copy
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from babeltune import compose
from babeltune.modeling import adapters, loading, reuse
from babeltune.options import Precision, RunConfig

VOCABULARY = 300


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    reuse.drop()
    yield
    reuse.drop()


def config(*overrides: str) -> RunConfig:
    return compose(["data=toy_zh", "model=tiny_fresh", "adapter=lora", *overrides])


def same(one: Any, two: Any) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(1, 9)[None], use_cache=False).logits
    return found


def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many tokens the bases that are really loaded are."""
    loads: list[int] = []
    really = loading.load_base

    def load(config: RunConfig, parent: Path | None, vocabulary: int) -> Any:
        loads.append(vocabulary)
        return really(config, parent, vocabulary)

    monkeypatch.setattr(loading, "load_base", load)
    return loads


def test_a_base_is_loaded_once_and_its_copies_share_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count(monkeypatch)
    first, second = (reuse.load_base(config(), None, VOCABULARY) for _ in range(2))
    assert loads == [VOCABULARY]
    assert first is not second
    assert first.config is not second.config
    assert [one.data_ptr() for one in first.parameters()] == [one.data_ptr() for one in second.parameters()]
    assert first.get_output_embeddings().weight is first.get_input_embeddings().weight, "tied weights stay tied"


def test_what_a_cell_does_to_its_base_does_not_reach_the_next() -> None:
    anew = loading.load_base(config(), None, VOCABULARY)
    mine = reuse.load_base(config(), None, VOCABULARY)
    model = adapters.attach(mine, config())
    model(input_ids=torch.arange(1, 9)[None]).logits.sum().backward()
    mine.register_forward_hook(lambda *_: None)
    mine.config.use_cache, mine.config._attn_implementation = False, "eager"
    mine.generation_config.temperature = 9.0
    mine.name_or_path = "elsewhere"
    mine.requires_grad_(True).eval()
    mine.model.norm.weight.data = mine.model.norm.weight.data.half()
    mine.model.rotary_emb.inv_freq.zero_()
    mine.model.layers[0].mlp = torch.nn.Identity()

    next_one = reuse.load_base(config(), None, VOCABULARY)

    assert str(next_one) == str(anew)
    assert same(next_one, anew)
    assert torch.equal(logits(next_one), logits(anew))
    assert next_one.config.to_dict() == anew.config.to_dict()
    assert next_one.config._attn_implementation == anew.config._attn_implementation
    assert next_one.generation_config.to_dict() == anew.generation_config.to_dict()
    assert next_one.name_or_path == anew.name_or_path
    for module, other in zip(next_one.modules(), anew.modules(), strict=True):
        assert module.training == other.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    flags = [(name, one.requires_grad, one.grad is None, one.dtype) for name, one in next_one.named_parameters()]
    assert flags == [(name, one.requires_grad, one.grad is None, one.dtype) for name, one in anew.named_parameters()]


@pytest.mark.parametrize("through", ["in place", "data"])
def test_weights_that_a_cell_has_changed_are_loaded_again(through: str, caplog: pytest.LogCaptureFixture) -> None:
    mine = reuse.load_base(config(), None, VOCABULARY)
    with torch.no_grad():
        weight = mine.model.layers[0].self_attn.q_proj.weight
        (weight if through == "in place" else weight.data)[3, 5] += 1e-3
    with caplog.at_level(logging.WARNING):
        next_one = reuse.load_base(config(), None, VOCABULARY)
    assert "the base in memory is not what was loaded; it is loaded again" in caplog.text
    assert same(next_one, loading.load_base(config(), None, VOCABULARY))


@pytest.mark.parametrize(
    "other", ["seed=1", "model.fresh.hidden_size=64", "precision=bf16", "adapter=none", "adapter=embeddings", "trainer.devices=2"]
)
def test_another_base_takes_the_place_of_the_one_before(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count(monkeypatch)
    reuse.load_base(config(), None, VOCABULARY)
    changed = config(*([other, "trainer=ddp_cpu"] if "devices" in other else [other]))
    got = reuse.load_base(changed, None, VOCABULARY)
    assert loads == [VOCABULARY] * 2
    assert same(got, loading.load_base(changed, None, VOCABULARY))
    reuse.load_base(config(), None, VOCABULARY)
    assert loads == [VOCABULARY] * 4, "one base is kept at a time"


def test_a_folder_that_has_changed_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    loading.fresh_model(config().model.fresh or {}, VOCABULARY, 0).save_pretrained(folder)
    read = replace(config(), model=replace(config().model, fresh=None, path=str(folder)))
    first = reuse.load_base(read, None, VOCABULARY)
    assert same(first, loading.load_base(read, None, VOCABULARY))
    shutil.rmtree(folder)  # the first is mapped from its file
    loading.fresh_model(config().model.fresh or {}, VOCABULARY, 1).save_pretrained(folder)
    second = reuse.load_base(read, None, VOCABULARY)
    assert same(second, loading.load_base(read, None, VOCABULARY))
    assert not same(first, second)


def test_four_bit_weights_are_shared_and_come_through_a_training_step(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    loading.fresh_model(config().model.fresh or {}, VOCABULARY, 0).save_pretrained(folder)
    read = replace(config(), model=replace(config().model, fresh=None, path=str(folder)))
    read = replace(read, precision=replace(read.precision, kind=Precision.nf4))
    anew = logits(loading.load_base(read, None, VOCABULARY))
    for _ in range(2):
        base = reuse.load_base(read, None, VOCABULARY)
        assert torch.equal(logits(copy.deepcopy(base)), anew)
        model = adapters.attach(base, read)
        model(input_ids=torch.arange(1, 9)[None]).logits.sum().backward()
