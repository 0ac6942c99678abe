"""Replies → verdicts, by whichever judge the config names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from babeltune.data.cleaning.cache import key
from babeltune.endpoint import Completion, Outcome
from babeltune.errors import EvalError, problem
from babeltune.evaluation.judging import files, naming, protocols, running, scores, wording
from babeltune.evaluation.judging.protocols import PARTS, VERSIONS, Asked, Way
from babeltune.evaluation.judging.running import Place
from babeltune.evaluation.judging.verdicts import Judgement, combine
from babeltune.judges import PAIRWISE, EndpointJudge, RecordedJudge, RewardJudge
from babeltune.options import RunConfig
from babeltune.records import Conversation, Item, Message, Reply, Score, Verdict

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of every reply."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """By item; empty when there is no judge but the references."""
    protocol: str = ""
    signature: str = ""
    """Judge, protocol and its version, digest of the words, repetitions, orders. Part of the signature of each score."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Counts of outcomes, requests, tokens and cost, and a `label` where too few were scored."""

    def scores(self, suite: str, items: Sequence[Item], replies: Sequence[Reply]) -> tuple[list[Score], list[Score]]:
        """Those of a suite without scores of its own, and what tells how far the judge can be trusted."""
        if not self.verdicts:
            return [], []
        own = scores.own(suite, self.protocol, items, self.verdicts, self.signature)
        return own, scores.about(suite, items, replies, self.verdicts, self.signature)


def judge(
    config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], cache: Path, tell: Progress = lambda done, total: None
) -> Judged:
    """Ask the configured judge about every reply. `cache` is a folder that stays: what was answered once is kept there.

    Raises EvalError when more replies than `judge.max_unreachable` stay without an answer, when a budget would not do, or for
    files that do not fit the suite; ConfigError and ModelError as `running.ask` does.
    """
    match config.judge:
        case EndpointJudge() as one:
            return _by_endpoint(one, config, items, replies, cache, tell)
        case RewardJudge() as one:
            verdicts = _by_reward(one, items, replies, cache, tell)
            return Judged(verdicts, "reward", signature(config, items), _facts(verdicts))
        case RecordedJudge() as one:
            verdicts = files.recorded(one, items)
            return Judged(verdicts, one.protocol, signature(config, items), _facts(verdicts))
    return Judged()


def signature(config: RunConfig, items: Sequence[Item]) -> str:
    """How the configured judge's verdicts on these items are made; empty without a judge. Suites put it into their own scores'."""
    match config.judge:
        case EndpointJudge() as one:
            other = files.replies(naming.against(one.against, config.evaluation.name), items) if one.protocol in PAIRWISE else {}
            marks = {
                "words": _words(one, items),
                "fence": one.fence,
                **({"digit": one.digit} if one.protocol == "impact" else {}),
                **({"against": key(sorted(other.items()))[:8], "orders": 2} if other else {}),
                "judgements": one.n_judgements,
                "temperature": one.temperature,
                "max_tokens": one.max_tokens,
                **({} if one.seed is None else {"seed": one.seed}),
            }
            said = "|".join(f"{name}:{value}" for name, value in marks.items())
            return f"judge:{one.model}|{one.protocol}:{VERSIONS[one.protocol]}|{said}"
        case RewardJudge() as one:
            digest = key(naming.parts(one, config.evaluation.name, Path(config.paths.outputs) / ".cache"))[:8]
            return f"judge:reward|{digest}|max_tokens:{one.max_tokens}|raw"
        case RecordedJudge() as one:
            digest = key(naming.parts(one, config.evaluation.name, Path(config.paths.outputs) / ".cache"))[:8]
            return f"judge:recorded|{digest}|{one.protocol}:{VERSIONS[one.protocol]}"
    return ""


def _words(judge: EndpointJudge, items: Sequence[Item]) -> str:
    """A digest of everything that is said around questions and replies, over the kinds of items there are."""
    way, published = _way(judge), _published(judge)
    blanks = {(item.category, item.facts.get("judge_prompt"), bool(item.reference)) for item in items}
    said = []
    for category, prompt, has_reference in sorted(blanks, key=repr):
        facts = {} if prompt is None else {"judge_prompt": prompt}
        blank = Item("", (Message("user", "Q"),), "R" if has_reference else "", category, "", facts=facts)
        said += [asked.messages for asked in protocols.questions(way, blank, "A", "B", published).values()]
    return key(said)[:8]


