"""The output layer and its loss, a few positions at a time: memory does not grow with vocabulary × length.

Shapes: N targets, H hidden size, V vocabulary, C positions of a chunk.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK_LOGITS = 1 << 22
"""Logits held at a time (16 MiB of float32)."""
LEAST_CHUNK = 128
"""Positions of a chunk all the same: fewer, and reading the weights takes longer than multiplying by them."""


def token_losses(head: Any, hidden_NH: Tensor, labels_N: Tensor) -> Tensor:
    """Negative log-likelihood of each label, in nats and float32: shape N. A label of -100 has a loss of 0 and no gradient.

    A linear layer that gets no gradient takes two matrix products, and no logits are kept or made again: the gradient of the
    hidden states is worked out beside the loss. Any other layer is run in chunks that the backward pass repeats. On a GPU, in 16
    bits, with cut-cross-entropy installed, its kernel does either.
    """
    if _is_linear(head):
        if _has_kernel(hidden_NH, head.weight):
            return _kernel(head, hidden_NH, labels_N)
        if not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in head.parameters())):
            losses_N: Tensor = _FrozenOutput.apply(hidden_NH, head.weight, head.bias, labels_N)  # type: ignore[no-untyped-call]
            return losses_N
    size = _chunk(head.weight.shape[0])
    if len(labels_N) <= size:
        return _losses(head, hidden_NH, labels_N)
    pieces = zip(torch.split(hidden_NH, size), torch.split(labels_N, size), strict=True)
    return torch.cat([checkpoint(_losses, head, part, labels, use_reentrant=False) for part, labels in pieces])


def _chunk(vocabulary: int) -> int:
    return max(LEAST_CHUNK, CHUNK_LOGITS // vocabulary)


def _losses(head: nn.Module, hidden_NH: Tensor, labels_N: Tensor) -> Tensor:
    return cross_entropy(head(hidden_NH).float(), labels_N, reduction="none")


def _is_linear(head: nn.Module) -> bool:
    """Whether the layer is its weight and bias and nothing else: no adapter, no hook, no part of it on another device."""
    return type(head) is nn.Linear and type(head.weight) is nn.Parameter and not head._forward_hooks and not head._forward_pre_hooks


class _FrozenOutput(torch.autograd.Function):
    """Cross entropy behind a linear layer without gradients of its own.

    d loss_n / d hidden_n = (softmax_n − one_hot(label_n)) · weight, so that each token's row is scaled by what arrives for it.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
        kind = hidden_NH.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VH.dtype
        gradient_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        with torch.autocast(kind, enabled=False):
            weight_VH, size = weight_VH.to(dtype), _chunk(len(weight_VH))
            losses = [
                _chunk_losses(
                    hidden_NH[start : start + size].to(dtype),
                    weight_VH,
                    bias_V,
                    labels_N[start : start + size],
                    None if gradient_NH is None else gradient_NH[start : start + size],
                )
                for start in range(0, len(labels_N), size)
            ]
        ctx.save_for_backward(gradient_NH)
        return torch.cat(losses) if losses else hidden_NH.new_empty(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *arriving: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_NH,) = ctx.saved_tensors
        return gradient_NH * arriving[0][:, None].to(gradient_NH.dtype), None, None, None


def _chunk_losses(
    hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_C: Tensor, gradient_CH: Tensor | None
) -> Tensor:
    """Losses of a chunk; what they make of the hidden states is written into `gradient_CH`."""
    logits_CV = (hidden_CH @ weight_VH.T).float()
    if bias_V is not None:
        logits_CV += bias_V
    counts_C = labels_C >= 0
    chosen_C1 = labels_C.clamp_min(0)[:, None]
    most_C1 = logits_CV.amax(-1, keepdim=True)
    picked_C1 = logits_CV.gather(1, chosen_C1)
    powers_CV = logits_CV.sub_(most_C1).exp_()
    sums_C1 = powers_CV.sum(-1, keepdim=True)
    losses_C = (sums_C1.log() + most_C1 - picked_C1)[:, 0] * counts_C
    if gradient_CH is not None:
        powers_CV.scatter_add_(1, chosen_C1, -sums_C1)
        product_CH = powers_CV.to(weight_VH.dtype) @ weight_VH
        gradient_CH.copy_(product_CH * (counts_C[:, None] / sums_C1))
    return losses_C


def _has_kernel(hidden_NH: Tensor, weight_VH: Tensor) -> bool:
    if not hidden_NH.is_cuda or weight_VH.dtype not in (torch.bfloat16, torch.float16) or len(hidden_NH) == 0:
        return False
    return importlib.util.find_spec("cut_cross_entropy") is not None


def _kernel(head: Any, hidden_NH: Tensor, labels_N: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy  # type: ignore[import-not-found, unused-ignore]

    losses_N: Tensor = linear_cross_entropy(
        hidden_NH.to(head.weight.dtype), head.weight, labels_N, bias=head.bias, ignore_index=-100, reduction="none"
    )
    return losses_N.float()
