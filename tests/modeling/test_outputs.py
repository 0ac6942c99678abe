"""The output layer in chunks, with the gradient worked out beside the loss, is plain cross entropy."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from babeltune.modeling import outputs
from babeltune.modeling.outputs import token_losses

VOCABULARY, HIDDEN = 101, 16


def _head(bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(HIDDEN, VOCABULARY, bias=bias, dtype=dtype).requires_grad_(False)


def _targets(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(count)
    return torch.randn(count, HIDDEN) * 3, torch.randint(0, VOCABULARY, (count,)), torch.rand(count)


def _plain(head: nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), labels, reduction="none")


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of eight positions."""
    monkeypatch.setattr(outputs, "LEAST_CHUNK", 8)
    monkeypatch.setattr(outputs, "CHUNK_LOGITS", 0)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 29])
@pytest.mark.parametrize("bias", [False, True])
def test_a_frozen_layer_has_the_losses_and_gradients_of_plain_cross_entropy(count: int, bias: bool) -> None:
    head, (hidden, labels, weights) = _head(bias), _targets(count)
    found, expected = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    losses, plain = token_losses(head, found, labels), _plain(head, expected, labels)
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=1e-6)
    (losses * weights).sum().backward()
    (plain * weights).sum().backward()
    assert found.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("chunks")
def test_an_ignored_label_has_no_loss_and_no_gradient() -> None:
    head, (hidden, labels, _) = _head(), _targets(20)
    labels[[0, 7, 8, 19]] = -100
    found, expected = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    losses, plain = token_losses(head, found, labels), _plain(head, expected, labels)
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=1e-6)
    losses.sum().backward()
    plain.sum().backward()
    assert found.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-6)
    assert not found.grad[7].any()


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("autocast", [False, True])
def test_in_bfloat16_it_is_as_near_to_the_exact_loss_as_plain_cross_entropy(autocast: bool) -> None:
    exact, (hidden, labels, weights) = _head(), _targets(29)
    head = exact if autocast else _head(dtype=torch.bfloat16)
    dtype = torch.float32 if autocast else torch.bfloat16
    leaves = [hidden.to(kind, copy=True).requires_grad_() for kind in (torch.float32, dtype, dtype)]
    true = _plain(exact, leaves[0], labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain, found = _plain(head, leaves[1], labels), token_losses(head, leaves[2], labels)
    assert found.dtype == torch.float32
    for losses in (true, plain, found):
        (losses * weights).sum().backward()
    gradients = [leaf.grad.float() for leaf in leaves if leaf.grad is not None]
    assert (found - true).norm() <= 1.2 * (plain - true).norm() + 1e-3
    assert (gradients[2] - gradients[0]).norm() <= 1.2 * (gradients[1] - gradients[0]).norm() + 1e-3


def test_logits_far_from_zero_stay_finite() -> None:
    head, (hidden, labels, _) = _head(), _targets(5)
    leaf = (hidden * 1e4).requires_grad_()
    losses = token_losses(head, leaf, labels)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    torch.testing.assert_close(losses, _plain(head, leaf, labels), rtol=1e-5, atol=1e-3)


def test_without_gradients_only_the_loss_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    head, (hidden, labels, _) = _head(), _targets(5)
    torch.testing.assert_close(token_losses(head, hidden, labels), _plain(head, hidden, labels))
    assert not token_losses(head, hidden, labels).requires_grad


@pytest.mark.usefixtures("chunks")
def test_a_layer_that_is_trained_gets_its_gradient_chunk_by_chunk() -> None:
    (hidden, labels, weights), grown = _targets(29), []
    for way in (token_losses, _plain):
        head = _head(bias=True).requires_grad_(True)
        (way(head, hidden, labels) * weights).sum().backward()
        assert head.weight.grad is not None
        grown.append(head.weight.grad)
    torch.testing.assert_close(grown[0], grown[1], rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_more_than_its_weight_is_run_as_it_is() -> None:
    head, (hidden, labels, _) = _head(), _targets(5)
    handle = head.register_forward_hook(lambda *arguments: arguments[-1] * 2)
    assert not torch.allclose(token_losses(head, hidden, labels), token_losses(_head(), hidden, labels))
    handle.remove()
    torch.testing.assert_close(token_losses(head, hidden, labels), token_losses(_head(), hidden, labels))