def _way(judge: EndpointJudge) -> Way:
    return Way(judge.protocol, judge.markers, judge.fence, judge.digit)


def _published(judge: EndpointJudge) -> dict[str, wording.Words]:
    return wording.read(Path(judge.prompts).expanduser()) if judge.prompts else {}


def _by_endpoint(
    one: EndpointJudge, config: RunConfig, items: Sequence[Item], replies: Sequence[Reply], cache: Path, tell: Progress
) -> Judged:
    way, published = _way(one), _published(one)
    said = {reply.item: reply.text for reply in replies}
    others = files.replies(naming.against(one.against, config.evaluation.name), items) if one.protocol in PAIRWISE else {}
    asked: dict[Place, Asked] = {}
    for item in items:
        for part, question in protocols.questions(way, item, said[item.id], others.get(item.id), published).items():
            asked |= {(item.id, part, number): question for number in range(one.n_judgements)}
    answers = running.ask(one, asked, cache, tell)
    verdicts = {}
    for item in items:
        judgements = {
            part: [
                _judgement(way, item, asked[item.id, part, number], answers.completions[item.id, part, number])
                for number in range(one.n_judgements)
            ]
            for part in PARTS[one.protocol]
        }
        verdict = combine(one.protocol, item.id, judgements)
        if item.id in others:
            lengths = [len(said[item.id]), len(others[item.id])]
            verdict = replace(verdict, facts={**verdict.facts, "characters": lengths})
        verdicts[item.id] = verdict
    _check_reached(one, verdicts)
    used = {"questions_kept": answers.kept, "requests": answers.requests, "cost": round(answers.cost, 6)}
    used |= {"prompt_tokens": answers.tokens.prompt, "answer_tokens": answers.tokens.completion}
    return Judged(verdicts, one.protocol, signature(config, items), _facts(verdicts) | used)


def _judgement(way: Way, item: Item, asked: Asked, completion: Completion) -> Judgement:
    text = completion.text.encode("utf-8", "replace").decode()  # half a pair of surrogates is JSON, and no file takes it
    match completion.outcome:
        case Outcome.answered:
            values = protocols.values(way, item.category, text, asked)
            if values is None:
                return Judgement("unparsable", text=text, detail="no verdict in the judge's words")
            return Judgement("scored", values, text)
        case Outcome.truncated:
            return Judgement("truncated", text=text, detail=completion.detail)
        case Outcome.refused:
            return Judgement("refused", text=text, detail=completion.detail)
    return Judgement("unreachable", detail=completion.detail)  # nothing came, or nothing that a chat model sends


def _check_reached(one: EndpointJudge, verdicts: Mapping[str, Verdict]) -> None:
    lost = [verdict for verdict in verdicts.values() if verdict.outcome == "unreachable"]
    if len(lost) > one.max_unreachable * len(verdicts):
        got = f"no answer about {len(lost):,} of {len(verdicts):,} replies ({lost[0].facts['detail']})"
        hint = "again, which asks only for what is missing, or judge.max_unreachable=1 to leave them out"
        raise EvalError(problem("judge.max_unreachable", got, f"at most {one.max_unreachable:.0%} of them", hint))


def _by_reward(
    one: RewardJudge, items: Sequence[Item], replies: Sequence[Reply], cache: Path, tell: Progress
) -> dict[str, Verdict]:
    """The reward of each reply to its question, as MedChatZH's reward_score.py asks for it."""
    from babeltune.data.cleaning import models
    from babeltune.data.cleaning.kinds import Place as Workplace
    from babeltune.data.cleaning.running import Named

    asked = Named("judge.model", one.model, one.revision, one.dtype, "any sequence classifier with one output, a folder or hub id")
    said = {reply.item: reply.text for reply in replies}
    corpus = [
        Conversation((Message("user", protocols.asked_text(item)), Message("assistant", said[item.id])), "", item.language, item.id)
        for item in items
    ]
    place = Workplace(scratch=cache, cache=cache, tokenizer=lambda path: None, progress=tell)
    prefix = (models.REWARDS, asked.identity(place), one.max_tokens)
    values = models.scores(
        corpus, models.asked_and_answered, prefix, lambda: models.rewards(asked, one.max_tokens, one.batch), one.batch, place
    )
    return {item.id: Verdict(item.id, "scored", float(value), "") for item, value in zip(items, values, strict=True)}


def _facts(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    counts = scores.outcomes(verdicts.values())
    label = scores.label(counts)
    if label:
        log.warning("%s", label)
    return {"outcomes": counts, "label": label}
