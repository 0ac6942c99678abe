"""The loss of rows of documents: they do not see each other, and the output layer runs only where there is a target.

Shapes: B rows, T tokens of a row, H hidden size, N targets of the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from babeltune.errors import ConfigError, problem
from babeltune.modeling import attention
from babeltune.modeling.outputs import token_losses
from babeltune.modeling.virtual import num_virtual, virtual_hidden_states
from babeltune.options import Attention

if TYPE_CHECKING:
    from babeltune.data.sharing import Cluster

ALIBI = {"bloom"}
"""Model types that know positions by a bias on distance and take no 4-D mask: each block is handed both by a hook."""


def target_losses(
    model: nn.Module,
    input_ids_BT: Tensor,
    position_ids_BT: Tensor,
    document_ids_BT: Tensor,
    labels_BT: Tensor,
    clusters: Sequence[Cluster] | None = None,
) -> Tensor:
    """Negative log-likelihood of each target token, in nats and float32, row by row: shape N.

    `labels_BT[b, t]` is the token that position t must predict, or -100. `clusters` are those of a flat row, which runs inside
    `attention.attending`.
    """
    chosen_BT = labels_BT != -100
    if num_virtual(model):
        hidden_BTH = virtual_hidden_states(model, input_ids_BT, document_ids_BT)
    else:
        hidden_BTH = hidden_states(model, input_ids_BT, position_ids_BT, document_ids_BT, clusters)
    return token_losses(causal_lm(model).get_output_embeddings(), hidden_BTH[chosen_BT], labels_BT[chosen_BT])


def hidden_states(
    model: nn.Module,
    input_ids_BT: Tensor,
    position_ids_BT: Tensor,
    document_ids_BT: Tensor,
    clusters: Sequence[Cluster] | None = None,
) -> Tensor:
    """The last hidden states, B × T × H, every document computed as if it were alone in its row."""
    lm = causal_lm(model)
    body = getattr(lm, lm.base_model_prefix)
    if clusters is not None:
        return body(  # type: ignore[no-any-return]
            input_ids=input_ids_BT, position_ids=position_ids_BT, use_cache=False, documents=attention.Flat(clusters, lm)
        ).last_hidden_state
    if attention.is_flex(lm):
        mask = attention.flex_mask(document_ids_BT)
        return body(  # type: ignore[no-any-return]
            input_ids=input_ids_BT, attention_mask=mask, position_ids=position_ids_BT, use_cache=False
        ).last_hidden_state
    mask_B1TT = block_mask(document_ids_BT, lm.dtype)
    if lm.config.model_type in ALIBI:
        with _separated(body.h, mask_B1TT, position_ids_BT):
            everything = torch.ones_like(input_ids_BT)
            return body(input_ids=input_ids_BT, attention_mask=everything, use_cache=False).last_hidden_state  # type: ignore[no-any-return]
    return body(  # type: ignore[no-any-return]
        input_ids=input_ids_BT, attention_mask=mask_B1TT, position_ids=position_ids_BT, use_cache=False
    ).last_hidden_state


def block_mask(document_ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask, B × 1 × T × T: zero where a token may look (itself and earlier ones of its document)."""
    length = document_ids_BT.shape[1]
    same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=document_ids_BT.device).tril()
    allowed_B1TT = (same_BTT & causal_TT)[:, None]
    blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=document_ids_BT.device)
    return torch.where(allowed_B1TT, torch.zeros((), dtype=dtype, device=blocked.device), blocked)


