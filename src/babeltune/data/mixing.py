"""How many rows of each source make a mix, and which.

What a config may get wrong by itself is refused where it is composed (`babeltune.checks`); here is refused what only the rows show.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from babeltune.errors import ConfigError, DataError, nearest, problem
from babeltune.options import DataConfig, TakeConfig, TemperatureOver

Rows = NDArray[np.int32]
"""Places in a pool."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The usable rows of one source, in the source's order."""

    source: str
    language_names: tuple[str, ...]
    languages: NDArray[np.uint16]
    """The language of each row, as its place in `language_names`."""
    lengths: NDArray[np.int32]
    """Tokens of each row."""

    def __len__(self) -> int:
        return len(self.languages)


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The rows of one epoch that come from one source."""

    source: str
    indices: Rows
    """Places in the pool, ascending. A repeated row appears as often as it is trained on."""
    asked: str
    """`all`, `count 500`, `fraction 0.5`, `weight 2`, `tokens 0.3`, `temperature 2`, `temperature 2 over languages`."""


def mix(pools: Sequence[Pool], data: DataConfig, seed: int) -> list[Taken]:
    """What one epoch takes of each pool, in the pools' order.

    Each source's rows stand in one random order that depends on (seed, source) alone, repeated as often as needed; each
    limit takes from its start. So a source that joins the mix never changes which rows of another come first, a larger
    count contains the smaller, and no row comes a third time before every row has come twice (with a temperature over
    languages: every row of its language).
    """
    _refuse(pools, data)
    orders = [_shuffled(pool, seed) for pool in pools]
    if data.temperature != 1 and data.temperature_over is TemperatureOver.language:
        orders = _tempered_languages(pools, orders, data)
    else:
        counts = _tempered_sources(pools, data) if data.temperature != 1 else _counts(pools, orders, data)
        orders = [np.resize(order, count) for order, count in zip(orders, counts, strict=True)]
    for language, most in sorted(data.quota.items()):
        orders = _cut(pools, orders, most, language)
    if data.max_rows is not None:
        orders = _cut(pools, orders, data.max_rows)
    if not sum(len(order) for order in orders):
        raise DataError(problem("data", "a mix of no rows", "at least one", "a larger data.max_rows or data.quota"))
    for order in orders:
        order.sort()
    return [Taken(pool.source, order, asked(data, pool.source)) for pool, order in zip(pools, orders, strict=True)]


def asked(data: DataConfig, source: str) -> str:
    """What a mix asks of a source, in words."""
    if data.temperature != 1:
        over = " over languages" if data.temperature_over is TemperatureOver.language else ""
        return f"temperature {_short(data.temperature)}{over}"
    take = data.take.get(source, TakeConfig())
    return next((f"{name} {_short(value)}" for name, value in vars(take).items() if value is not None), "all")


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


def tempered(sizes: Sequence[int], temperature: float) -> list[int]:
    """The sum of `sizes` in shares in proportion to size^(1 / temperature).

    1 leaves the sizes as they are; the higher, the more alike they become. The formula is that of Arivazhagan et al. (2019,
    arXiv:1907.05019); XLM-R (arXiv:1911.02116) and mT5 (arXiv:2010.11934) write alpha for 1 / temperature.

    >>> tempered([900, 100], 2)
    [750, 250]
    """
    return apportion(sum(sizes), [Fraction(size ** (1 / temperature)) for size in sizes])


def _counts(pools: Sequence[Pool], orders: Sequence[Rows], data: DataConfig) -> list[int]:
    takes = {pool.source: data.take.get(pool.source, TakeConfig()) for pool in pools}
    counts = {}
    for pool in pools:
        take = takes[pool.source]
        if take.count is not None:
            counts[pool.source] = take.count
        elif take.fraction is not None:
            counts[pool.source] = math.floor(_exact(take.fraction) * len(pool) + Fraction(1, 2))
        elif take.weight is None and take.tokens is None:
            counts[pool.source] = len(pool)
    weights = {source: _exact(take.weight) for source, take in takes.items() if take.weight is not None}
    counts |= _weighted({pool.source: len(pool) for pool in pools}, weights)
    shares = {source: _exact(take.tokens) for source, take in takes.items() if take.tokens is not None}
    counts |= _token_shares(pools, orders, counts, shares)
    for pool in pools:
        if counts[pool.source] == 0:
            got = f"{asked(data, pool.source)}, which is less than one row"
            raise DataError(
                problem(f"data.take.{pool.source}", got, "at least one row", "a larger share or leaving the source out")
            )
        if pool.source in shares:
            _bound(f"data.take.{pool.source}", asked(data, pool.source), "", counts[pool.source], len(pool), data)
    return [counts[pool.source] for pool in pools]


def _weighted(sizes: Mapping[str, int], weights: Mapping[str, Fraction]) -> dict[str, int]:
    """As many rows in these proportions as no source has to repeat."""
    if not weights:
        return {}
    whole = sum(weights.values())
    total = min(math.floor(sizes[source] * whole / weight) for source, weight in weights.items())
    return dict(zip(weights, apportion(total, list(weights.values())), strict=True))


def _token_shares(
    pools: Sequence[Pool], orders: Sequence[Rows], counts: Mapping[str, int], shares: Mapping[str, Fraction]
) -> dict[str, int]:
    """Rows that hold these shares of all tokens of the mix, each to the nearest row.

    `counts` are the rows of the sources that have no share: their tokens are the rest of the mix. Where every source has one, the
    mix is as large as no source has to repeat a row for.
    """
    if not shares:
        return {}
    ends = {
        pool.source: np.cumsum(pool.lengths[order], dtype=np.int64)
        for pool, order in zip(pools, orders, strict=True)
        if pool.source in shares or pool.source in counts
    }
    if counts:
        rest = sum(_tokens(ends[source], count) for source, count in counts.items())
        total = rest / (1 - Fraction(sum(shares.values())))
    else:
        total = min(int(ends[source][-1]) / share for source, share in shares.items())
    return {source: _nearest_row(ends[source], total * share) for source, share in shares.items()}


def _tokens(ends: NDArray[np.int64], count: int) -> int:
    """Tokens of the first `count` rows of an order that starts again when it is through. `ends` are its running totals."""
    passes, rest = divmod(count, len(ends))
    return passes * int(ends[-1]) + (int(ends[rest - 1]) if rest else 0)


def _nearest_row(ends: NDArray[np.int64], tokens: Fraction) -> int:
    """How many rows come nearest to so many tokens; of two as near, the fewer."""
    passes, rest = divmod(tokens, int(ends[-1]))
    row = int(np.searchsorted(ends, math.floor(rest), side="right"))
    below = int(ends[row - 1]) if row else 0
    return int(passes) * len(ends) + row + (int(ends[row]) - rest < rest - below)


def _tempered_sources(pools: Sequence[Pool], data: DataConfig) -> list[int]:
    counts = tempered([len(pool) for pool in pools], data.temperature)
    for pool, count in zip(pools, counts, strict=True):
        _bound("data.temperature", _short(data.temperature), f" of {pool.source}", count, len(pool), data)
    return counts


def _tempered_languages(pools: Sequence[Pool], orders: Sequence[Rows], data: DataConfig) -> list[Rows]:
    """The rows of each language in tempered number, drawn from all its sources alike."""
    sizes = [_sizes(pool) for pool in pools]
    languages = sorted({language for own in sizes for language in own})
    whole = [sum(own.get(language, 0) for own in sizes) for language in languages]
    counts: list[dict[str, int]] = [{} for _ in pools]
    for language, size, count in zip(languages, whole, tempered(whole, data.temperature), strict=True):
        _bound("data.temperature", _short(data.temperature), f" in {language}", count, size, data)
        parts = apportion(count, [own.get(language, 0) for own in sizes])
        for own, part in zip(counts, parts, strict=True):
            own[language] = part
    repeated = []
    for pool, order, there, wanted in zip(pools, orders, sizes, counts, strict=True):
        passes = max(-(-wanted[language] // size) for language, size in there.items())
        repeated.append(_firsts(pool, np.resize(order, passes * len(order)), wanted))
    return repeated


def _bound(where: str, got: str, whose: str, count: int, size: int, data: DataConfig) -> None:
    """Refuse to repeat rows more often than `data.max_passes` allows."""
    if count > _exact(data.max_passes) * size:
        passes = count / size
        raise DataError(
            problem(
                where,
                f"{got}, which is {passes:.1f} passes over the {size:,} rows{whose}",
                f"at most {_short(data.max_passes)} (data.max_passes)",
                f"a smaller value or data.max_passes={math.ceil(passes)}",
            )
        )


def _cut(pools: Sequence[Pool], orders: Sequence[Rows], most: int, language: str | None = None) -> list[Rows]:
    """The orders shortened to `most` rows in all (of one language, if named), each source and language alike."""
    sizes: dict[tuple[int, str], int] = {}
    for place, (pool, order) in enumerate(zip(pools, orders, strict=True)):
        own = _sizes(pool, order)
        sizes |= {(place, tag): own[tag] for tag in sorted(own) if language in (None, tag)}
    if sum(sizes.values()) <= most:
        return list(orders)
    counts: list[dict[str, int]] = [{} for _ in pools]
    for (place, tag), count in zip(sizes, apportion(most, list(sizes.values())), strict=True):
        counts[place][tag] = count
    return [_firsts(pool, order, own) for pool, order, own in zip(pools, orders, counts, strict=True)]


def _sizes(pool: Pool, rows: Rows | slice = slice(None)) -> dict[str, int]:
    """How many of these rows there are in each language that has some."""
    counts = np.bincount(pool.languages[rows], minlength=len(pool.language_names)).tolist()
    return {language: count for language, count in zip(pool.language_names, counts, strict=True) if count}


def _firsts(pool: Pool, order: Rows, counts: Mapping[str, int]) -> Rows:
    """The order with the first `counts[language]` rows of each language that has a count, and all of the others."""
    tags = pool.languages[order]
    keep = np.ones(len(order), dtype=np.bool_)
    for code, language in enumerate(pool.language_names):
        if language in counts:
            keep[np.flatnonzero(tags == code)[counts[language] :]] = False
    return order[keep]


def _shuffled(pool: Pool, seed: int) -> Rows:
    """Every row of the pool once, in an order that depends on the seed and the source's name alone."""
    order = np.arange(len(pool), dtype=np.int32)
    _generator(seed, "mix", pool.source).shuffle(order)
    return order


def _generator(seed: int, purpose: str, source: str) -> np.random.Generator:
    name = hashlib.sha256(f"{seed}/{purpose}/{source}".encode()).digest()
    return np.random.default_rng(int.from_bytes(name[:16], "big"))


def _exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(number))


def _short(number: float) -> str:
    return str(number).removesuffix(".0")


def _refuse(pools: Sequence[Pool], data: DataConfig) -> None:
    if not pools:
        raise DataError(problem("data.sources", "no sources", "at least one", "data=NAME of a mix in conf/data"))
    for pool in pools:
        if len(pool) == 0:
            hint = "looking at the reasons of its drops in the log, or leaving the source out"
            raise DataError(problem(f"data.sources.{pool.source}", "no usable rows", "at least one", hint))
    languages = {language for pool in pools for language in pool.language_names}
    languages |= {source.language for source in data.sources.values()}
    unknown = [language for language in data.quota if language not in languages]
    if unknown:
        hint = nearest(unknown[0], languages)
        raise ConfigError(
            problem(f"data.quota.{unknown[0]}", "no row in it", f"a language of the mix ({', '.join(sorted(languages))})", hint)
        )
