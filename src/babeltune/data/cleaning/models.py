"""Steps that ask a model about each conversation: what it means, how strange it is, how good."""

# B texts of a batch, T tokens, H width of an embedding, N conversations

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from babeltune.data.cleaning import running
from babeltune.data.cleaning.cache import Cache, key
from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, dropped, text_of
from babeltune.data.cleaning.running import Loaded, Named, load
from babeltune.errors import ConfigError, ModelError, problem
from babeltune.records import Conversation
from babeltune.steps import PerplexityStep, RewardStep, SemanticStep

Vectors = NDArray[np.float32]
Scorer = Callable[[Sequence[str]], list[float | None]]
"""Texts to numbers; None for a text that has none."""

ROUNDING = 1e-6
"""A cosine this much below the threshold counts as at it: the same text in another batch differs by as much."""
REWARDS = "reward 1"
"""What rewards are kept under, with the model, the most tokens and the text."""
BLOCK = 1024
"""Conversations compared at a time: with BLOCK * 16 kept ones in one product."""


def semantic(step: SemanticStep, place: Place) -> CorpusStep:
    """Of conversations whose embeddings have a cosine of at least the threshold, the first stays.

    Each is compared with every earlier one that stays, so nothing is missed and nothing depends on chance. That costs N * kept * H
    multiplications: 50,000 rows of 384 numbers are a trillion, seconds on a GPU and about a minute on a CPU; a million rows are 400
    times that. N * H * 4 bytes are on disk; memory does not grow with N.
    """
    asked = running.named(step, "any transformers encoder, a folder or hub id")
    if not 0 < step.threshold <= 1:
        got, where = step.threshold, running.option(step, "threshold")
        raise ConfigError(problem(where, got, "a cosine above 0 and up to 1", f"{where}=0.95"))

    def run(corpus: Corpus) -> Iterator[Outcome]:
        if not len(corpus):
            return
        loaded = load(asked, "AutoModel", unused=("pooler",))
        loaded.check(step.max_tokens)
        vectors_NH = _embeddings(corpus, loaded, step, place)
        twin_of, cosines = _twins(vectors_NH, step.threshold, loaded.device)
        named = set(twin_of[twin_of >= 0].tolist())
        places: dict[int, str] = {}
        for number, conversation in enumerate(corpus):
            if number in named:
                places[number] = conversation.place
            if twin_of[number] < 0:
                yield conversation
            else:
                detail = f"{places[int(twin_of[number])]}, cosine {cosines[number]:.3f}"
                yield dropped(conversation, "same meaning", detail)

    return run


def _embeddings(corpus: Corpus, loaded: Loaded, step: SemanticStep, place: Place) -> Vectors:
    """One row of length 1 for each conversation, in a file; a conversation without text has zeros, and is like no other."""
    model = loaded.model.get_encoder() if loaded.model.config.is_encoder_decoder else loaded.model
    done = cut = 0

    def embed(rows: list[Sequence[int]]) -> list[Vectors]:
        ids_BT, mask_BT = running.padded(rows, running.pad_id(loaded.tokenizer, rows), loaded.device)
        hidden_BTH = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state.float()
        mean_BH = (hidden_BTH * mask_BT[..., None]).sum(1) / mask_BT.sum(1, keepdim=True)
        unit_BH = torch.nn.functional.normalize(mean_BH, dim=-1)
        _refuse_nan(bool(torch.isfinite(unit_BH).all()), loaded)
        return list(unit_BH.cpu().numpy())

    width = len(running.in_batches([running.encode(loaded.tokenizer, "a")], 1, embed)[0])
    shape = (len(corpus), width)
    vectors_NH: Vectors = np.lib.format.open_memmap(place.scratch / "embeddings.npy", mode="w+", dtype=np.float32, shape=shape)
    for window in running.windows(corpus, step.batch * running.WINDOW_BATCHES):
        texts = [text_of(conversation) for conversation in window]
        spoken = [number for number, text in enumerate(texts) if text.strip()]
        rows = [running.encode(loaded.tokenizer, texts[number], step.max_tokens) for number in spoken]
        cut += sum(len(row) == step.max_tokens for row in rows)
        made = running.in_batches(rows, step.batch, embed)
        for number, vector in zip(spoken, made, strict=True):
            vectors_NH[done + number] = vector
        done += len(window)
        place.progress(done, len(corpus))
    place.report |= {"width": width, "compared_by_their_beginning": cut}
    return vectors_NH


