"""Two finished cells → what differs between them: what they are made of, how they score, and which items changed. Torch-free.

Every difference says what it changes: `training` is in the cells' identity, `judging` in that of their evaluation, `last digits`
may move those, and `nothing` changes no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from babeltune import statistics
from babeltune.errors import ConfigError, nearest, problem
from babeltune.identity import NO_VERDICTS
from babeltune.records import Score
from babeltune.results import RunResult, damaged, evaluation_folder, read_evaluations, read_json, read_replies, read_result
from babeltune.tables import Table, number

MOST_CHARS = 60
"""Of a value, a question or a reply in a table."""
MOST_GROUPS = 20
"""Categories that are listed, those that changed most first."""
MOST_ITEMS = 3
"""Items that are shown, each way."""
SHORT = 8
"""Hexadecimal digits of a digest that are shown."""
LEAST_PREFIX = 4
"""Digits of an identity that may name a cell."""
ROUNDING = (
    *(f"trainer.{key}" for key in ("accelerator", "strategy", "devices", "nodes", "threads", "micro_tokens")),
    *(f"trainer.{key}" for key in ("attention", "checkpointing", "compile")),
)
"""Options that change the order in which numbers are summed up, and nothing else."""
JUDGING = ("evaluation", "decoding", "judge", "template")
"""Groups that say how a cell is judged."""
BASE = ("path", "revision", "from_cell", "fresh", "tokenizer", "vocabulary", "answers", "adapter")
"""Keys of a model that its base follows from."""
NAMED = (("model", "base"), ("template", "template"))
"""Groups whose name stands beside a digest, and the part of the identity that it is."""
ORDER = ("training", "judging", "last digits", "nothing")
"""What a difference may change, the most first."""
NOTHING = "—"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished cell as it is on disk."""

    folder: Path
    parts: Mapping[str, Any]
    """What its identity is made of."""
    config: Mapping[str, Any]
    result: RunResult
    evaluation: str
    """The one that is compared."""
    asked: Mapping[str, Any]
    scores: Mapping[str, Score]

    @property
    def judged(self) -> Path:
        return evaluation_folder(self.folder, self.evaluation)


def explain(one: str, other: str, outputs: Path) -> list[Table]:
    """What tells two finished cells apart: their options, their scores, and the items that changed most.

    A cell is a folder, the name of one below `outputs`, or the beginning of its identity. Raises ConfigError for a name that no
    cell or several have, and for a cell that has not finished; OutputError for damaged files.
    """
    a, b = _pair(find(one, outputs), find(other, outputs))
    main = next((name for name in a.scores if _comparable(a, b, name)), None)
    tables = [_options(a, b), _scores(a, b)]
    if main is None:
        return tables
    items = _items(a) | _items(b)
    return [*tables, *_groups(a, b, main, items), *_changed(a, b, main, items)]


def find(name: str, outputs: Path) -> Path:
    """The folder of the finished cell that a name means."""
    folders = [path for path in (Path(name), outputs / name) if (path / "identity.json").is_file()]
    if not folders and len(name) >= LEAST_PREFIX and set(name) <= set("0123456789abcdef"):
        folders = [path.parent for path in _cells(outputs) if str(read_json(path)["identity"]).startswith(name)]
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise ConfigError(problem("explain", repr(name), "the beginning of one cell's identity", f"one of {names}"))
    if not folders:
        known = [path.parent.name for path in _cells(outputs)]
        holding = [one for one in known if name in one] or (nearest(name, known).split(", ") if known else [])
        hint = ", ".join(holding[:3]) or "python train.py sweeps=demo"
        raise ConfigError(problem("explain", repr(name), f"a cell in {outputs}: its folder, or how its identity begins", hint))
    if not (folders[0] / "result.json").is_file():
        got = f"{folders[0].name}, which has not finished"
        raise ConfigError(problem("explain", got, "a finished cell", "typing the command that made it again"))
    return folders[0]


def _cells(outputs: Path) -> list[Path]:
    return sorted(outputs.glob("*/identity.json"))


def _pair(one: Path, other: Path) -> tuple[Finished, Finished]:
    """Both cells as they are on disk, with an evaluation that both have where there is one."""
    results = []
    for folder in (one, other):
        result = read_result(folder)
        assert result is not None  # `find` has seen it
        results.append((folder, result, {one.id: one for one in read_evaluations(folder)}))
    own = [result.evaluation[:SHORT] for _, result, _ in results]
    shared = [name for name in [*own, *results[0][2]] if all(name in judged for *_, judged in results)]
    a, b = (
        Finished(
            folder=folder,
            parts=read_json(folder / "identity.json")["parts"],
            config=_config(folder),
            result=result,
            evaluation=(chosen := shared[0] if shared else last),
            asked=judged[chosen].asked if chosen in judged else {},
            scores=judged[chosen].scores if chosen in judged else {},
        )
        for (folder, result, judged), last in zip(results, own, strict=True)
    )
    return a, b


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.yaml"
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise damaged(path, error) from error


