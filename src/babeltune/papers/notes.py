"""What is said below a paper's table."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Callable, Iterator, Sequence

import yaml

from babeltune.config import CONF
from babeltune.papers import ordering, recomputing
from babeltune.papers.figures import Sheet, interval
from babeltune.papers.finding import Ours, Several
from babeltune.papers.ordering import Entry
from babeltune.papers.recipes import overrides
from babeltune.papers.spec import Row
from babeltune.results import RunResult
from babeltune.tables import number

FOLDERS = 6
"""The most folders that a note names."""


def notes(sheet: Sheet, about: str, footnotes: Sequence[str]) -> Iterator[str]:
    """In order: where the table is from, footnotes, what is ours, whether orderings hold, how to read it, what is missing."""
    spec = sheet.spec
    yield about
    yield f"paper: {spec.measure}"
    yield from (f"[{place}] {note}" for place, note in enumerate(footnotes, 1))
    if agreement := recomputing.summary(spec):
        yield agreement
    yield from spec.notes
    if not any(column.kind for column in spec.columns):
        yield "ours: nothing stands beside this table; no cell makes its figures"
    yield from _ways(sheet)
    yield from _orders(sheet)
    yield from _care(sheet)
    yield from _folders(sheet)
    yield from _missing(sheet)


def _ways(sheet: Sheet) -> Iterator[str]:
    """Scores made in several ways, of which the table takes none, and measures that are not the paper's."""
    spec = sheet.spec
    for (i, j), figure in sheet.figures.items():
        if isinstance(figure.ours, Several):
            column = spec.columns[j]
            values = [_value(way, column.times, column.digits) for way in figure.ours.ways]
            said = "; ".join(f"{value} by {way.score.signature}" for value, way in zip(values, figure.ours.ways, strict=True))
            yield f"{_label(spec.rows[i])}, {column.name}: judged in {len(values)} ways, none is taken: {said}"
    for name in sheet.other_names():
        yield f"{name}: another measure than the paper's; orderings may be compared, numbers may not"
    for name, others in sheet.beside.items():
        for one in others:
            yield f"{name}: {one.name} {spelled_out(one)}, another measure than the paper's"


def spelled_out(ours: Ours) -> str:
    """A score with its interval and what it is over, in one piece."""
    digits = 1 if ours.score.higher_is_better else 3
    found = interval(ours)
    spread = "" if found is None else f"{number(found.low, digits=digits)} … {number(found.high, digits=digits)}"
    counts = f"n {ours.score.n:,}, seeds {len(ours.judged)}"
    return f"{_value(ours, 1.0, digits)} ({'; '.join(filter(None, (spread, counts)))})"


def _value(ours: Ours, times: float, digits: int) -> str:
    return "no value" if ours.value is None else number(ours.value * times, digits=digits)


def _orders(sheet: Sheet) -> Iterator[str]:
    spec = sheet.spec
    if spec.compare == "columns":
        scored = [place for place, column in enumerate(spec.columns) if column.kind == "score"]
        labels = [(i, j, f"{_label(row)}, {spec.columns[j].name}") for i, row in enumerate(spec.rows) for j in scored]
        entries = [[_entry(sheet, j, i, label) for i, j, label in labels if i == place] for place in range(len(spec.rows))]
        rows = [[one for one in row if one is not None] for row in entries]
        pairs = [pair for row in rows for pair in itertools.pairwise(row)]
        yield from ordering.notes([one for row in rows for one in row], pairs)
    elif spec.compare:
        columns = spec.compare_in or sheet.main
        for name in columns:
            prefix = f"{name}: " if len(columns) > 1 else ""
            for note in _down(sheet, functools.partial(_entry, sheet, spec.column(name))):
                yield prefix + note
        for name in sheet.other_names():
            for note in _down(sheet, functools.partial(_other_entry, sheet, name)):
                yield f"{name}: {note}"


def _down(sheet: Sheet, entry_of: Callable[[int, str], Entry | None]) -> Iterator[str]:
    """The rows of each group against the one before, or against the group's first."""
    spec = sheet.spec
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(spec.rows):
        groups.setdefault(spec.group_of(row), []).append(place)
    entries: list[Entry] = []
    pairs: list[tuple[Entry, Entry]] = []
    for places in groups.values():
        labels = _labels([spec.rows[place] for place in places])
        asked = [(place, entry_of(place, label)) for place, label in zip(places, labels, strict=True)]
        there = [(place, one) for place, one in asked if one is not None]
        found = [one for _, one in there]
        entries += found
        if spec.compare == "previous":
            pairs += itertools.pairwise(found)
        elif found:
            named = [one for place, one in there if spec.baseline in spec.rows[place].words]
            first = named[0] if named else found[0]
            pairs += [(first, one) for one in found if one is not first]
    yield from ordering.notes(entries, pairs)


