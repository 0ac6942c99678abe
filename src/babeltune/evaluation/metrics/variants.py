"""Metrics that the literature computes in several ways, and the names that choose one: `bleu_4:jieba:individual`.

A name is the metric and any of its choices after colons, in any order; what is not named is the first of each. So `bleu_4` is
`bleu_4:char:cumulative:method1`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from babeltune.evaluation.metrics import ngrams
from babeltune.evaluation.metrics.measure import Metric
from babeltune.evaluation.metrics.tokens import TOKENS, signature, tokens

CHOICES = {
    "tok": TOKENS,
    "weights": ("cumulative", "individual"),
    "smooth": ("method1", "none"),
    "grams": ("set", "bag"),
}
"""Choice to its words, the usual one first. See `ngrams` for what they mean."""

Rule = Callable[[str, Sequence[str], dict[str, str]], float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric in all its variants."""

    rule: Rule
    """Reply, references and chosen words to 0..100."""
    choices: tuple[str, ...]
    """Those of CHOICES that it has."""
    several: str = "joint"
    """What several references mean: `joint`, a rule of its own, or `best`, the one that gives the most."""

    def words(self, given: Sequence[str]) -> dict[str, str] | None:
        """The word of each choice; None when a word is of no choice, or two are of one."""
        chosen: dict[str, str] = {}
        for word in given:
            choice = next((one for one in self.choices if word in CHOICES[one]), None)
            if choice is None or choice in chosen:
                return None
            chosen[choice] = word
        return {choice: chosen.get(choice, CHOICES[choice][0]) for choice in self.choices}


def metric(name: str) -> Metric | None:
    """The metric of a name; None for a name that is no variant."""
    family, *given = name.split(":")
    if family not in FAMILIES or (words := FAMILIES[family].words(given)) is None:
        return None
    return _metric(family, FAMILIES[family], words)


def uses_jieba(name: str) -> bool:
    return "jieba" in name.split(":")[1:]


def variants(name: str) -> list[str]:
    """Every variant of a metric, spelled out.

    >>> variants("gleu")
    ['gleu:char', 'gleu:jieba', 'gleu:space']
    """
    names = [name]
    for choice in FAMILIES[name].choices:
        names = [f"{one}:{word}" for one in names for word in CHOICES[choice]]
    return names


def _metric(name: str, family: Family, words: dict[str, str]) -> Metric:
    def measure(reply: str, reference: str, language: str) -> float:
        return min(100.0, family.rule(reply, [reference], words))

    def joint(reply: str, references: Sequence[str], language: str) -> float:
        return min(100.0, family.rule(reply, references, words))

    def signed(language: str) -> str:
        chosen = "|".join(f"{choice}:{signature(word) if choice == 'tok' else word}" for choice, word in words.items())
        return f"{name}|norm:nfc|{chosen}|nrefs:1|version:1"

    return Metric(measure, signed, joint=joint if family.several == "joint" else None)


def _bleu(order: int, reply: str, references: Sequence[str], words: dict[str, str]) -> float:
    own, *others = (tokens(text, words["tok"]) for text in (reply, *references))
    return ngrams.bleu(own, tuple(others), order, words["weights"], words["smooth"])


def _gleu(reply: str, references: Sequence[str], words: dict[str, str]) -> float:
    own, *others = (tokens(text, words["tok"]) for text in (reply, *references))
    return ngrams.gleu(own, others)


def _rouge_n(n: int, reply: str, references: Sequence[str], words: dict[str, str]) -> float:
    own, other = (tokens(text, words["tok"]) for text in (reply, references[0]))
    return ngrams.rouge_n(own, other, n, words["grams"])


def _rouge_l(reply: str, references: Sequence[str], words: dict[str, str]) -> float:
    own, other = (tokens(text, words["tok"]) for text in (reply, references[0]))
    return ngrams.rouge_l(own, other, words["grams"])


FAMILIES: dict[str, Family] = {
    **{f"bleu_{n}": Family(functools.partial(_bleu, n), ("tok", "weights", "smooth")) for n in range(1, ngrams.LONGEST + 1)},
    "gleu": Family(_gleu, ("tok",)),
    **{f"rouge_{n}": Family(functools.partial(_rouge_n, n), ("tok", "grams"), several="best") for n in (1, 2)},
    "rouge_l": Family(_rouge_l, ("tok", "grams"), several="best"),
}
"""`rouge_l` without a choice is not of these but `library.rouge_l`, whose tokens follow the language."""
