"""Does a paper's ordering hold among our cells, and is each difference more than another seed would make?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from babeltune import statistics
from babeltune.papers.finding import Ours
from babeltune.tables import number


@dataclass(frozen=True, slots=True)
class Entry:
    """One figure of the paper with ours."""

    label: str
    reported: float
    ours: Ours
    times: float
    """What of ours is multiplied by."""
    digits: int
    """Decimals of the paper's figure."""
    own_digits: int


def notes(entries: Sequence[Entry], pairs: Sequence[tuple[Entry, Entry]]) -> Iterator[str]:
    """A sentence for each pair that was measured alike, the later entry first; then what seeds alone do.

    Seeds are pooled over all entries measured alike, and p-values adjusted for the table's other pairs (Holm).
    """
    for measured in dict.fromkeys(one.ours.measured for one in entries):
        alike = [one for one in entries if one.ours.measured == measured and one.ours.items is not None]
        asked = [(a, b) for a, b in pairs if a in alike and b in alike]
        if asked:
            yield from _alike(alike, asked)


def _alike(entries: Sequence[Entry], pairs: Sequence[tuple[Entry, Entry]]) -> Iterator[str]:
    matrices = statistics.aligned(*(list(one.ours.items or ()) for one in entries))
    values = {id(one): matrix * one.times for one, matrix in zip(entries, matrices, strict=True)}
    cells = {tuple(result.cell for result in one.ours.results): values[id(one)] for one in entries}
    seeds = statistics.pooled_seed_variance(list(cells.values()))
    found = [(a, b, statistics.paired_difference(values[id(b)], values[id(a)], seeds)) for a, b in pairs]
    known = [(a, b, difference) for a, b, difference in found if difference is not None]
    adjusted = statistics.holm([difference.p_value for _, _, difference in known])
    floor = statistics.noise_floor(seeds, min(len(one.ours.judged) for one in entries))
    for (first, second, difference), p_value in zip(known, adjusted, strict=True):
        yield _sentence(first, second, difference, p_value, floor)
    digits = max(one.own_digits for one in entries)
    if floor is None:
        yield "one seed each: intervals cover the choice of items, not that of seeds; add seed=0,1,2"
    else:
        yield f"seeds alone move a difference by up to {number(floor, digits=digits)} (95 %)"


def _sentence(first: Entry, second: Entry, difference: statistics.Difference, p_value: float, floor: float | None) -> str:
    paper, own, digits = second.reported - first.reported, difference.interval, second.own_digits
    if p_value >= 0.05:
        word = "not told apart here"
    else:
        better = first.ours.score.higher_is_better
        word = "the same order here" if ((own.value > 0) == better) == (paper > 0) else "the opposite order here"
    if floor is not None:
        word += f", {'more' if abs(own.value) > floor else 'no more'} than seeds alone make"
    spread = f"{number(own.low, sign=True, digits=digits)} … {number(own.high, sign=True, digits=digits)}"
    return (
        f"{second.label} against {first.label}: paper {number(paper, sign=True, digits=second.digits)}, "
        f"ours {number(own.value, sign=True, digits=digits)} ({spread}): {word}"
    )
