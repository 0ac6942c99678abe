"""Which finished cells stand for a row of a paper's table, and what they scored there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from babeltune.papers.recipes import Recipes
from babeltune.records import Score
from babeltune.results import Evaluation, RunResult, find_results, read_evaluations

APART = ("seed", "paths", "logger", "grid", "trainer")
"""Groups in which cells may differ and be one way of training."""
UNTOLD = (*APART, "evaluation", "scale", "decoding")
"""Groups in which a cell may differ from the recipe without being another way to train."""
JUDGING = ("evaluation", "decoding", "judge")
"""Groups that train nothing again."""
IDLE = ("adapter", "optimizer", "stage", "cleaning", "data")
"""Groups without meaning for a base that is not trained."""

Items = Mapping[str, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished cell in one way of judging it."""

    result: RunResult
    evaluation: Evaluation

    @property
    def config(self) -> Mapping[str, Any]:
        return {**self.result.config, **self.evaluation.asked}


@dataclass(frozen=True, slots=True)
class Ours:
    """The finished cells that stand for one figure: one way of training and judging, any seeds."""

    name: str
    """The score's."""
    judged: tuple[Judged, ...]
    departures: tuple[str, ...]
    """Keys in which they differ from the paper's recipe at their scale, each with its value."""
    others: int
    """Finished cells of the same row that were trained in other ways."""
    value: float | None
    """Mean over seeds."""
    items: tuple[Items, ...] | None
    """Item to value for each seed, of which `value` is the mean; None where no items explain it."""

    @property
    def score(self) -> Score:
        return self.judged[0].evaluation.scores[self.name]

    @property
    def scale(self) -> str:
        return str(self.judged[0].result.config["scale"]["name"])

    @property
    def measured(self) -> tuple[str, str, str, int]:
        """Alike for what may be compared."""
        return self.name, self.score.signature, self.scale, self.score.n + self.score.unscored

    @property
    def results(self) -> list[RunResult]:
        return [one.result for one in self.judged]


@dataclass(frozen=True, slots=True)
class Several:
    """One cell's score, made in several ways: none of them is taken."""

    ways: tuple[Ours, ...]


class Finished:
    """The finished cells below a folder, asked again and again for one table."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.results = list(find_results(outputs))
        self.recipes = Recipes(outputs / ".cache" / "recipes")
        self._known: dict[str, list[Judged]] = {}

    def cells(self, where: Mapping[str, Any], same: Sequence[str]) -> list[Judged]:
        """Every cell that is the one of these overrides in the keys of `same`, in every way it was judged."""
        key = json.dumps([where, same], sort_keys=True)
        if key not in self._known:
            near = [result for result in self.results if _may_be(result.config, where)]
            judged = [Judged(result, one) for result in near for one in read_evaluations(self.outputs / result.cell)]
            self._known[key] = [one for one in judged if self._is(one.config, where, same)]
        return self._known[key]

    def trained(self, where: Mapping[str, Any], same: Sequence[str]) -> list[RunResult]:
        """The best way of training these cells, judged or not; empty when there is none."""
        keys = [key for key in same if key.split(".")[0] not in JUDGING]
        found = [one for one in self.results if _may_be(one.config, where) and self._is(one.config, where, keys)]
        return self._best(found, where, lambda one: one.config)

    def score(
        self, where: Mapping[str, Any], same: Sequence[str], name: str, signature: str = "", macro_of: Sequence[str] = ()
    ) -> Ours | Several | None:
        """What was scored under this name; of several ways of training the paper's scale first, then the nearest recipe, then
        the most seeds. None when nothing was."""
        there = [_with_macro(one, name, macro_of) for one in self.cells(where, same)]
        scored = [one for one in there if name in one.evaluation.scores]
        fitting = [one for one in scored if signature in one.evaluation.scores[name].signature]
        chosen = self._best(fitting, where, lambda one: one.config)
        ways: dict[str, list[Judged]] = {}
        for one in chosen:
            ways.setdefault(_way_of_judging(one, name), []).append(one)
        cells = {one.result.cell for one in there}
        others = len(cells - {one.result.cell for one in chosen})
        found = tuple(self._ours(name, way, where, others, macro_of) for way in ways.values())
        return Several(found) if len(found) > 1 else next(iter(found), None)

    def other(self, where: Mapping[str, Any], same: Sequence[str], not_these: Iterable[str]) -> list[Ours]:
        """The first score of each suite that these cells were judged by, other than the suites named."""
        named = dict.fromkeys(next(iter(one.evaluation.scores)) for one in self.cells(where, same))
        suites = set(not_these)
        found = [self.score(where, same, name) for name in named if name.split("/")[0] not in suites]
        return [one for one in found if isinstance(one, Ours)]

    def ledger(self, where: Mapping[str, Any], source: str) -> tuple[RunResult, dict[str, float]] | None:
        """What a source brought into a mix, over its languages: at the paper's scale before another, then of the most rows."""
        found = []
        for result in self.results:
            rows = [row for row in result.ledger.get("rows", ()) if source in ("all", row["source"])]
            if rows and result.config["data"]["name"] == where["data"]:
                keys = ("found", "usable", "taken", "tokens")
                counts = {key: float(sum(row[key] for row in rows)) for key in keys}
                counts["tokens_per_row"] = counts["tokens"] / counts["taken"] if counts["taken"] else math.nan
                found.append((result, counts))
        return max(found, key=lambda one: (one[0].config["scale"]["name"] == "paper", one[1]["taken"]), default=None)

    def _is(self, config: Mapping[str, Any], where: Mapping[str, Any], same: Sequence[str]) -> bool:
        wanted = self.recipes.of(where, config["scale"]["name"])
        keys = [
            key for key in (*same, "stage.kind") if wanted["data"]["sources"] or key.split(".")[0] not in IDLE or key == "data.name"
        ]
        return all(_at(config, key) == _at(wanted, key) for key in keys)

    def _best(self, found: Sequence[T], where: Mapping[str, Any], config_of: Callable[[T], Mapping[str, Any]]) -> list[T]:
        """Those of one way of training: the paper's scale before another, then the nearest to the recipe, then the most seeds."""
        ways: dict[str, list[T]] = {}
        for one in found:
            config = config_of(one)
            told = {key: part for key, part in config.items() if key not in (*APART, *JUDGING)}
            ways.setdefault(json.dumps(told, sort_keys=True), []).append(one)

        def rank(way: list[T]) -> tuple[bool, int, int]:
            config = config_of(way[0])
            return config["scale"]["name"] == "paper", -len(self._departures(config, where)), len(way)

        return max(ways.values(), key=rank, default=[])

    def _ours(self, name: str, way: Sequence[Judged], where: Mapping[str, Any], others: int, macro_of: Sequence[str]) -> Ours:
        scores = [one.evaluation.scores for one in way]
        values = [one[name].value for one in scores]
        known = [value for value in values if value is not None]
        value = math.fsum(known) / len(known) if known and len(known) == len(values) else None
        items = [items_of(one, name, macro_of) for one in scores]
        complete = tuple(one for one in items if one is not None)
        explained = complete if value is not None and len(complete) == len(items) else None
        return Ours(name, tuple(way), self._departures(way[0].config, where), others, value, explained)

    def _departures(self, config: Mapping[str, Any], where: Mapping[str, Any]) -> tuple[str, ...]:
        """Where a finished cell was trained otherwise than the paper's recipe says, at the same scale."""
        wanted = self.recipes.of(where, config["scale"]["name"])
        idle = () if wanted["data"]["sources"] else IDLE
        flat, own = _flat(wanted, idle), _flat(config, idle)
        return tuple(f"{key}={value}" for key, value in own.items() if key in flat and flat[key] != value)


