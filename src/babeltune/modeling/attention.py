"""Attention in rows of several documents, by whichever way computes least; documents never see each other.

Shapes: T tokens of a flat row, A heads, K key heads, D size of a head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from babeltune.data.rows import Rowing
from babeltune.data.sharing import Cluster
from babeltune.errors import ConfigError, problem
from babeltune.modeling.virtual import num_virtual
from babeltune.options import Accelerator, Attention, Precision, RunConfig

NAMES = {Attention.documents: "babeltune_documents", Attention.flash: "babeltune_flash", Attention.flex: "flex_attention"}
"""What each kind is called in transformers' registry. `Attention.mask` is whatever a model has already."""

ATTENTION_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
"""What families call the share of attention that is dropped in training: torch's kernel drops nothing."""

UNKNOWN = ("softcap", "s_aux", "position_bias")
"""Arguments by which a family changes its attention in ways that the kernels here do not know."""


def choose(model: Any, config: RunConfig) -> Attention:
    """The kind that `trainer.attention` asks for, never `auto`. Raises ConfigError when the model or the device has no such.

    `auto` takes `flash` on a GPU in bfloat16, `documents` where the family lets its attention be replaced, else `mask`.
    """
    wanted, lm = config.trainer.attention, _causal_lm(model)
    where = f"trainer.attention={wanted.value}"
    if num_virtual(model):  # they attend by themselves: see `virtual`
        return Attention.mask
    can_flash, missing = _flash(lm, config)
    if wanted is Attention.auto:
        if not replaceable(lm):
            return Attention.mask
        return Attention.flash if can_flash else Attention.documents
    if wanted is not Attention.mask and not replaceable(lm):
        expected = "a family whose attention transformers lets one replace"
        raise ConfigError(problem(where, lm.config.model_type, expected, "trainer.attention=mask"))
    if wanted is Attention.flash and not can_flash:
        raise ConfigError(problem(where, missing, "a GPU of 2020 or later and precision=bf16", "trainer.attention=auto"))
    if wanted is Attention.flex and config.trainer.accelerator is Accelerator.cpu:
        expected = "a GPU: on a CPU FlexAttention has no backward pass"
        raise ConfigError(problem(where, "trainer.accelerator=cpu", expected, "trainer.attention=auto"))
    return wanted


def replaceable(lm: Any) -> bool:
    """Whether the family calls its attention by a name in transformers' registry, and hands on what it is given."""
    return bool(lm._supports_attention_backend) and lm.config._attn_implementation in ("sdpa", *NAMES.values())


def _flash(lm: Any, config: RunConfig) -> tuple[bool, str]:
    """Whether torch's attention for documents of different lengths can run, and what is there instead."""
    if config.trainer.accelerator is Accelerator.cpu or not torch.cuda.is_available():
        return False, "a CPU"
    if config.precision.kind is not Precision.bf16:
        return False, f"precision={config.precision.kind.value}"
    for name in ATTENTION_DROPOUTS:
        if getattr(lm.config, name, 0.0):
            return False, f"{name}={getattr(lm.config, name)}"
    if torch.cuda.get_device_capability() < (8, 0):
        return False, torch.cuda.get_device_name()
    return True, ""


def rowing(model: Any, kind: Attention, accelerator: Accelerator) -> Rowing:
    """The rows that a kind of attention is given.

    What several documents begin with may be computed once for all of them where that changes no number: not with dropout, which
    would drop the same for all. It is done by the one kernel that knows how, and where it was measured to pay.
    """
    if kind not in (Attention.documents, Attention.flash):
        return Rowing.even
    is_plain = kind is Attention.documents and accelerator is Accelerator.cpu
    return Rowing.shared if is_plain and not (model.training and drops(model)) else Rowing.flat


def drops(model: nn.Module) -> bool:
    """Whether anything in the model is dropped or shaken at random while it trains."""
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in model.modules()):
        return True
    return _is_random(_causal_lm(model).config.to_dict())


def _is_random(settings: dict[str, Any]) -> bool:
    """Whether a model's settings, or those of a part of it, name a share to drop or a size of noise."""
    return any(
        _is_random(value)
        if isinstance(value, dict)
        else isinstance(value, int | float) and value > 0 and any(word in str(name) for word in ("drop", "jitter"))
        for name, value in settings.items()
    )


@contextlib.contextmanager
def attending(model: Any, kind: Attention) -> Iterator[None]:
    """Have the model's layers attend in this way, forward and backward."""
    settings = _causal_lm(model).config
    if kind is Attention.mask:
        yield
        return
    _register()
    before, settings._attn_implementation = settings._attn_implementation, NAMES[kind]
    try:
        yield
    finally:
        settings._attn_implementation = before