def _twins(vectors_NH: Vectors, threshold: float, device: torch.device) -> tuple[NDArray[np.int64], Vectors]:
    """For each row the first kept row that is so near, or -1, and their cosine. The kept rows' vectors move to the file's front."""
    count = len(vectors_NH)
    twin_of, cosines = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    kept: list[int] = []
    for start in range(0, count, BLOCK):
        block_BH = torch.from_numpy(np.array(vectors_NH[start : start + BLOCK])).to(device)
        twins, near = twin_of[start : start + BLOCK], cosines[start : start + BLOCK]
        for first in range(0, len(kept), BLOCK * 16):
            others = np.array(vectors_NH[first : min(len(kept), first + BLOCK * 16)])
            similar = (block_BH @ torch.from_numpy(others).to(device).T).cpu().numpy()
            _mark(similar, np.array(kept[first : first + BLOCK * 16]), threshold, twins, near)
        similar = (block_BH @ block_BH.T).cpu().numpy()
        for row in range(len(twins)):
            if twins[row] < 0:
                _mark(similar[row + 1 :, row : row + 1], np.array([start + row]), threshold, twins[row + 1 :], near[row + 1 :])
                vectors_NH[len(kept)] = block_BH[row].cpu().numpy()
                kept.append(start + row)
    return twin_of, cosines


def _mark(similar: Vectors, kept: NDArray[np.int64], threshold: float, twins: NDArray[np.int64], near: Vectors) -> None:
    """Write down for each row of `similar` that has no twin yet the first kept column that is at least the threshold."""
    is_near = similar >= threshold - ROUNDING
    rows = np.flatnonzero(is_near.any(1) & (twins < 0))
    columns = is_near[rows].argmax(1)
    twins[rows], near[rows] = kept[columns], similar[rows, columns]


def perplexity(step: PerplexityStep, place: Place) -> CorpusStep:
    """Conversations stay whose perplexity lies between two percentiles of the corpus, both of them included.

    Perplexity is exp of the mean loss of a text's tokens: all but the first, or all where the model has a mark for the
    beginning. Languages have different perplexities under the same model, and so percentiles of their own (`per_language`). A
    text with nothing to predict stays, counted as unjudged. Losses are kept: another band asks the model nothing.
    """
    asked = running.named(step, "any causal language model, a folder or hub id")
    if not 0 <= step.low < step.high <= 100:
        got, where = f"{step.low} to {step.high}", running.option(step, "low")
        raise ConfigError(problem(where, got, "percentiles from 0 to 100, low below high", f"{where}=0"))

    def run(corpus: Corpus) -> Iterator[Outcome]:
        prefix = ("perplexity 1", asked.identity(place), step.max_tokens)
        losses = scores(corpus, lambda one: [text_of(one)], prefix, lambda: _losses(asked, step), step.batch, place)
        bands = _bands(losses, [_group(one, step) for one in corpus], step, place)
        for conversation, loss in zip(corpus, losses.tolist(), strict=True):
            low, high = bands.get(_group(conversation, step), (loss, loss))
            if math.isnan(loss) or low <= loss <= high:
                yield conversation
            else:
                detail = f"{_exp(loss):.4g}, not in {_exp(low):.4g} to {_exp(high):.4g}"
                yield dropped(conversation, "perplexity too low" if loss < low else "perplexity too high", detail)

    return run


def _group(conversation: Conversation, step: PerplexityStep) -> str:
    return conversation.language if step.per_language else "all"


def _bands(losses: NDArray[np.float64], groups: list[str], step: PerplexityStep, place: Place) -> dict[str, tuple[float, float]]:
    """Language to the losses at the two percentiles."""
    bands = {}
    facts: dict[str, Any] = {}
    names = np.array(groups, object)
    for group in sorted(set(groups)):
        judged = losses[(names == group) & ~np.isnan(losses)]
        if len(judged):
            low, middle, high = np.percentile(judged, [step.low, 50, step.high]).tolist()
            bands[group] = (low, high)
            facts[group] = {"judged": len(judged), "low": _exp(low), "median": _exp(middle), "high": _exp(high)}
    place.report |= {"perplexity": facts, "unjudged": int(np.isnan(losses).sum())}
    return bands


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _losses(asked: Named, step: PerplexityStep) -> Scorer:
    """Texts to the mean loss of their tokens, in nats."""
    loaded = load(asked, "AutoModelForCausalLM")
    loaded.check(step.max_tokens)
    begin = loaded.tokenizer.bos_token_id

    def encode(text: str) -> list[int]:
        ids = running.encode(loaded.tokenizer, text, special=False)
        return [*([] if begin is None else [begin]), *ids][: step.max_tokens]

    def lose(rows: list[Sequence[int]]) -> list[float]:
        ids_BT, mask_BT = running.padded(rows, running.pad_id(loaded.tokenizer, rows), loaded.device)
        logits_BTV = loaded.model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        means = []
        for ids_T, logits_TV, row in zip(ids_BT, logits_BTV, rows, strict=True):  # float32 of all at once would double the memory
            end = len(row)
            means.append(torch.nn.functional.cross_entropy(logits_TV[: end - 1].float(), ids_T[1:end]))
        losses = torch.stack(means)
        _refuse_nan(bool(torch.isfinite(losses).all()), loaded)
        return [float(one) for one in losses.tolist()]

    def score(texts: Sequence[str]) -> list[float | None]:
        rows = [encode(text) for text in texts]
        long = [number for number, row in enumerate(rows) if len(row) > 1]
        found = dict(zip(long, running.in_batches([rows[number] for number in long], step.batch, lose), strict=True))
        return [found.get(number) for number in range(len(texts))]

    return score


