"""What a well-typed cleaning step may still get wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from babeltune.errors import nearest, problem
from babeltune.steps import (
    PERSONAL,
    LanguageStep,
    NearStep,
    PerplexityStep,
    PersonalStep,
    RewardStep,
    SemanticStep,
    StepConfig,
    TranslateStep,
)

WORDS = {
    "reward.scale": ("raw", "sigmoid"),
    "language.unknown": ("keep", "drop"),
    "language.on_mixed": ("keep", "drop"),
    "personal.action": ("mask", "remove_reply", "drop"),
    "translate.backend": ("seq2seq", "endpoint", "file"),
    "semantic.dtype": ("float32", "bfloat16"),
    "perplexity.dtype": ("float32", "bfloat16"),
    "reward.dtype": ("float32", "bfloat16"),
}
"""Keys, by kind, that take one of a few words."""

POSITIVE = (
    "batch",
    "max_tokens",
    "characters",
    "permutations",
    "min_characters",
    "repeated_digits",
    "min_tokens",
    "top",
    "beams",
    "timeout",
    "max_requests",
    "same_letters",
)
"""Keys that are above zero, of whatever kind."""
SHARES = {"near": ("threshold",), "semantic": ("threshold",), "language": ("confidence", "mixed"), "translate": ("max_failed",)}
"""Keys, by kind, that are a share from 0 to 1."""


def check(where: str, steps: Mapping[str, StepConfig]) -> Iterator[str]:
    """A sentence for each thing that is wrong with a pipeline; `where` is the config key that it stands under."""
    for name, step in steps.items():
        at = f"{where}.{name}"
        yield from _ranges(at, step)
        yield from _words(at, step)
        yield from _own(at, step)


def _ranges(at: str, step: StepConfig) -> Iterator[str]:
    for key, value in vars(step).items():
        if key in POSITIVE and value is not None and not value > 0:
            yield problem(f"{at}.{key}", value, "a number above zero", f"{at}.{key}=1")
        if key in SHARES.get(step.kind, ()) and not (math.isfinite(value) and 0 <= value <= 1):
            yield problem(f"{at}.{key}", value, "a share from 0 to 1", f"{at}.{key}=0.8")
    retries = getattr(step, "retries", 0)
    if retries < 0:
        yield problem(f"{at}.retries", retries, "0 or more", f"{at}.retries=3")


def _words(at: str, step: StepConfig) -> Iterator[str]:
    for known, words in WORDS.items():
        kind, key = known.split(".")
        value = getattr(step, key, None)
        if step.kind == kind and value not in words:
            yield problem(f"{at}.{key}", repr(value), f"one of {', '.join(words)}", f"{at}.{key}={nearest(str(value), words, 1)}")


def _own(at: str, step: StepConfig) -> Iterator[str]:
    """What only one kind can get wrong."""
    match step:
        case SemanticStep() | PerplexityStep() | RewardStep() if not step.model:
            yield problem(f"{at}.model", "nothing", "a folder or hub id of a model", f"{at}.model=FOLDER")
    match step:
        case PerplexityStep() if not 0 <= step.low < step.high <= 100:
            yield problem(
                f"{at}.low and .high", f"{step.low} and {step.high}", "two rising percentiles", f"{at}.low=0 {at}.high=95"
            )
        case PersonalStep():
            for kind in step.kinds:
                if kind not in PERSONAL:
                    words = f"some of {', '.join(PERSONAL)}"
                    yield problem(f"{at}.kinds", repr(kind), words, f"{at}.kinds=[{nearest(kind, PERSONAL, 1)}]")
        case LanguageStep():
            for tag in step.keep:
                if not (tag.isalpha() and tag.islower() and len(tag) in (2, 3)):
                    yield problem(f"{at}.keep", repr(tag), "short tags of languages: zh, vi, en", f"{at}.keep=[zh,en]")
        case NearStep() if step.threshold == 0:
            yield problem(f"{at}.threshold", 0, "a share above zero, or every two texts are one", f"{at}.threshold=0.8")
        case TranslateStep():
            yield from _translate(at, step)


def _translate(at: str, step: TranslateStep) -> Iterator[str]:
    if not step.target:
        yield problem(f"{at}.target", "nothing", "the short tag of a language", f"{at}.target=vi")
    needed = {"seq2seq": ("model",), "endpoint": ("model", "url"), "file": ("file",)}.get(step.backend, ())
    for key in needed:
        if not getattr(step, key):
            yield problem(f"{at}.{key}", "nothing", f"a value for backend={step.backend}", f"{at}.{key}=VALUE")
