"""Trained tokens in front of each text: how a loss and a reply are computed behind them.

peft does both in its wrapper, with logits of every position and positions of its own. Here the base is run directly, the output
layer only where there is a target, and each text follows its trained tokens at once, whatever padding its batch needs.

Shapes: B rows, T tokens of a row, H hidden size, K trained tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def num_virtual(model: Any) -> int:
    """Trained tokens in front of each text; 0 for every other adapter. The one place that asks an attached model."""
    configs = getattr(model, "peft_config", None)
    return configs["default"].num_virtual_tokens if configs and configs["default"].is_prompt_learning else 0


def virtual_hidden_states(model: Any, input_ids_BT: Tensor, document_ids_BT: Tensor) -> Tensor:
    """The last hidden states of the texts, B × T × H. Each row is one text, padding at its right."""
    assert all(len(set(row) - {-1}) <= 1 for row in document_ids_BT.tolist()), "texts behind trained tokens cannot share a row"
    lm = model.get_base_model()
    body = getattr(lm, lm.base_model_prefix)
    rows = len(input_ids_BT)
    mask_BT = (document_ids_BT >= 0).long()
    mask_BT = torch.cat([mask_BT.new_ones(rows, num_virtual(model)), mask_BT], dim=1)
    if _is_prefix(model):
        return body(  # type: ignore[no-any-return]
            input_ids=input_ids_BT, attention_mask=mask_BT, past_key_values=_prefix(model, rows), use_cache=True
        ).last_hidden_state
    embedded_BTH = lm.get_input_embeddings()(input_ids_BT)
    virtual_BKH = _embeddings(model, rows, embedded_BTH.dtype)
    states = body(inputs_embeds=torch.cat([virtual_BKH, embedded_BTH], dim=1), attention_mask=mask_BT, use_cache=False)
    return states.last_hidden_state[:, num_virtual(model) :]  # type: ignore[no-any-return]


def generation_inputs(model: Any, input_ids_BT: Tensor, mask_BT: Tensor, beams: int) -> dict[str, Any]:
    """What transformers' `generate` of the base takes for these left-padded prompts.

    Trained tokens stand in `input_ids` as repetitions of a row's first token, like padding.
    """
    count, rows = num_virtual(model), len(input_ids_BT)
    if not count:
        return {"input_ids": input_ids_BT, "attention_mask": mask_BT}
    fill_BK = input_ids_BT[:, :1].expand(rows, count)
    ones_BK = mask_BT.new_ones(rows, count)
    if _is_prefix(model):  # a cache is in front of everything, and its place there is not counted in positions
        ids_BT, mask_BT = torch.cat([fill_BK, input_ids_BT], dim=1), torch.cat([ones_BK, mask_BT], dim=1)
        return {"input_ids": ids_BT, "attention_mask": mask_BT, "past_key_values": _prefix(model, rows * beams)}
    embedded_BTH = model.get_base_model().get_input_embeddings()(input_ids_BT)
    virtual_BKH = _embeddings(model, rows, embedded_BTH.dtype)
    starts = (mask_BT == 0).sum(dim=1).tolist()
    return {
        "input_ids": torch.cat([fill_BK, input_ids_BT], dim=1),
        "attention_mask": _inserted(mask_BT, ones_BK, starts),
        "inputs_embeds": _inserted(embedded_BTH, virtual_BKH, starts),
    }


def _inserted(rows: Tensor, parts: Tensor, starts: list[int]) -> Tensor:
    """Each row with its part put in at its start."""
    joined = [torch.cat([row[:at], part, row[at:]]) for row, part, at in zip(rows, parts, starts, strict=True)]
    return torch.stack(joined)


def _is_prefix(model: Any) -> bool:
    return bool(model.peft_config["default"].peft_type.value == "PREFIX_TUNING")


def _embeddings(model: Any, rows: int, dtype: torch.dtype) -> Tensor:
    """Computed for one row, so that the batch does not change their last bits."""
    return model.get_prompt(1).to(dtype).expand(rows, -1, -1)  # type: ignore[no-any-return]


def _prefix(model: Any, rows: int) -> Any:
    cache = model.get_prompt(1)
    cache.batch_repeat_interleave(rows)
    return cache
