"""AdaLoRA's schedule, its penalty, its cuts, and that what is saved is what was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from babeltune.modeling import adapters, ranks
from babeltune.modeling.ranks import phases
from babeltune.options import RunConfig
from tests.modeling import kinds, tiny

TOTAL = 24


@pytest.mark.parametrize(
    ("total", "expected"),
    [(10_000, (200, 1000, 10)), (2400, (200, 1000, 10)), (1200, (100, 500, 5)), (24, (2, 10, 1)), (3, (0, 1, 1)), (1, (0, 0, 1))],
)
def test_a_run_shorter_than_twice_its_phases_shortens_them_alike(total: int, expected: tuple[int, int, int]) -> None:
    assert phases(total, 200, 1000, 10) == expected
    assert expected[0] < total - expected[1]  # what peft demands: there is a step to cut in


def planned(total: int = TOTAL) -> tuple[Any, RunConfig, Any]:
    model, settings = kinds.attached("adalora", "llama")
    ranks.plan_ranks(model, total)
    trained = [part for part in model.parameters() if part.requires_grad]
    return model, settings, torch.optim.AdamW(trained, lr=1e-2)


def steps(model: Any, optimizer: Any, first: int, last: int) -> list[float]:
    """As the training module does them."""
    seen = []
    model.train()
    for step in range(first, last):
        loss = kinds.losses(model).mean()
        loss.backward()
        seen.append(float(loss.detach()))
        ranks.add_penalty(model)
        optimizer.step()
        ranks.cut_ranks(model, step + 1)
        optimizer.zero_grad()
    return seen


def living(model: Any) -> int:
    """Entries of the diagonals that are not cut."""
    return sum(int(part.count_nonzero()) for name, part in model.named_parameters() if "lora_E" in name)


def test_ranks_fall_to_the_target_and_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    model, settings, optimizer = planned()
    counts, modules = [], 4
    for step in range(TOTAL):
        steps(model, optimizer, step, step + 1)
        counts.append(living(model))
    before, last = 2, 10
    assert set(counts[:before]) == {6 * modules}
    assert counts == sorted(counts, reverse=True)
    assert set(counts[TOTAL - last - 1 :]) == {3 * modules}
    trained = kinds.evaluated(model)
    adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    torch.testing.assert_close(kinds.evaluated(kinds.reloaded("llama", tmp_path, settings)), trained, rtol=1e-5, atol=1e-5)


def test_the_penalty_is_pefts_and_its_gradient_is_added_to_that_of_the_loss() -> None:
    model, _, _ = planned()
    texts = kinds.batch()
    parts = {name: part for name, part in model.named_parameters() if part.requires_grad}
    kinds.losses(model).mean().backward()
    plain = {name: part.grad.clone() for name, part in parts.items() if part.grad is not None}
    told = ranks.add_penalty(model)
    ours = {name: part.grad - plain[name] for name, part in parts.items() if part.grad is not None}
    labels = texts.input_ids_BT.clone()
    bare = model.get_base_model()(input_ids=texts.input_ids_BT, labels=labels).loss
    theirs = model(input_ids=texts.input_ids_BT, labels=labels).loss - bare
    assert told["orthogonality"] == pytest.approx(float(theirs.detach()), rel=1e-5)
    gradients = torch.autograd.grad(theirs, list(parts.values()), allow_unused=True)
    for (name, _), gradient in zip(parts.items(), gradients, strict=True):
        if "lora_E" not in name:
            torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 8, 20])
def test_training_goes_on_from_a_checkpoint_with_the_same_cuts(stop: int) -> None:
    model, _, optimizer = planned()
    steps(model, optimizer, 0, stop)
    kept = copy.deepcopy((adapters.trainable_state(model), ranks.running_state(model), optimizer.state_dict()))
    again, _, other = planned()
    adapters.load_trainable(again, kept[0])
    ranks.load_running(again, kept[1])
    other.load_state_dict(kept[2])
    assert steps(model, optimizer, stop, TOTAL) == steps(again, other, stop, TOTAL)
    assert living(model) == living(again)


def _measured(model: Any) -> dict[str, torch.Tensor]:
    state = ranks.running_state(model)
    return {f"{mean} {name}": part.clone() for mean in ranks.RUNNING for name, part in state[mean].items()}


@pytest.mark.parametrize("stop", [1, 8])
def test_what_importance_is_measured_by_goes_on_from_where_it_stood(stop: int) -> None:
    model, _, optimizer = planned()
    steps(model, optimizer, 0, stop)
    weights, running, moments = copy.deepcopy((adapters.trainable_state(model), ranks.running_state(model), optimizer.state_dict()))
    stood = _measured(model)
    assert any(bool(part.any()) for part in stood.values())
    steps(model, optimizer, stop, stop + 1)
    for is_restored in (True, False):
        again, _, other = planned()
        adapters.load_trainable(again, weights)
        other.load_state_dict(copy.deepcopy(moments))
        if is_restored:
            ranks.load_running(again, copy.deepcopy(running))
            assert all(torch.equal(part, stood[name]) for name, part in _measured(again).items())
        steps(again, other, stop, stop + 1)
        measured = _measured(again)
        assert measured.keys() == _measured(model).keys()
        same = all(torch.equal(part, measured[name]) for name, part in _measured(model).items())
        assert same == is_restored, "without the means, importance is measured anew"


@pytest.mark.parametrize("kind", ["lora", "prompt", "sadapter_p", "embeddings"])
def test_other_adapters_pass_through_untouched(kind: str) -> None:
    model, _ = kinds.attached(kind, "llama")
    before = copy.deepcopy(adapters.trainable_state(model))
    ranks.plan_ranks(model, TOTAL)
    ranks.cut_ranks(model, 1)
    assert (ranks.add_penalty(model), ranks.running_state(model)) == ({}, {})
    ranks.load_running(model, {})
    assert all(torch.equal(before[name], part) for name, part in adapters.trainable_state(model).items())
    assert not [name for name, part in model.named_parameters() if part.grad is not None]
