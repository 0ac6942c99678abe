"""What the options of a judge may get wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

from babeltune.errors import nearest, problem
from babeltune.judges import PAIRWISE, PROTOCOLS, EndpointJudge, RecordedJudge, RewardJudge
from babeltune.options import JudgeConfig, RunConfig

WORDS = {
    "protocol": PROTOCOLS,
    "markers": ("paper", "fastchat"),
    "digit": ("first", "last"),
    "fence": ("nonce", "plain"),
    "dtype": ("float32", "bfloat16"),
}
"""Keys that take one of a few words."""
POSITIVE = ("n_judgements", "max_tokens", "concurrency", "timeout", "max_requests", "max_cost", "batch")
FROM_ZERO = ("temperature", "retries", "prompt_price", "answer_price")
NEEDED = {
    "url": "the endpoint's address, up to and with /v1",
    "model": "a model to judge by",
    "file": "a file of verdicts",
}


def check(config: RunConfig) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    judge = config.judge
    yield from _values(judge)
    match judge:
        case EndpointJudge():
            yield from _needed(judge, "model", "url")
            yield from _endpoint(judge)
        case RewardJudge():
            yield from _needed(judge, "model")
        case RecordedJudge():
            yield from _needed(judge, "file")


def _values(judge: JudgeConfig) -> Iterator[str]:
    for key, value in vars(judge).items():
        where = f"judge.{key}"
        if key in WORDS and value not in WORDS[key]:
            words = WORDS[key]
            yield problem(where, repr(value), f"one of {', '.join(words)}", f"{where}={nearest(str(value), words, 1)}")
        if key in POSITIVE and value is not None and not (value > 0 and math.isfinite(value)):
            yield problem(where, value, "a number above zero", f"{where}=1")
        if key in FROM_ZERO and not (value >= 0 and math.isfinite(value)):
            yield problem(where, value, "0 or more", f"{where}=0")
        if key == "max_unreachable" and not 0 <= value <= 1:
            yield problem(where, value, "a share from 0 to 1", f"{where}=0.02")


def _needed(judge: JudgeConfig, *keys: str) -> Iterator[str]:
    for key in keys:
        if not getattr(judge, key):
            yield problem(f"judge.{key}", "nothing", NEEDED[key], f"judge.{key}={key.upper()}")


def _endpoint(judge: EndpointJudge) -> Iterator[str]:
    if judge.protocol in PAIRWISE and not judge.against:
        expected = "the replies that judge.protocol=vicuna compares with"
        yield problem("judge.against", "nothing", expected, "judge.against=FOLDER of another cell, or a file of replies")
    if judge.protocol in PROTOCOLS and judge.protocol not in PAIRWISE and judge.against:
        expected = f"nothing with judge.protocol={judge.protocol}, which looks at one reply"
        yield problem("judge.against", repr(judge.against), expected, "judge.against=''")
    if judge.max_cost is not None and not (judge.prompt_price or judge.answer_price):
        hint = "judge.prompt_price=PRICE judge.answer_price=PRICE"
        yield problem("judge.max_cost", judge.max_cost, "prices per million tokens to count by", hint)
