"""Prompts → replies, and the loss of the reference answers; in batches of like length, the same whatever the batch size."""

# B prompts of a batch, T tokens of the longest, S tokens of a reply, V vocabulary

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from babeltune.data import templates
from babeltune.data.preparing import Writing
from babeltune.data.rows import IGNORED, Document, one_by_one
from babeltune.data.tokenizing import fit_conversation
from babeltune.errors import EvalError, problem
from babeltune.evaluation import suites
from babeltune.evaluation.keeping import Kept, Running
from babeltune.evaluation.suites import answered, benchmarks
from babeltune.modeling import attention
from babeltune.modeling.loss import causal_lm, target_losses
from babeltune.modeling.virtual import generation_inputs, num_virtual
from babeltune.options import DecodingConfig, RunConfig
from babeltune.records import Item, Message, Reply

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ends:
    """What a model may end a reply with."""

    ids: frozenset[int]
    text: str
    """A template's end mark that is ordinary text to the tokenizer; empty when the mark is one of the ids."""


def generate(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    config: RunConfig,
    way: Writing,
    tell: Callable[..., None],
    kept: Kept | None = None,
) -> list[Reply]:
    """A reply to each item, in the items' order. Batches whose replies are `kept` are not asked again.

    Prompts that are too long lose worked examples from their end, then tokens from their beginning; the log counts them.
    What is drawn at random depends on the run's seed and the item alone.
    """
    lm = causal_lm(model)
    ends = end_marks(lm, tokenizer, way)
    prompts = prompt_ids(items, way, tokenizer.bos_token_id, room(lm, config, num_virtual(model)))
    order = by_length(prompts)
    verbatim = suites.suite(config).verbatim
    size = 1 if config.decoding.sample and config.decoding.beams > 1 else config.evaluation.batch  # beams draw from one generator
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    running = Running(items, batches, kept, tell)
    with evaluating(lm):
        for places in running.missing():
            written = _batch(model, [items[place].id for place in places], [prompts[place] for place in places], config, ends)
            running.add(
                [_reply(items[place].id, tokens, ends, way, verbatim) for place, tokens in zip(places, written, strict=True)]
            )
    return running.replies()


def reference_losses(model: Any, items: Sequence[Item], config: RunConfig, way: Writing) -> dict[str, tuple[float, int]]:
    """For each item the summed loss of its reference answer with its end mark, in nats, and the tokens it is summed over.

    An item whose answer does not fit into `data.max_tokens` is measured on the part that does; one without any is left out, and so
    is one that is bare text, which no answer in the template follows.
    """
    items = [item for item in items if item.messages[-1].role != "text"]
    segments = [templates.render(answered(item), way.template, way.marks) for item in items]
    fitted = [
        fit_conversation(parts, ids, config.data.max_tokens)
        for parts, ids in zip(segments, way.encoder.encode(segments), strict=True)
    ]
    documents = [Document(row.ids, row.targets, place) for place, one in enumerate(fitted) for row in one.rows]
    lm = causal_lm(model)
    totals = torch.zeros(len(items), dtype=torch.float64, device=lm.device)
    kind = attention.choose(model, config)
    with evaluating(lm), attention.attending(model, kind):
        for one in one_by_one(documents, attention.rowing(model, kind, config.trainer.accelerator), config.trainer.micro_tokens):
            batch = one.to(lm.device)
            losses_N = target_losses(
                model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT, batch.clusters
            )
            totals.index_add_(0, batch.source_ids_BT[batch.labels_BT != IGNORED], losses_N.double())
    return {
        items[document.source].id: (total, int(document.targets.sum()))
        for document, total in zip(documents, totals[[document.source for document in documents]].tolist(), strict=True)
    }


def end_marks(lm: Any, tokenizer: Any, way: Writing) -> Ends:
    """The tokenizer's end mark, those that the model's `generation_config.json` lists, and the one that the template writes.

    A listed id counts only when the tokenizer has a special token there: configs of fresh models list ids of other tokenizers.
    """
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    listed = lm.generation_config.eos_token_id
    listed = {listed} if isinstance(listed, int) else set(listed or ())
    mark, ids = _closing(way)
    known = ids[-1] in special
    chosen = {tokenizer.eos_token_id, *(listed & special), *(ids[-1:] if known else ())}
    return Ends(frozenset(chosen), "" if known else mark)


