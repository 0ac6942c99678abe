"""Items with labels → which label is the likeliest to come next, and how likely each is."""

# B prompts of a batch, L labels, V vocabulary

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from babeltune.data.preparing import Writing
from babeltune.errors import EvalError, problem
from babeltune.evaluation.generating import by_length, evaluating, padded, prompt_ids, room
from babeltune.evaluation.keeping import Kept, Running
from babeltune.modeling.loss import causal_lm
from babeltune.modeling.virtual import generation_inputs, num_virtual
from babeltune.options import RunConfig
from babeltune.records import Item, Reply


def choose(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    config: RunConfig,
    way: Writing,
    tell: Callable[..., None],
    kept: Kept | None = None,
) -> list[Reply]:
    """For each item, in the items' order, its likeliest label (of equally likely ones the first) and each label's log-probability.

    A label's probability is that of the first of its tokens that tells the labels apart, out of the whole vocabulary, in nats.
    """
    lm = causal_lm(model)
    prompts = prompt_ids(items, way, tokenizer.bos_token_id, room(lm, config, num_virtual(model)))
    ids = {labels: label_ids(labels, tokenizer) for labels in {item.labels for item in items}}
    order = by_length(prompts)
    size = config.evaluation.batch
    running = Running(items, [order[start : start + size] for start in range(0, len(order), size)], kept, tell)
    with evaluating(lm):
        for places in running.missing():
            logprobs_BV = _next(model, [prompts[place] for place in places], tokenizer)
            running.add(
                [
                    _chosen(items[place], logprobs_V[ids[items[place].labels]].tolist())
                    for place, logprobs_V in zip(places, logprobs_BV, strict=True)
                ]
            )
    return running.replies()


def label_ids(labels: Sequence[str], tokenizer: Any) -> list[int]:
    """The token of each label, as it is written alone, that the others do not have at its place.

    Raises EvalError when two labels begin alike, or one is the beginning of another.
    """
    written = [list(tokenizer(label, add_special_tokens=False).input_ids) for label in labels]
    common = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*written, strict=False)))
    found = [ids[common] for ids in written if len(ids) > common]
    if len(set(found)) != len(labels):
        shown = ", ".join(map(repr, labels))
        raise EvalError(problem("labels", shown, "labels that differ in one token", "another tokenizer or other labels"))
    return found


def _next(model: Any, prompts: Sequence[list[int]], tokenizer: Any) -> Tensor:
    """The log-probability of every token after each prompt."""
    from transformers import GenerationConfig

    lm = causal_lm(model)
    ids_BT, mask_BT = padded(prompts, lm.device)
    settings = GenerationConfig(
        max_new_tokens=1, pad_token_id=tokenizer.eos_token_id, output_logits=True, return_dict_in_generate=True, use_cache=True
    )
    written = lm.generate(**generation_inputs(model, ids_BT, mask_BT, beams=1), generation_config=settings)
    logits_BV: Tensor = written.logits[0]
    return logits_BV.double().log_softmax(-1)


def _chosen(item: Item, logprobs: list[float]) -> Reply:
    best = max(range(len(logprobs)), key=lambda place: logprobs[place])
    return Reply(item.id, item.labels[best], "stop", 1, tuple(logprobs))