def _options(a: Finished, b: Finished) -> Table:
    rows = sorted(_differing(a, b), key=lambda row: ORDER.index(row[3]))
    same = "their identities are the same" if a.result.identity == b.result.identity else "their identities differ"
    counted = ", ".join(f"{word} {sum(row[3] == word for row in rows)}" for word in ORDER)
    return Table(
        title=f"What differs: A = {a.folder.name}, B = {b.folder.name}",
        columns=("what", "A", "B", "changes"),
        rows=tuple(rows),
        notes=(f"{same}; differences by what they change: {counted}",),
        num_words=4,
    )


def _differing(a: Finished, b: Finished) -> Iterator[tuple[str, str, str, str]]:
    """What, as in A, as in B, and what it changes."""
    told = set()
    for key, one, other in _unequal(*(_named(cell) for cell in (a, b))):
        told.add(key)
        yield key, _short(one), _short(other), "training"
    for key, one, other in _unequal(*({key: cell.asked.get(key) for key in JUDGING} for cell in (a, b))):
        yield key, _short(one), _short(other), "nothing" if a.evaluation == b.evaluation or _is_name(key) else "judging"
    if a.evaluation != b.evaluation:
        yield "evaluation", a.evaluation[:SHORT], b.evaluation[:SHORT], "judging"
    others = [{key: part for key, part in cell.config.items() if key not in JUDGING} for cell in (a, b)]
    for key, one, other in _unequal(*others):
        if key not in told:
            yield key, _short(one), _short(other), _effect(key, a, b)
    for key, one, other in _unequal(a.result.versions, b.result.versions):
        yield f"version of {key}", _short(one), _short(other), "last digits"


def _named(cell: Finished) -> dict[str, Any]:
    """The parts of an identity under the names of options; digests with what they are digests of."""
    parts = {key: part for key, part in cell.parts.items() if key not in ("sources", "versions", "cleaning")}
    base, template = (f"{cell.config[group]['name']} ({str(cell.parts.get(key, ''))[:SHORT]})" for group, key in NAMED)
    parts |= {"base": base} | ({"template": template} if "template" in cell.parts else {})
    versions = {f"version of the code of {stage}": version for stage, version in cell.parts.get("versions", {}).items()}
    mix = parts.get("data", {})
    return parts | versions | ({"data": {**mix, "sources": cell.parts["sources"]}} if "sources" in cell.parts else {})


def _effect(key: str, a: Finished, b: Finished) -> str:
    """What an option changes that the identity does not hold under its own name."""
    group, _, rest = key.partition(".")
    if key in ROUNDING:
        return "last digits"
    if group == "model" and rest.split(".")[0] in BASE:
        return "training" if a.parts.get("base") != b.parts.get("base") else "nothing"
    if group == "cleaning":
        return "training" if a.parts.get("cleaning") != b.parts.get("cleaning") else "nothing"
    if key.startswith("data.sources.") and ".cleaning" in key:
        name = key.split(".")[2]
        one, other = (cell.parts.get("sources", {}).get(name) for cell in (a, b))
        return "training" if one != other else "nothing"
    if key.startswith(("data.contamination.", "data.max_tokens", "data.heldout_fraction")) and a.evaluation != b.evaluation:
        return "judging"
    return "nothing"


def _is_name(key: str) -> bool:
    """Whether an option of how a cell is judged only says what something is called, or how fast it goes."""
    group, _, rest = key.partition(".")
    if group == "evaluation":
        return rest in ("name", "batch") or rest.endswith((".title", ".name", ".license", ".note"))
    return key == "decoding.name" or (group == "judge" and rest in NO_VERDICTS)


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The values in which two trees differ, by their path. A branch that only one has is told once."""
    for key in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from ((f"{key}.{path}", left, right) for path, left, right in _unequal(mine, theirs))
        elif mine != theirs:
            yield key, mine, theirs


def _short(value: Any) -> str:
    """A value in a table. Of a branch its bytes or its kind, where it has them."""
    if isinstance(value, Mapping):
        told = next((value[key] for key in ("bytes", "kind", "name") if key in value), None)
        return _short(json.dumps(value, ensure_ascii=False) if told is None else told)
    if value is None or value == "":
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:SHORT] if len(text) == 64 and set(text) <= set("0123456789abcdef") else _cut(text)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS - 1]}…"


def _comparable(a: Finished, b: Finished, name: str) -> bool:
    return name in b.scores and a.scores[name].signature == b.scores[name].signature and bool(_shared(a, b, name))


def _shared(a: Finished, b: Finished, name: str) -> list[str]:
    """Items that both have a value for, in the order of A."""
    return [item for item in a.scores[name].items if item in b.scores[name].items]


def _scores(a: Finished, b: Finished) -> Table:
    """Each score that both have, over all items; those of categories and languages are told apart elsewhere."""
    both = [name for name in a.scores if name in b.scores]
    whole = [name for name in both if not any(name.startswith(f"{other}_") for other in both)]
    lines = {name: _shared(a, b, name) for name in whole if _comparable(a, b, name)}
    notes = []
    others = [name for name in whole if a.scores[name].signature != b.scores[name].signature]
    if others:
        notes.append(f"measured in two ways, and not compared: {', '.join(others)}")
    alone = [*(name for name in a.scores if name not in b.scores), *(name for name in b.scores if name not in a.scores)]
    if alone:
        notes.append(f"of one cell only: {', '.join(alone[:MOST_GROUPS])}")
    if not lines:
        notes.append("no score of both cells is over the same items in the same way")
    missing = sum(cell.scores[name].unscored for name in list(lines)[:1] for cell in (a, b))
    if missing:
        notes.append(f"{missing} items could not be scored and are in no mean")
    compared = {name: (name, items) for name, items in lines.items()}
    return _compared("How they score", "score", a, b, compared, notes)


def _groups(a: Finished, b: Finished, main: str, items: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The main score by category and by language, where there are several."""
    tables = []
    for kind in ("language", "category"):
        groups: dict[str, list[str]] = {}
        for item in _shared(a, b, main):
            if item in items:
                groups.setdefault(str(items[item][kind]), []).append(item)
        if len(groups) < 2:
            continue
        first = sorted(groups, key=lambda group: (-abs(_mean_change(a, b, main, groups[group])), group))[:MOST_GROUPS]
        notes = [f"{len(groups) - len(first)} more changed less"] if len(first) < len(groups) else []
        lines = {group: (main, groups[group]) for group in groups if group in first}
        tables.append(_compared(f"{main} by {kind}", kind, a, b, lines, notes))
    return tables