def _closing(way: Writing) -> tuple[str, list[int]]:
    """What the template writes after an answer, as text and as ids."""
    if isinstance(way.template, templates.Plain):
        shown = templates.render((Message("text", "a"),), way.template, way.marks)
    else:
        shown = templates.render((Message("user", "a"), Message("assistant", "b")), way.template, way.marks)
    (ids,) = way.encoder.encode([shown])
    last = max(place for place, segment in enumerate(shown) if segment.is_target)
    return shown[last].text, ids[last]


def room(lm: Any, config: RunConfig, num_virtual: int) -> int:
    """The longest prompt, in tokens: `evaluation.prompt_tokens` or else `data.max_tokens`, or what the reply and trained tokens
    leave of the model's positions."""
    most = config.evaluation.prompt_tokens or config.data.max_tokens
    positions: int | None = getattr(lm.config, "max_position_embeddings", None)
    if positions is None:
        return most
    left = min(most, positions - config.decoding.max_new_tokens - num_virtual)
    if left <= 0:
        got, expected = config.decoding.max_new_tokens, f"fewer than the {positions} positions of {config.model.name}"
        hint = f"decoding.max_new_tokens={positions // 2}"
        raise EvalError(problem("decoding.max_new_tokens", got, expected, hint))
    return left


def prompt_ids(items: Sequence[Item], way: Writing, bos: int | None, room: int) -> list[list[int]]:
    """The ids up to where each reply starts: of the ways to put an item the longest that fits, or the end of the shortest."""
    ways = [list(benchmarks.prompts(item)) for item in items]
    whole = _encoded([messages[0] for messages in ways], way)
    chosen = [0] * len(items)
    while long := [place for place, ids in enumerate(whole) if len(ids) > room and chosen[place] + 1 < len(ways[place])]:
        for place in long:
            chosen[place] += 1
        for place, ids in zip(long, _encoded([ways[place][chosen[place]] for place in long], way), strict=True):
            whole[place] = ids
    num_fewer, num_cut = sum(map(bool, chosen)), sum(len(ids) > room for ids in whole)
    if num_fewer:
        log.info("%d of %d prompts have fewer worked examples, to fit into %d tokens", num_fewer, len(items), room)
    if num_cut:
        log.warning("%d of %d prompts are longer than %d tokens and lose their beginning", num_cut, len(items), room)
    return [_end_of(ids, bos, room) for ids in whole]