def tried(kind: Attention, device: torch.device, lengths: tuple[int, ...]) -> tuple[Attention, list[Cluster] | None]:
    """The kind that a trial on this device takes in place of one, and the clusters of documents of these lengths for it."""
    if device.type == "cpu":
        kind = {Attention.flash: Attention.documents, Attention.flex: Attention.mask}.get(kind, kind)
    is_flat = kind in (Attention.documents, Attention.flash)
    return kind, [Cluster(0, (length,)) for length in lengths] if is_flat else None


def is_flex(lm: Any) -> bool:
    return bool(lm.config._attn_implementation == NAMES[Attention.flex])


def _register() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for kind in (Attention.documents, Attention.flash):
        ALL_ATTENTION_FUNCTIONS.register(NAMES[kind], _attend)


class Flat:
    """Where the documents of a flat row lie, and what attention needs to know of that, made once for all layers."""

    def __init__(self, clusters: Sequence[Cluster], lm: Any) -> None:
        self.clusters = clusters
        self.is_flash = lm.config._attn_implementation == NAMES[Attention.flash]
        self.lengths = [n for cluster in clusters for n in ((cluster.prefix, *cluster.rests) if cluster.prefix else cluster.rests)]
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}
        if self.is_flash:
            self.longest = max(self.lengths)
            ends = torch.tensor([0, *self.lengths], device=lm.device).cumsum(0)
            self.starts = ends.to(torch.int32)

    def mask(self, cluster: Cluster, rest: int, like: Tensor) -> Tensor:
        """What the rest of a document may see of its prefix and of itself, additive."""
        key = (cluster.prefix, like.dtype)
        if key not in self._masks or len(self._masks[key]) < rest:
            most = max(max(one.rests) for one in self.clusters if one.prefix == cluster.prefix)
            blocked = torch.full((most, cluster.prefix + most), -torch.inf, dtype=like.dtype, device=like.device)
            self._masks[key] = blocked.triu(cluster.prefix + 1)
        return self._masks[key][:rest, : cluster.prefix + rest]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    documents: Flat | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: queries 1 × A × T × D, keys and values 1 × K × T × D; returns 1 × T × A × D.

    Raises ValueError when the family did not hand on where its documents lie, or attends in a way unknown here.
    """
    if documents is None:
        raise ValueError("its layers are not told where documents end")
    if unknown := [name for name in UNKNOWN if others.get(name) is not None]:
        raise ValueError(f"its attention has {unknown[0]}")
    if documents.is_flash and _fits(query, key, value, dropout):
        return _varlen(query, key, value, documents, scaling), None
    if (times := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    return _each(query, key, value, documents, dropout, scaling), None


def _each(query: Tensor, key: Tensor, value: Tensor, flat: Flat, dropout: float, scaling: float | None) -> Tensor:
    """Each document by itself; the rest of a document behind a shared beginning sees that and itself."""
    pieces = zip(*(torch.split(states, flat.lengths, 2) for states in (query, key, value)), strict=True)
    found = []
    for cluster in flat.clusters:
        shared: tuple[Tensor, ...] | None = None
        if cluster.prefix:
            q, k, v = shared = next(pieces)
            found.append(scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True))
        for rest in cluster.rests:
            q, k, v = next(pieces)
            if shared is None:
                found.append(scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True))
                continue
            k, v = torch.cat([shared[1], k], 2), torch.cat([shared[2], v], 2)
            mask = flat.mask(cluster, rest, q)
            found.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling))
    return torch.cat([states.transpose(1, 2) for states in found], 1)


def _fits(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether torch's kernel takes these; in judging, a model that was trained whole has its weights in 32 bits."""
    size = value.shape[-1]
    is_even = query.shape[-1] == key.shape[-1] == size and size % 8 == 0 and size <= 256
    return is_even and not dropout and value.dtype in (torch.bfloat16, torch.float16)


def _varlen(query: Tensor, key: Tensor, value: Tensor, flat: Flat, scaling: float | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
    longest, starts = flat.longest, flat.starts
    is_grouped = q.shape[1] != k.shape[1]
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=is_grouped)
    assert isinstance(out, Tensor)
    return out[None]


def flex_mask(document_ids_BT: Tensor) -> Any:
    """The documents of B rows in the form that FlexAttention reads: whole blocks of pairs that are not seen are left out."""
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (document_ids_BT[row, query] == document_ids_BT[row, key])

    rows, length = document_ids_BT.shape
    return create_block_mask(allowed, rows, None, length, length, device=document_ids_BT.device.type)


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
