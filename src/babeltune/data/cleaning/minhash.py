"""MinHash signatures of texts, whole batches at a time, and the bands that bring like ones together.

The chance that two sets have the same smallest hash is their Jaccard index (Broder 1997), so the share of equal entries in two
signatures estimates it. Rows of the signature form bands; texts that agree in one whole band are compared (Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, 3.4). A library that hashes each n-gram on its own takes a hundred times as long.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# N texts, W all n-grams of all of them, P permutations, B bands, R rows of a signature in a band

Words = NDArray[np.uint32]

MISSED = 0.01
"""The largest chance, for a pair exactly at the threshold, to share no band."""
_GOLDEN = 0x9E3779B97F4A7C15
_STEP = np.uint64(0x100000001B3)


@dataclass(frozen=True, slots=True)
class Bands:
    """How a signature is cut."""

    count: int
    rows: int

    def chance(self, similarity: float) -> float:
        """That two texts of this Jaccard index share a band: 1 − (1 − s^R)^B."""
        return float(1 - (1 - similarity**self.rows) ** self.count)


def bands_for(threshold: float, permutations: int) -> Bands:
    """The most rows in a band, so the fewest comparisons, with which at most `MISSED` of the pairs at the threshold are missed.

    >>> bands_for(0.8, 128)
    Bands(count=21, rows=6)
    """
    choices = (Bands(permutations // rows, rows) for rows in range(permutations, 0, -1))
    return next((bands for bands in choices if bands.chance(threshold) >= 1 - MISSED), Bands(permutations, 1))


def grams(text: str, characters: int) -> frozenset[str]:
    """What is compared: the n-grams of a text; of one shorter than four n-grams the whole, which is like nothing but itself."""
    if len(text) < 4 * characters:
        return frozenset([text])
    return frozenset(text[start : start + characters] for start in range(len(text) - characters + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared elements over all elements.

    >>> jaccard(frozenset("abc"), frozenset("bcd"))
    0.5
    """
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def slack(threshold: float, permutations: int) -> float:
    """Four standard deviations of the estimate at the threshold."""
    return 4 * math.sqrt(threshold * (1 - threshold) / permutations)


def signatures(texts: Sequence[str], characters: int, permutations: int) -> Words:
    """[N, P]: of each text, the smallest hash of its `grams` under each permutation. No text is empty."""
    hashes, starts = _hashed(texts, characters)
    shuffled = np.empty_like(hashes)
    found = np.empty((permutations, len(texts)), np.uint32)
    for row, (factor, shift) in enumerate(_permutations(permutations)):
        np.multiply(hashes, factor, out=shuffled)
        np.add(shuffled, shift, out=shuffled)
        np.minimum.reduceat(shuffled, starts, out=found[row])
    return np.ascontiguousarray(found.T)


def band_keys(signatures_NP: Words, bands: Bands) -> Words:
    """[N, B]: a number for each band of each text. Texts that agree in the band have the same; others by chance, 1 in 2^32."""
    count, rows = bands.count, bands.rows
    cut = signatures_NP[:, : count * rows].reshape(-1, count, rows).astype(np.uint64)
    factors = _mixed(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)
    return (_mixed((cut * factors).sum(axis=2, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32)


def _hashed(texts: Sequence[str], characters: int) -> tuple[Words, NDArray[np.int64]]:
    """The hashes [W] of the n-grams of all texts, one after the other, and where each text's begin."""
    lengths = np.array([len(text) for text in texts], np.int64)
    points = np.frombuffer(("".join(texts) + "\0" * characters).encode("utf-32-le", "surrogatepass"), np.uint32)
    total = int(lengths.sum())
    rolled = np.zeros(total, np.uint64)
    for place in range(characters):
        rolled *= _STEP
        rolled += points[place : place + total]
    hashes = (_mixed(rolled) >> np.uint64(32)).astype(np.uint32)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    is_short = lengths < 4 * characters
    for number in np.flatnonzero(is_short).tolist():
        whole = hashlib.blake2b(texts[number].encode("utf-8", "surrogatepass"), digest_size=4).digest()
        hashes[begins[number]] = int.from_bytes(whole, "little")
    counts = np.where(is_short, 1, lengths - characters + 1)
    within = np.arange(total) - np.repeat(begins, lengths)
    starts = np.cumsum(counts) - counts
    return hashes[within < np.repeat(counts, lengths)], starts


def _permutations(count: int) -> list[tuple[np.uint32, np.uint32]]:
    """x -> factor · x + shift modulo 2^32, factor odd: the same on every machine and with every version of numpy."""
    words = (_mixed(np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)) >> np.uint64(32)).astype(np.uint32)
    return list(zip(words[:count] | np.uint32(1), words[count:], strict=True))


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input changes half of the output's."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