def _mean_change(a: Finished, b: Finished, name: str, items: Sequence[str]) -> float:
    return sum(b.scores[name].items[item] - a.scores[name].items[item] for item in items) / len(items)


def _compared(
    title: str, what: str, a: Finished, b: Finished, lines: Mapping[str, tuple[str, Sequence[str]]], notes: Sequence[str]
) -> Table:
    """B minus A for each line, a score and the items it is over."""
    values = {
        line: [[[cell.scores[name].items[item] for item in items]] for cell in (a, b)] for line, (name, items) in lines.items()
    }
    found = {line: statistics.paired_difference(theirs, mine) for line, (mine, theirs) in values.items()}
    known = {line: difference for line, difference in found.items() if difference is not None}
    adjusted = dict(zip(known, statistics.holm([one.p_value for one in known.values()]), strict=True))
    rows = []
    for line, difference in known.items():
        score = a.scores[lines[line][0]]
        digits = 1 if score.higher_is_better else 3
        interval = difference.interval
        low, high = (number(value, sign=True, digits=digits) for value in (interval.low, interval.high))
        means = [number(sum(row) / len(row), digits=digits) for (row,) in values[line]]
        word = statistics.verdict(difference, adjusted[line], score.higher_is_better)
        change = number(interval.value, sign=True, digits=digits)
        rows.append((line, *means, change, f"{low} … {high}" if interval.covers else NOTHING, word, str(interval.num_items)))
    columns = (what, "A", "B", "B − A", "95 % CI", "so", "n")
    said = (
        "means are over items that both have scored; one training each: intervals cover the choice of items, not that of seeds",
        "`so` allows for the table's other lines (Holm)",
    )
    return Table(title, columns, tuple(rows), (*notes, *(said if rows else ())))


def _changed(a: Finished, b: Finished, name: str, items: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """The items whose value rose and fell most, with what both cells said."""
    mine, theirs = a.scores[name].items, b.scores[name].items
    changes = {item: theirs[item] - mine[item] for item in _shared(a, b, name) if theirs[item] != mine[item]}
    if not changes:
        return []
    risen, fallen = (
        sorted((item for item in changes if sign * changes[item] > 0), key=lambda item: (-abs(changes[item]), item))
        for sign in (1, -1)
    )
    replies = [_replies(cell) for cell in (a, b)]
    rows = [
        (
            item,
            number(mine[item]),
            number(theirs[item]),
            _cut(_question(items.get(item, {}))),
            *(_cut(said.get(item, NOTHING)) for said in replies),
        )
        for item in [*risen[:MOST_ITEMS], *fallen[:MOST_ITEMS]]
    ]
    same = len(_shared(a, b, name)) - len(changes)
    note = f"{len(risen)} items rose, {len(fallen)} fell, {same} are as they were"
    columns = ("item", "A", "B", "question", "A said", "B said")
    return [Table(f"Items that changed most in {name}", columns, tuple(rows), (note,), num_words=6)]


def _items(cell: Finished) -> dict[str, Mapping[str, Any]]:
    path = cell.judged / "items.json"
    return {item["id"]: item for item in read_json(path)} if path.exists() else {}


def _replies(cell: Finished) -> dict[str, str]:
    path = cell.judged / "replies.jsonl"
    return {reply.item: reply.text for reply in read_replies(path)} if path.exists() else {}


def _question(item: Mapping[str, Any]) -> str:
    messages = item.get("messages") or [{}]
    return " ".join(str(messages[-1].get(key) or "") for key in ("text", "input"))
