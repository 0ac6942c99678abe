"""BLEU and GLEU as NLTK counts them, ROUGE as the package `rouge` 1.0.1 does, over tokens of choice.

They are written anew because NLTK 3.8.1, which the published figures name, does not run on Python 3.12, and `rouge` recurses once
for each token. The tests hold them against both packages.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 4
"""Tokens of the longest n-grams of BLEU and GLEU."""
EPSILON = 0.1
"""What NLTK's method1 puts in the place of a count of zero."""

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The n-grams that a reply has in common with its references, n from 1 to LONGEST."""

    matches: tuple[int, ...]
    """Each n-gram at most as often as the reference has it that has it most."""
    totals: tuple[int, ...]
    """The reply's n-grams; 1 where it has none, as in NLTK."""
    reply_length: int
    reference_length: int
    """Of the reference that is nearest in length, the shorter one of two."""


def bleu(reply: Tokens, references: tuple[Tokens, ...], order: int, weights: str, smoothing: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) in 0..100.

    weights: `cumulative`, the geometric mean of precisions 1 to `order`, or `individual`, the precision of `order` alone.
    smoothing: `method1` of Chen and Cherry (2014), which counts 0 matches as EPSILON, or `none`. A reply that shares no token has 0
    in any case.
    """
    found = overlap(reply, references)
    if found.matches[0] == 0:
        return 0.0
    chosen = range(order) if weights == "cumulative" else (order - 1,)
    precisions = [(found.matches[n] or (EPSILON if smoothing == "method1" else 0)) / found.totals[n] for n in chosen]
    if not all(precisions):
        return 0.0
    short = min(0.0, 1 - found.reference_length / found.reply_length)
    return 100 * math.exp(short + math.fsum(map(math.log, precisions)) / len(precisions))


@functools.lru_cache(maxsize=2**14)
def overlap(reply: Tokens, references: tuple[Tokens, ...]) -> Overlap:
    """Remembered, because a suite asks for the same pair in many variants."""
    matches, totals = [], []
    for n in range(1, LONGEST + 1):
        own = Counter(_ngrams(reply, n))
        most: Counter[Tokens] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, n))
        matches.append((own & most).total())
        totals.append(max(1, own.total()))
    nearest = min((abs(len(reference) - len(reply)), len(reference)) for reference in references)
    return Overlap(tuple(matches), tuple(totals), len(reply), nearest[1])


def gleu(reply: Tokens, references: Sequence[Tokens]) -> float:
    """Google's BLEU (Wu et al. 2016) in 0..100: the smaller of precision and recall over all n-grams of 1 to 4 tokens.

    Of several references the one that gives the most.
    """
    own = _all_ngrams(reply)
    best = 0.0
    for reference in references:
        theirs = _all_ngrams(reference)
        most = max(own.total(), theirs.total())
        best = max(best, (own & theirs).total() / most if most else 0.0)
    return 100 * best


def rouge_n(reply: Tokens, reference: Tokens, n: int, grams: str) -> float:
    """F1 of n-grams (Lin 2004) in 0..100, each counted once (`set`) or as often as it comes (`bag`)."""
    own, theirs = (_counted(_ngrams(sum(_sentences(text), ()), n), grams) for text in (reply, reference))
    return _f1((own & theirs).total(), own.total(), theirs.total())


def rouge_l(reply: Tokens, reference: Tokens, grams: str) -> float:
    """F1 of the longest common subsequences of all pairs of sentences, in 0..100.

    `set`: the distinct tokens in any of them, of the distinct tokens. `bag`: their summed lengths, of all tokens, which with
    several sentences a side can be more than the tokens there are; 100 is the most.
    """
    own, theirs = _sentences(reply), _sentences(reference)
    common: Counter[str] = Counter()
    for sentence in theirs:
        for other in own:
            common += Counter(common_subsequence(sentence, other))
    counted = (_counted(tokens, grams).total() for tokens in (common.elements(), sum(own, ()), sum(theirs, ())))
    return min(100.0, _f1(*counted))


@functools.lru_cache(maxsize=2**14)
def common_subsequence(reference: Tokens, reply: Tokens) -> Tokens:
    """The longest common subsequence; of equally long ones, the one that `rouge` finds, stepping back in the reply first."""
    lengths = _lengths(reference, reply)
    i, j, found = len(reference), len(reply), []
    while i and j:
        if reference[i - 1] == reply[j - 1]:
            found.append(reference[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1, j] > lengths[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return tuple(reversed(found))


def _lengths(reference: Tokens, reply: Tokens) -> NDArray[Any]:
    """At [i, j] the length of the longest common subsequence of the first i and the first j tokens."""
    numbers = {token: number for number, token in enumerate(dict.fromkeys((*reference, *reply)))}
    columns = np.array([numbers[token] for token in reply], dtype=np.int32)
    lengths = np.zeros((len(reference) + 1, len(reply) + 1), dtype=np.int32)
    for i, token in enumerate(reference, start=1):
        same = columns == numbers[token]
        np.maximum.accumulate(np.maximum(lengths[i - 1, 1:], lengths[i - 1, :-1] + same), out=lengths[i, 1:])
    return lengths


def _sentences(tokens: Tokens) -> list[Tokens]:
    """Cut at full stops, which `rouge` does to the tokens joined by spaces. Between two stops in a row it has an empty token."""
    pieces = " ".join(tokens).split(".")
    return [tuple(" ".join(piece.split()).split(" ")) for piece in pieces if piece]


def _ngrams(tokens: Tokens, n: int) -> list[Tokens]:
    return [tokens[start : start + n] for start in range(len(tokens) - n + 1)]


def _all_ngrams(tokens: Tokens) -> Counter[Tokens]:
    return Counter(gram for n in range(1, LONGEST + 1) for gram in _ngrams(tokens, n))


def _counted(grams: Any, how: str) -> Counter[Any]:
    return Counter(set(grams) if how == "set" else grams)


def _f1(common: int, own: int, theirs: int) -> float:
    return 200 * common / (own + theirs) if own and theirs else 0.0