def reward(step: RewardStep, place: Place) -> CorpusStep:
    """Conversations stay whose worst answer a reward model gives at least the threshold.

    Each answer is judged with its own question, as `Human:{q}\\n\\nAssistant:{a}` and the end mark. A conversation without a
    question and an answer stays, counted as unjudged. Rewards are kept: another threshold asks the model nothing.
    """
    asked = running.named(step, "any sequence classifier with one output, a folder or hub id")
    if step.scale not in ("raw", "sigmoid"):
        where = running.option(step, "scale")
        raise ConfigError(problem(where, repr(step.scale), "one of raw, sigmoid", f"{where}=raw"))

    def run(corpus: Corpus) -> Iterator[Outcome]:
        prefix = (REWARDS, asked.identity(place), step.max_tokens)
        worst = scores(corpus, asked_and_answered, prefix, lambda: rewards(asked, step.max_tokens, step.batch), step.batch, place)
        if step.scale == "sigmoid":
            worst = 0.5 * (1.0 + np.tanh(0.5 * worst))  # 1 / (1 + exp(-x)) without overflow
        judged = worst[~np.isnan(worst)]
        spread = np.percentile(judged, [0, 25, 50, 75, 100]).tolist() if len(judged) else []
        place.report |= {"reward_quartiles": spread, "unjudged": int(np.isnan(worst).sum())}
        for conversation, value in zip(corpus, worst.tolist(), strict=True):
            if value < step.threshold:  # never for what is not a number
                yield dropped(conversation, "low reward", f"{value:.4g}")
            else:
                yield conversation

    return run


def asked_and_answered(conversation: Conversation) -> list[str]:
    """Each question with its answer, as MedChatZH's reward_score.py writes them."""
    pairs = zip(conversation.messages, conversation.messages[1:], strict=False)
    return [
        "Human:" + "\n".join(part for part in (question.text, question.input) if part) + f"\n\nAssistant:{answer.text}"
        for question, answer in pairs
        if (question.role, answer.role) == ("user", "assistant")
    ]


def rewards(asked: Named, max_tokens: int, batch: int) -> Scorer:
    """What a reward model gives to texts of `asked_and_answered`. Raises ModelError for a model that is none."""
    loaded = load(asked, "AutoModelForSequenceClassification")
    outputs = loaded.model.config.num_labels
    if outputs != 1:
        raise ModelError(problem(asked.where, f"{asked.path} with {outputs} outputs", asked.expected, "a reward model"))
    loaded.check(max_tokens)
    end = loaded.tokenizer.eos_token_id

    def encode(text: str) -> list[int]:
        ids = running.encode(loaded.tokenizer, text)
        if end is None:
            return ids[:max_tokens]
        body = ids[:-1] if ids and ids[-1] == end else ids
        return [*body[: max_tokens - 1], end]

    def judge(rows: list[Sequence[int]]) -> list[float | None]:
        pad = running.pad_id(loaded.tokenizer, rows)
        loaded.model.config.get_text_config().pad_token_id = pad
        ids_BT, mask_BT = running.padded(rows, pad, loaded.device)
        values = loaded.model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float()
        _refuse_nan(bool(torch.isfinite(values).all()), loaded)
        return [float(one) for one in values.tolist()]

    return lambda texts: running.in_batches([encode(text) for text in texts], batch, judge)


def scores(
    corpus: Corpus,
    texts_of: Callable[[Conversation], list[str]],
    prefix: tuple[object, ...],
    scorer: Callable[[], Scorer],
    batch: int,
    place: Place,
) -> NDArray[np.float64]:
    """The lowest number of each conversation's texts; not a number where there is none.

    What is in the cache is not asked for, and the model is loaded only when something is.
    """
    made = np.full(len(corpus), math.nan)
    done = 0
    score: Scorer | None = None
    asked = 0
    with Cache(place.cache / "scores.sqlite") as cache:
        for window in running.windows(corpus, batch * running.WINDOW_BATCHES):
            texts = [texts_of(conversation) for conversation in window]
            keys = [[key(*prefix, text) for text in row] for row in texts]
            texts_by_key = {one: text for row, names in zip(texts, keys, strict=True) for one, text in zip(names, row, strict=True)}
            known = cache.get(texts_by_key)
            missing = [one for one in texts_by_key if one not in known]
            if missing:
                score = score or scorer()
                fresh = dict(zip(missing, score([texts_by_key[one] for one in missing]), strict=True))
                cache.put(fresh)
                known |= fresh
                asked += len(missing)
            lowest = [min((known[one] for one in names if known[one] is not None), default=math.nan) for names in keys]
            made[done : done + len(window)] = lowest
            done += len(window)
            place.progress(done, len(corpus))
    place.report["asked"] = asked
    return made


def _refuse_nan(is_finite: bool, loaded: Loaded) -> None:
    if not is_finite:
        got = f"{loaded.model.config._name_or_path} whose outputs are no finite numbers"
        raise ModelError(problem(loaded.where, got, "a model that is sound in its precision", "dtype=float32"))