def causal_lm(model: Any) -> Any:
    """The transformers model inside whatever wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_exact(model: nn.Module, max_tokens: int, kind: Attention = Attention.mask) -> None:
    """Refuse a model for which packed rows, or an output layer that runs alone, would give another loss than plain use.

    Two short documents are packed and compared with the model's own full forward pass on each. Some families scale their
    logits or ignore positions; this finds it before a run is spent on it. A family whose layers see only so far back would
    see further in our rows: it is refused documents longer than that.

    It is done where the model lies. On a CPU, `flash` is tried as `documents`, and `flex` as `mask`: what a family does with the
    bounds and masks that it is handed is the same.
    """
    lm = causal_lm(model)
    if (seen := window(lm.config)) is not None and seen < max_tokens:
        got = f"{lm.config.model_type}, whose layers look {seen} tokens back"
        raise ConfigError(problem("model", got, f"a look over data.max_tokens={max_tokens}", f"data.max_tokens={seen}"))
    if (alike := same_positions(lm.config)) is not None and alike < max_tokens:
        got = f"{lm.config.model_type}, whose positions depend on the longest document of a row above {alike} tokens"
        raise ConfigError(problem("model", got, f"at least data.max_tokens={max_tokens}", f"data.max_tokens={alike}"))
    tolerance = 0.05 if lm.dtype == torch.bfloat16 or getattr(lm, "is_quantized", False) else 1e-3
    was_training = model.training
    model.eval()
    expected = "a family whose attention can be blocked (llama, qwen2, gptj, bloom and their like)"
    try:
        off = _packing_error(lm, kind)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        got = f"{lm.config.model_type}, which cannot be packed ({' '.join(str(error).split())[:100]})"
        raise ConfigError(problem("model", got, expected, "another model")) from error
    finally:
        model.train(was_training)
    if not off <= tolerance:
        got = f"{lm.config.model_type}, whose packed logits differ from its own by {off:.2g} of their size"
        raise ConfigError(problem("model", got, expected, "another model"))


def window(settings: Any) -> int | None:
    """How many tokens back, itself included, a token is seen in the layers that see least; None for all of them.

    `settings` is the config of a transformers model. Families name it in three ways: a sliding window, chunks that do not see
    each other (Llama 4), and layers of local attention (GPT Neo). A model may carry the number and use it in no layer.
    """
    layers = getattr(settings, "layer_types", None)
    kinds = {"sliding_window": "sliding_attention", "attention_chunk_size": "chunked_attention"}
    found = [getattr(settings, name, None) for name, kind in kinds.items() if layers is None or kind in layers]
    if "local" in getattr(settings, "attention_layers", ()):
        found.append(settings.window_size)
    return min((size for size in found if size is not None), default=None)


def same_positions(settings: Any) -> int | None:
    """Up to how many tokens a position is the same whatever else is in the row; None for any number.

    With `longrope` and `dynamic` rotary positions the longest document of a row decides about the frequencies of all.
    """
    rope = getattr(settings, "rope_parameters", None) or {}
    kinds = [one for one in (rope, *rope.values()) if isinstance(one, dict)]
    found = [
        one.get("original_max_position_embeddings") or settings.max_position_embeddings
        for one in kinds
        if one.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(found, default=None)


@torch.no_grad()
def _packing_error(lm: Any, kind: Attention) -> float:
    """The largest difference of documents' logits in one row from the model's own, as a share of the largest logit."""
    device = next(lm.parameters()).device
    documents = [torch.arange(start, start + 5, device=device) % lm.config.vocab_size for start in (7, 31)]
    plain = torch.cat([lm(input_ids=ids[None], use_cache=False).logits[0] for ids in documents]).float()
    positions = torch.cat([torch.arange(5, device=device)] * 2)[None]
    rows = torch.tensor([[0] * 5 + [1] * 5], device=device)
    kind, clusters = attention.tried(kind, device, (5, 5))
    with attention.attending(lm, kind):
        states = hidden_states(lm, torch.cat(documents)[None], positions, rows, clusters)
    packed = lm.get_output_embeddings()(states)[0].float()
    return float((plain - packed).abs().max() / plain.abs().max().clamp_min(1e-6))


@contextlib.contextmanager
def _separated(blocks: Any, mask_B1TT: Tensor, position_ids_BT: Tensor) -> Iterator[None]:
    """Hand each block this mask, and a bias that starts anew with each document, in place of those that its model built.

    A shift of the bias cancels in the softmax, but in bfloat16 a bias far from zero is coarse: a document late in its row
    would see its neighbours less sharply than one at the beginning.
    """

    def swap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rows, length = position_ids_BT.shape
        alibi_BDT = kwargs["alibi"].view(rows, -1, length)  # D heads
        restarted_BDT = alibi_BDT.gather(2, position_ids_BT[:, None].expand_as(alibi_BDT))
        return args, {**kwargs, "attention_mask": mask_B1TT, "alibi": restarted_BDT.reshape(kwargs["alibi"].shape)}

    handles = [block.register_forward_pre_hook(swap, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
