"""What a mix may get wrong before a row is read: how much of each source, language and temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from babeltune.errors import nearest, problem
from babeltune.options import DataConfig, TakeConfig

WAYS = ("count", "fraction", "weight", "tokens")


def check(data: DataConfig) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    problems = [sentence for name, take in data.take.items() for sentence in _take(name, take, data)]
    yield from problems
    if not problems:  # a sum of wrong shares says nothing
        yield from _token_shares(data)
    yield from _temperature(data)
    yield from _quota(data)


def _take(name: str, take: TakeConfig, data: DataConfig) -> Iterator[str]:
    where = f"data.take.{name}"
    if name not in data.sources:
        yield problem(where, repr(name), "a source of the mix", nearest(name, data.sources) or f"~{where}")
    chosen = {key: value for key, value in vars(take).items() if value is not None}
    if len(chosen) > 1:
        yield problem(where, " and ".join(chosen), f"one of {', '.join(WAYS[:-1])} and {WAYS[-1]}", "leaving one")
    for key, value in chosen.items():
        if not (value > 0 and math.isfinite(value)):
            yield problem(f"{where}.{key}", value, "a number above zero", "null to take every row, or leaving the source out")
    if take.tokens is not None and take.tokens > 1 and math.isfinite(take.tokens):
        yield problem(f"{where}.tokens", take.tokens, "a share of the mix's tokens, at most 1", f"{where}.tokens=0.5")


def _token_shares(data: DataConfig) -> Iterator[str]:
    shares = {name: Fraction(str(take.tokens)) for name, take in data.take.items() if take.tokens is not None}
    rest = [name for name in data.sources if name not in shares]
    if not shares:
        return
    whole = sum(shares.values())
    if rest and whole >= 1:
        left = f"less than 1, which leaves some for {', '.join(rest)}"
        yield problem(
            "data.take", f"token shares that sum to {float(whole):g}", left, "smaller shares, or a share for every source"
        )
    if not rest and whole != 1:
        hint = ", ".join(f"{name} {float(share / whole):.3g}" for name, share in shares.items())
        yield problem("data.take", f"token shares of every source that sum to {float(whole):g}", "a sum of 1", f"about {hint}")
    if data.quota:
        yield problem(
            "data.take and data.quota",
            f"token shares ({', '.join(shares)}) and limits on languages ({', '.join(data.quota)})",
            "one of them, for a limit would change the shares",
            "data.quota={} or counts in place of shares",
        )


def _temperature(data: DataConfig) -> Iterator[str]:
    if not (data.temperature >= 1 and math.isfinite(data.temperature)):
        yield problem("data.temperature", data.temperature, "1 (plain concatenation) or more", "data.temperature=2")
    if not (data.max_passes >= 1 and math.isfinite(data.max_passes)):
        yield problem("data.max_passes", data.max_passes, "1 (nothing is repeated) or more", "data.max_passes=4")
    if data.temperature == 1:
        return
    for key, given, says in (("take", data.take, "how much of each source"), ("quota", data.quota, "how much of each language")):
        if given:
            yield problem(
                f"data.temperature and data.{key}",
                f"{data.temperature:g} and {', '.join(given)}",
                f"one of them, for each says {says}",
                f"data.temperature=1 or data.{key}={{}}",
            )


def _quota(data: DataConfig) -> Iterator[str]:
    languages = {source.language for source in data.sources.values()}
    for language, count in data.quota.items():
        where = f"data.quota.{language}"
        if count < 0:
            yield problem(where, count, "0 or more rows", f"~{where} to take every row")
        if "mixed" not in languages and languages and language not in languages:
            yield problem(where, repr(language), f"a language of the mix ({', '.join(sorted(languages))})", f"~{where}")
