"""Prompts → replies, and the loss of the reference answers; in batches of like length, the same whatever the batch size."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from babeltune.data import templates
from babeltune.data.batching import Document, collate, cut
from babeltune.data.preparing import Writing
from babeltune.data.tokenizing import fit_conversation
from babeltune.evaluation.suites import answered
from babeltune.modeling.loss import causal_lm, target_losses
from babeltune.options import DecodingConfig, RunConfig
from babeltune.records import Item, Reply


def generate(
    model: Any, tokenizer: Any, items: Sequence[Item], config: RunConfig, way: Writing, tell: Callable[..., None]
) -> list[Reply]:
    """A reply to each item, in the items' order. Prompts that are too long lose tokens from their beginning."""
    prompts = [_prompt(item, way, config) for item in items]
    order = sorted(range(len(items)), key=lambda place: (len(prompts[place]), place))
    replies: dict[int, Reply] = {}
    with _evaluating(model):
        for start in range(0, len(order), config.evaluation.batch):
            places = order[start : start + config.evaluation.batch]
            for place, reply in zip(places, _batch(model, tokenizer, [items[p] for p in places], [prompts[p] for p in places], config, way), strict=True):
                replies[place] = reply
            tell("progress", phase="answering", done=len(replies), total=len(items))
    return [replies[place] for place in range(len(items))]


def reference_losses(model: Any, items: Sequence[Item], config: RunConfig, way: Writing) -> dict[str, tuple[float, int]]:
    """For each item the summed loss of its reference answer with its end mark, in nats, and the tokens it is summed over.

    An item whose answer does not fit into `data.max_tokens` is measured on the part that does; one without any is left out.
    """
    segments = [templates.render(answered(item), way.template, way.marks) for item in items]
    fitted = [
        fit_conversation(parts, ids, config.data.max_tokens)
        for parts, ids in zip(segments, way.encoder.encode(segments), strict=True)
    ]
    places = [place for place, one in enumerate(fitted) if one.rows]
    documents = [Document(np.asarray(fitted[place].rows[0].ids), np.asarray(fitted[place].rows[0].targets), place) for place in places]
    sums: dict[str, tuple[float, int]] = {}
    with _evaluating(model):
        for group in cut([len(document.ids) for document in documents], config.trainer.micro_tokens):
            batch = collate([[documents[i]] for i in group], pad_id=0).to(_device(model))
            losses_N = target_losses(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT)
            owners_N = batch.source_ids_BT[batch.labels_BT != -100]
            for place in owners_N.unique().tolist():
                own = losses_N[owners_N == place].double()
                sums[items[place].id] = (float(own.sum()), len(own))
    return sums


def _prompt(item: Item, way: Writing, config: RunConfig) -> list[int]:
    (parts,) = way.encoder.encode([templates.render_prompt(item.messages, way.template, way.marks)])
    return [token for part in parts for token in part][-config.data.max_tokens :]


def _batch(
    model: Any, tokenizer: Any, items: Sequence[Item], prompts: Sequence[Sequence[int]], config: RunConfig, way: Writing
) -> Iterator[Reply]:
    """Left-padded, so that every prompt ends where its reply starts."""
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids_BT = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask_BT = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, width - len(prompt) :] = 1
    torch.manual_seed(_seed(config.seed, items))
    device = _device(model)
    written_BT: Tensor = model.generate(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        **settings(config.decoding),
    )
    for item, row in zip(items, written_BT[:, width:].tolist(), strict=True):
        stopped = tokenizer.eos_token_id in row
        tokens = row[: row.index(tokenizer.eos_token_id)] if stopped else row
        text = way.encoder.decode(tokens, skip_special=True)
        yield Reply(item.id, text, "stop" if stopped else "length", len(tokens))


def settings(decoding: DecodingConfig) -> dict[str, Any]:
    """`generate`'s arguments. What has no effect without sampling is not passed without sampling."""
    chosen: dict[str, Any] = {
        "max_new_tokens": decoding.max_new_tokens,
        "do_sample": decoding.sample,
        "num_beams": decoding.beams,
        "repetition_penalty": decoding.repetition_penalty,
        "use_cache": True,
    }
    if decoding.min_new_tokens is not None:
        chosen["min_new_tokens"] = decoding.min_new_tokens
    if decoding.sample:
        drawn = {"temperature": decoding.temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
        chosen |= {key: value for key, value in drawn.items() if value is not None}
    return chosen


def _seed(seed: int, items: Sequence[Item]) -> int:
    """Sampling depends on the run's seed and on what is asked, not on what was asked before."""
    name = f"{seed}/reply/" + "/".join(item.id for item in items)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


def _device(model: Any) -> torch.device:
    device: torch.device = next(causal_lm(model).parameters()).device
    return device


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)
