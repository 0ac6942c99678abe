"""Questions to a judge at an endpoint: what is known is not asked, what is asked has a bound, what comes is kept at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune.data.cleaning.cache import Cache
from babeltune.endpoint import Completion, Endpoint, Outcome, Usage
from babeltune.errors import EvalError, problem
from babeltune.evaluation.judging import store
from babeltune.evaluation.judging.protocols import Asked
from babeltune.judges import EndpointJudge

log = logging.getLogger(__name__)

Place = tuple[str, str, int]
"""Item, part of the protocol, number of the judgement."""

BACKOFF = 1.0
"""First wait between tries, in seconds."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came, and what it took."""

    completions: Mapping[Place, Completion]
    kept: int
    """Questions that were answered before."""
    requests: int
    tokens: Usage
    cost: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is about to be sent. Tokens are guessed from characters: 4 ASCII ones to a token, 1.5 tokens to any other."""

    questions: int
    kept: int
    prompt_tokens: int
    answer_tokens: int
    """The most that may come back."""
    cost: float
    """The most, without repeated tries."""

    def __str__(self) -> str:
        tokens = f"about {self.prompt_tokens:,} tokens to send and at most {self.answer_tokens:,} to come (guessed from characters)"
        cost = f", {self.cost:,.2f} at most" if self.cost else ""
        return f"{self.questions:,} questions to the judge, {self.kept:,} answered before, {tokens}{cost}"


def ask(
    judge: EndpointJudge,
    asked: Mapping[Place, Asked],
    cache: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """An answer to every question, each asked until something comes of it or the tries are used up.

    Every answer is on disk before the next one is looked at; when the run is interrupted, so are those that were under way.
    Raises EvalError before the first request when more is asked than `judge.max_requests` or `judge.max_cost` allow, ConfigError
    when the endpoint refuses the key or model, ModelError when it is down.
    """
    endpoint = Endpoint(
        judge.url,
        judge.model,
        where="judge.url",
        retries=judge.retries,
        timeout=judge.timeout,
        backoff=BACKOFF,
        budget=judge.max_requests,
    )
    with endpoint, Cache(cache / store.FILE) as kept:
        keys = {place: _key(judge, endpoint.url, one, place) for place, one in asked.items()}
        known = {name: store.unpacked(value) for name, value in kept.get(set(keys.values())).items()}
        total = len(set(keys.values()))
        missing = {keys[place]: (one, place[2]) for place, one in asked.items() if keys[place] not in known}
        bound = estimate(judge, missing, len(known))
        log.info("%s", bound)
        _refuse(judge, bound)
        work = _Work(judge, endpoint, bound)

        def keep(name: str, completion: Completion) -> None:
            if store.is_kept(completion):
                kept.put({name: store.packed(completion)})
            known[name] = completion
            tell(len(known), total)

        work.run(missing, keep)
        completions = {place: known[name] for place, name in keys.items()}
        return Answers(completions, bound.kept, endpoint.sent, work.tokens, work.spent)


def estimate(judge: EndpointJudge, missing: Mapping[str, tuple[Asked, int]], kept: int) -> Estimate:
    prompt = sum(_tokens(asked) for asked, _ in missing.values())
    answers = len(missing) * judge.max_tokens
    return Estimate(len(missing), kept, prompt, answers, _cost(judge, Usage(prompt, answers)))


def _tokens(asked: Asked) -> int:
    text = asked.system + asked.user
    ascii_ = sum(character.isascii() for character in text)
    return round(ascii_ / 4 + (len(text) - ascii_) * 1.5) + 1


def _cost(judge: EndpointJudge, usage: Usage) -> float:
    return (usage.prompt * judge.prompt_price + usage.completion * judge.answer_price) / 1e6


def _options(judge: EndpointJudge, number: int) -> dict[str, Any]:
    seed = {} if judge.seed is None else {"seed": judge.seed + number}
    return {"temperature": judge.temperature, "max_tokens": judge.max_tokens, **seed}


def _key(judge: EndpointJudge, url: str, asked: Asked, place: Place) -> str:
    return store.question_key(url, judge.model, _options(judge, place[2]), asked.messages, place[2])


def _refuse(judge: EndpointJudge, bound: Estimate) -> None:
    if judge.max_requests is not None and bound.questions > judge.max_requests:
        hint = f"judge.max_requests={bound.questions} or a smaller evaluation.max_items"
        got = f"{bound.questions:,} questions to ask"
        raise EvalError(problem("judge.max_requests", got, f"at most {judge.max_requests:,}", hint))
    if judge.max_cost is not None and bound.cost > judge.max_cost:
        hint = f"judge.max_cost={bound.cost:.2f}, a smaller judge.max_tokens or evaluation.max_items"
        got = f"{bound.questions:,} questions that may cost {bound.cost:,.2f} (guessed from characters)"
        raise EvalError(problem("judge.max_cost", got, f"at most {judge.max_cost:,.2f}", hint))


class _Work:
    """`judge.concurrency` questions under way at a time. It counts what the server says it used."""

    def __init__(self, judge: EndpointJudge, endpoint: Endpoint, bound: Estimate) -> None:
        self._judge, self._endpoint = judge, endpoint
        self._each = Usage(bound.prompt_tokens // max(1, bound.questions), judge.max_tokens)
        self._lock = threading.Lock()
        self.tokens = Usage()
        self.spent = 0.0

    def run(self, missing: Mapping[str, tuple[Asked, int]], keep: Callable[[str, Completion], None]) -> None:
        """Calls `keep` with each answer as it comes; after an interruption or a failure, with those that were under way."""
        pool = ThreadPoolExecutor(self._judge.concurrency, thread_name_prefix="judge")
        futures: dict[Future[Completion], str] = {}
        given: set[Future[Completion]] = set()
        try:
            futures = {pool.submit(self._ask, asked, number): name for name, (asked, number) in missing.items()}
            for future in as_completed(futures):
                keep(futures[future], future.result())
                given.add(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future in futures.keys() - given:
                if not future.cancelled() and future.exception() is None:
                    keep(futures[future], future.result())

    def _ask(self, asked: Asked, number: int) -> Completion:
        limit = self._judge.max_cost
        with self._lock:
            is_over = limit is not None and self.spent >= limit
        if is_over:
            return Completion(Outcome.unreachable, detail=f"judge.max_cost={limit} is spent", attempts=0)
        completion = self._endpoint.chat(asked.messages, _options(self._judge, number))
        used = completion.usage
        if completion.outcome in (Outcome.answered, Outcome.truncated) and not used.prompt:
            used = self._each  # the server does not say
        with self._lock:
            self.tokens = Usage(self.tokens.prompt + used.prompt, self.tokens.completion + used.completion)
            self.spent += _cost(self._judge, used)
        return completion
