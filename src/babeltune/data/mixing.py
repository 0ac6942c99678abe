"""How many rows of each source make a mix, and which."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from babeltune.errors import ConfigError, DataError, nearest, problem
from babeltune.options import DataConfig, TakeConfig


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The usable rows of one source."""

    source: str
    languages: npt.NDArray[np.str_]
    """The language of each row, in the source's order."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The rows of one epoch that come from one source."""

    source: str
    indices: npt.NDArray[np.int64]
    """Places in the pool, ascending. A repeated row appears as often as it is trained on."""
    asked: str
    """`all`, `count 500`, `fraction 0.5`, `weight 2`."""


def mix(pools: Sequence[Pool], data: DataConfig, seed: int) -> list[Taken]:
    """What one epoch takes of each pool, in the pools' order.

    Each source's rows stand in one random order that depends on (seed, source) alone, repeated as often as needed; each
    limit takes from its start. So a source that joins the mix never changes which rows of another come first, a larger
    count contains the smaller, and no row comes a third time before every row has come twice.
    """
    _check(pools, data)
    counts = _counts(pools, data.take)
    orders = [_order(pool, count, seed) for pool, count in zip(pools, counts, strict=True)]
    for language, most in sorted(data.quota.items()):
        orders = _cut(pools, orders, most, language)
    if data.max_rows is not None:
        orders = _cut(pools, orders, data.max_rows)
    if not sum(len(order) for order in orders):
        raise DataError(problem("data", "a mix of no rows", "at least one", "a larger data.max_rows or data.quota"))
    return [
        Taken(pool.source, np.sort(order), asked(data.take.get(pool.source))) for pool, order in zip(pools, orders, strict=True)
    ]


def asked(take: TakeConfig | None) -> str:
    """What a mix asks of a source, in words."""
    if take is None:
        return "all"
    return ", ".join(f"{name} {_short(value)}" for name, value in _given(take).items()) or "all"


def _short(number: float) -> str:
    return str(number).removesuffix(".0")


def apportion(total: int, shares: Sequence[Fraction | int]) -> list[int]:
    """`total` in whole numbers in the proportion of `shares`: by largest remainder, the earlier first among equals.

    >>> apportion(10, [1, 1, 1])
    [4, 3, 3]
    """
    whole = sum(shares)
    exact = [Fraction(total) * share / whole for share in shares]
    counts = [math.floor(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _counts(pools: Sequence[Pool], takes: dict[str, TakeConfig]) -> list[int]:
    counts = {}
    weights: dict[str, Fraction] = {}
    for pool in pools:
        take = takes.get(pool.source, TakeConfig())
        if take.count is not None:
            counts[pool.source] = take.count
        elif take.fraction is not None:
            counts[pool.source] = math.floor(_exact(take.fraction) * len(pool.languages) + Fraction(1, 2))
        elif take.weight is not None:
            weights[pool.source] = _exact(take.weight)
        else:
            counts[pool.source] = len(pool.languages)
    counts |= _weighted({pool.source: len(pool.languages) for pool in pools}, weights)
    for source, count in counts.items():
        if count == 0:
            got = f"{asked(takes.get(source))}, which is less than one row"
            hint = "a larger share or leaving the source out"
            raise DataError(problem(f"data.take.{source}", got, "at least one row", hint))
    return [counts[pool.source] for pool in pools]


def _weighted(sizes: dict[str, int], weights: dict[str, Fraction]) -> dict[str, int]:
    """As many rows in these proportions as no source has to repeat."""
    if not weights:
        return {}
    whole = sum(weights.values())
    total = min(math.floor(sizes[source] * whole / weight) for source, weight in weights.items())
    return dict(zip(weights, apportion(total, list(weights.values())), strict=True))


def _exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(number))


def _order(pool: Pool, count: int, seed: int) -> npt.NDArray[np.int64]:
    """`count` rows of the pool: whole passes, then the start of another, all in the same random order."""
    size = len(pool.languages)
    order = _generator(seed, "mix", pool.source).permutation(size)
    return np.resize(order, count).astype(np.int64)


def _generator(seed: int, purpose: str, source: str) -> np.random.Generator:
    name = hashlib.sha256(f"{seed}/{purpose}/{source}".encode()).digest()
    return np.random.default_rng(int.from_bytes(name[:16], "big"))


def _cut(
    pools: Sequence[Pool], orders: Sequence[npt.NDArray[np.int64]], most: int, language: str | None = None
) -> list[npt.NDArray[np.int64]]:
    """The orders shortened to `most` rows in all (of one language, if named), each source and language alike."""
    tags = [pool.languages[order] for pool, order in zip(pools, orders, strict=True)]
    groups = [(place, tag) for place, own in enumerate(tags) for tag in sorted(set(own.tolist())) if language in (None, tag)]
    sizes = [int(np.count_nonzero(tags[place] == tag)) for place, tag in groups]
    if sum(sizes) <= most:
        return list(orders)
    keep = [np.ones(len(order), dtype=np.bool_) for order in orders]
    for (place, tag), count in zip(groups, apportion(most, sizes), strict=True):
        keep[place][np.flatnonzero(tags[place] == tag)[count:]] = False
    return [order[kept] for order, kept in zip(orders, keep, strict=True)]


def _check(pools: Sequence[Pool], data: DataConfig) -> None:
    problems = [*_unknown(pools, data), *_out_of_range(data)]
    if problems:
        raise ConfigError("\n".join(problems))
    for pool in pools:
        if len(pool.languages) == 0:
            hint = "looking at the reasons of its drops in the log, or leaving the source out"
            raise DataError(problem(f"data.sources.{pool.source}", "no usable rows", "at least one", hint))
    if not pools:
        raise DataError(problem("data.sources", "no sources", "at least one", "data=NAME of a mix in conf/data"))


def _unknown(pools: Sequence[Pool], data: DataConfig) -> Iterable[str]:
    sources = {pool.source for pool in pools}
    for name in data.take:
        if name not in sources:
            yield problem("data.take", repr(name), "a source of the mix", nearest(name, sources))
    languages = {str(tag) for pool in pools for tag in np.unique(pool.languages)}
    languages |= {source.language for source in data.sources.values()}
    for tag in data.quota:
        if tag not in languages:
            yield problem("data.quota", repr(tag), "a language of the mix", nearest(tag, languages))


def _out_of_range(data: DataConfig) -> Iterable[str]:
    for name, take in data.take.items():
        given = _given(take)
        if len(given) > 1:
            yield problem(f"data.take.{name}", asked(take), "one of count, fraction and weight", "leaving one")
        for key, value in given.items():
            if not (value > 0 and math.isfinite(value)):
                yield problem(f"data.take.{name}.{key}", value, "a number above zero", "null to take every row")
    for tag, most in data.quota.items():
        if most < 0:
            yield problem(f"data.quota.{tag}", most, "a count", "leaving the language out to take every row")
    if data.max_rows is not None and data.max_rows < 1:
        yield problem("data.max_rows", data.max_rows, "a positive count", "null to take every row")


def _given(take: TakeConfig) -> dict[str, float]:
    settings = {"count": take.count, "fraction": take.fraction, "weight": take.weight}
    return {key: value for key, value in settings.items() if value is not None}