def by_length(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Places of prompts, the shortest first."""
    return sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), place))


def _encoded(conversations: Sequence[Sequence[Message]], way: Writing) -> list[list[int]]:
    laid_out = [templates.render_prompt(messages, way.template, way.marks) for messages in conversations]
    return [[token for part in parts for token in part] for parts in way.encoder.encode(laid_out)]


def _end_of(ids: list[int], bos: int | None, room: int) -> list[int]:
    """The last tokens of a prompt that fit, its begin mark kept."""
    if len(ids) <= room:
        return ids
    return [bos, *ids[len(ids) - room + 1 :]] if ids[0] == bos else ids[len(ids) - room :]


def _batch(model: Any, names: Sequence[str], prompts: Sequence[list[int]], config: RunConfig, ends: Ends) -> list[list[int]]:
    """The tokens written after each prompt. Left-padded, so that every prompt ends where its reply starts.

    Padding repeats a row's first token: it is not seen, but `repetition_penalty` reads it.
    """
    from transformers import GenerationConfig

    lm = causal_lm(model)
    ids_BT, mask_BT = padded(prompts, lm.device)
    marks = sorted(ends.ids)
    settings = GenerationConfig(**decoding_settings(config.decoding), pad_token_id=marks[0], eos_token_id=marks)
    torch.manual_seed(_seed(config.seed, names[0]))  # for beams, which draw for one prompt at a time
    inputs = generation_inputs(model, ids_BT, mask_BT, config.decoding.beams)
    width = inputs["input_ids"].shape[1]
    written_BT: Tensor = lm.generate(**inputs, generation_config=settings, logits_processor=_drawing(config, names, width))
    written: list[list[int]] = written_BT[:, width:].tolist()
    return written


def padded(prompts: Sequence[list[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Left-padded ids, and where they are real."""
    width = max(map(len, prompts))
    ids_BT = torch.tensor([prompt[:1] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    return ids_BT, torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)


def decoding_settings(decoding: DecodingConfig) -> dict[str, Any]:
    """The fields of transformers' GenerationConfig. What a config leaves open is off here; there, sampling keeps 50 tokens.

    Sampling without beams is not among them: see `_drawing`.
    """
    chosen: dict[str, Any] = {
        "max_new_tokens": decoding.max_new_tokens,
        "min_new_tokens": decoding.min_new_tokens,
        "num_beams": decoding.beams,
        "repetition_penalty": decoding.repetition_penalty,
        "no_repeat_ngram_size": decoding.no_repeat_ngram or 0,
        "do_sample": decoding.sample and decoding.beams > 1,
        "use_cache": True,
    }
    if chosen["do_sample"]:
        chosen |= {"temperature": decoding.temperature or 1.0, "top_k": decoding.top_k or 0, "top_p": decoding.top_p or 1.0}
    return chosen


def _drawing(config: RunConfig, names: Sequence[str], width: int) -> Any:
    """Steps that leave one token of each row, in place of transformers' sampling, which draws for all rows together."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    decoding = config.decoding
    steps = LogitsProcessorList()
    if not decoding.sample or decoding.beams > 1:
        return steps
    if decoding.temperature:
        steps.append(TemperatureLogitsWarper(decoding.temperature))
    if decoding.top_k:
        steps.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p:
        steps.append(TopPLogitsWarper(decoding.top_p))
    generators = [torch.Generator().manual_seed(_seed(config.seed, name)) for name in names]
    steps.append(Draw(torch.stack([torch.rand(decoding.max_new_tokens, generator=one) for one in generators]), width))
    return steps


class Draw:
    """Picks each row's next token with the row's own random number; a row's neighbours do not change what it gets."""

    def __init__(self, numbers_BS: Tensor, width: int) -> None:
        self._numbers_BS = numbers_BS
        self._width = width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._width
        sums_BV = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
        points_B1 = self._numbers_BS[:, step : step + 1].to(sums_BV) * sums_BV[:, -1:]
        drawn_B1 = torch.searchsorted(sums_BV, points_B1, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn_B1, 0.0)


def _reply(item: str, tokens: Sequence[int], ends: Ends, way: Writing, verbatim: bool) -> Reply:
    """The reply in a row of tokens: what comes before the first end mark, without special tokens and, unless `verbatim`, without
    outer white space."""
    end = next((place for place, token in enumerate(tokens) if token in ends.ids), None)
    text = way.encoder.decode(tokens[:end], skip_special=True)
    mark = ""
    if ends.text:
        text, mark, _ = text.partition(ends.text)
    return Reply(item, text if verbatim else text.strip(), "length" if end is None and not mark else "stop", len(tokens[:end]))


def _seed(seed: int, item: str) -> int:
    """Sampling depends on the run's seed and on what is asked, not on what was asked before."""
    return int.from_bytes(hashlib.sha256(f"{seed}/reply/{item}".encode()).digest()[:8]) >> 1


@contextlib.contextmanager
def evaluating(lm: Any) -> Iterator[None]:
    """No dropout, no gradients, and none of the sampling settings that a model brings in its own `generation_config.json`."""
    from transformers import GenerationConfig

    was_training, own = lm.training, lm.generation_config
    lm.eval()
    lm.generation_config = GenerationConfig()
    try:
        with torch.no_grad():
            yield
    finally:
        lm.generation_config = own
        lm.train(was_training)