def _may_be(config: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """What can be said without composing the row's cell, which takes a tenth of a second."""
    return all(config[group]["name"] == where[group] for group in ("model", "data") if group in where)


def at(tree: Mapping[str, Any], key: str) -> Any:
    """What a tree has under a dotted key; None where it has nothing."""
    return _at(tree, key)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _with_macro(judged: Judged, name: str, macro_of: Sequence[str]) -> Judged:
    """With the plain mean of classes as a score of this name, where the suite has the classes and not their mean."""
    scores = judged.evaluation.scores
    classes = [scores[one] for one in macro_of if one in scores]
    values = [one.value for one in classes if one.value is not None]
    if name in scores or not macro_of or len(values) < len(macro_of):
        return judged
    made = Score(
        name=name,
        value=math.fsum(values) / len(values),
        n=sum(one.n for one in classes),
        unscored=sum(one.unscored for one in classes),
        signature=f"mean of {len(classes)} classes|{' | '.join(dict.fromkeys(one.signature for one in classes))}",
        higher_is_better=classes[0].higher_is_better,
    )
    return replace(judged, evaluation=replace(judged.evaluation, scores={**scores, name: made}))


def _way_of_judging(judged: Judged, name: str) -> str:
    score, asked = judged.evaluation.scores[name], judged.evaluation.asked
    decoding = {key: value for key, value in asked["decoding"].items() if key != "name"}
    parts = [
        score.signature,
        score.n + score.unscored,
        asked["evaluation"].get("prompt"),
        asked["template"],
        decoding,
        asked["judge"],
    ]
    return json.dumps(parts, sort_keys=True)


def items_of(scores: Mapping[str, Score], name: str, macro_of: Sequence[str] = ()) -> dict[str, float] | None:
    """Values of items whose plain mean is the score, or None where nothing here gives it.

    For a mean of K classes an item of a class of n_k out of n items gets its value times n / (K n_k). The spread over items
    then holds that between classes too: intervals come out a little wide, never narrow.
    """
    own, classes = scores[name], [scores[one] for one in macro_of if one in scores]
    weighted: dict[str, float] = {}
    if classes and len(classes) == len(macro_of):
        total = sum(len(one.items) for one in classes)
        for one in classes:
            weighted |= {item: value * total / (len(classes) * len(one.items)) for item, value in one.items.items()}
    for items in (dict(own.items), weighted):
        if (
            items
            and own.value is not None
            and math.isclose(math.fsum(items.values()) / len(items), own.value, rel_tol=1e-6, abs_tol=1e-9)
        ):
            return items
    return None


def _flat(tree: Mapping[str, Any], without: Sequence[str], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if not prefix and (key in UNTOLD or key in without):
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, without, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