def _entry(sheet: Sheet, column: int, row: int, label: str) -> Entry | None:
    figure, about = sheet.figures[row, column], sheet.spec.columns[column]
    if not isinstance(figure.ours, Ours) or not isinstance(figure.reported, int | float):
        return None
    return Entry(label, figure.reported, figure.ours, about.times, about.digits, about.digits)


def _other_entry(sheet: Sheet, name: str, row: int, label: str) -> Entry | None:
    """A score of another suite beside what the paper has in the first main column."""
    column = sheet.spec.column(sheet.main[0])
    ours, reported = sheet.others[row].get(name), sheet.figures[row, column].reported
    if ours is None or not isinstance(reported, int | float):
        return None
    return Entry(label, reported, ours, 1.0, sheet.spec.columns[column].digits, 1 if ours.score.higher_is_better else 3)


def _label(row: Row) -> str:
    return ", ".join(word for word in row.words if word)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Each row by the words that set it apart from the others."""
    apart = [place for place in range(len(rows[0].words)) if len({row.words[place] for row in rows}) > 1]
    return [", ".join(row.words[place] for place in apart if row.words[place]) or _label(row) for row in rows]


def _all_ours(sheet: Sheet) -> list[Ours]:
    direct = [figure.ours for figure in sheet.figures.values()]
    others = [one for row in sheet.others for one in row.values()]
    return [one for one in direct if isinstance(one, Ours)] + others + [one for row in sheet.beside.values() for one in row]


def _results(sheet: Sheet) -> list[RunResult]:
    """Every cell that a figure here comes from, once."""
    found = [result for figure in sheet.figures.values() for result in figure.results]
    found += [result for row in sheet.others for one in row.values() for result in one.results]
    found += [result for others in sheet.beside.values() for one in others for result in one.results]
    return list({result.cell: result for result in found}.values())


def _care(sheet: Sheet) -> Iterator[str]:
    ours = _all_ours(sheet)
    labels = dict.fromkeys(label for result in _results(sheet) for label in result.labels)
    yield from (f"read with care: {label}" for label in labels)
    departures = dict.fromkeys(said for one in ours for said in one.departures)
    yield from (f"read with care: {said}, which is not the paper's recipe" for said in departures)
    unscored = sum(one.evaluation.scores[score.name].unscored for score in ours for one in score.judged)
    if unscored:
        yield f"{unscored:,} answers could not be scored and are in no mean"
    others = max((one.others for one in ours), default=0)
    if others:
        yield f"up to {others} more cells a row were trained in other ways and are in no figure here"


def _folders(sheet: Sheet) -> Iterator[str]:
    cells = sorted(result.cell for result in _results(sheet))
    if cells:
        more = f" and {len(cells) - FOLDERS} more" if len(cells) > FOLDERS else ""
        yield f"ours: {', '.join(cells[:FOLDERS])}{more} in {sheet.finished.outputs}"


def _missing(sheet: Sheet) -> Iterator[str]:
    """The commands that make what is not there yet: one for each sweep or cell, and each suite that has a file."""
    missing = [(place, figure.score.split("/")[0]) for place, figure in sheet.figures.items() if figure.is_missing]
    rows = {i for (i, _), _ in missing}
    if not rows:
        return
    total = len({i for (i, _), figure in sheet.figures.items() if figure.where})
    suites = list(dict.fromkeys(suite for _, suite in missing if suite))
    absent = [suite for suite in suites if not (CONF / "evaluation" / f"{suite}.yaml").exists()]
    yield f"missing: {len(rows)} of {total} rows. To make them (add scale=paper for the paper's own size):"
    commands = []
    for (i, j), suite in missing:
        command = _command(sheet, i, j)
        commands.append(f"{command} {_asking(suite)}" if suite and suite not in absent else command)
    for command in dict.fromkeys(commands):
        if not any(other.startswith(f"{command} evaluation=") for other in commands):
            yield f"  {command} paths.data=FOLDER"
    if absent:
        names = ", ".join(f"evaluation={suite}" for suite in absent)
        yield f"without a file in conf/evaluation, so that nothing can be scored by it: {names}"


def _asking(suite: str) -> str:
    """The words that choose a suite. One that runs a model's programs must be allowed to."""
    kinds = yaml.safe_load((CONF / "evaluation" / f"{suite}.yaml").read_text(encoding="utf-8"))["defaults"]
    leave = " evaluation.allow_code=true" if {"/schema/evaluation@_here_": "code"} in kinds else ""
    return f"evaluation={suite}{leave}"


def _command(sheet: Sheet, i: int, j: int) -> str:
    spec, row = sheet.spec, sheet.spec.rows[i]
    sweep = row.sweep or spec.sweep
    words = [f"sweeps={sweep}"] if sweep else overrides(sheet.figures[i, j].where)
    if spec.stage != "tune":
        words.append(f"stage={spec.stage}")
    return f"python train.py {' '.join(map(shlex.quote, words))}"
