"""Where the numbers of a report come from: what sets its rows apart, the bytes they were made of, and how to make them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from babeltune.comparison import flattened
from babeltune.config import compose, dump
from babeltune.errors import ConfigError
from babeltune.overrides import listed
from babeltune.reporting.gathering import Gathered, Shown
from babeltune.results import read_json
from babeltune.tables import Table

LEFT_OUT = ("paths", "logger", "grid", "trainer", "seed")
"""Groups that change no number, and the seed, which the table counts."""
GROUPS = {
    "data": "name",
    "model": "name",
    "adapter": "kind",
    "precision": "kind",
    "stage": "kind",
    "template": "name",
    "evaluation": "name",
    "decoding": "name",
    "scale": "name",
}
"""Groups of which one key is the option's name, in the order of a command line."""
LONGEST = 80
"""Characters of a value in the table of differences."""


@dataclass(frozen=True, slots=True)
class Command:
    label: str
    line: str
    """Empty where no short one makes the same cells."""
    frozen: tuple[str, ...]
    """The files that say the whole of what was asked."""


def differences(cells: Gathered) -> Table | None:
    """Every key in which the rows' configs differ; None where they do not. A source that not all rows have is named and no more."""
    shown = cells.firsts
    configs = [cell.result.config for cell in shown if cell.result is not None]
    flat = [flattened(_told_of(config)) for config in configs]
    for group in ("data", "evaluation"):
        names = [list(config[group]["sources"]) for config in configs]
        shared = set(names[0]).intersection(*names) if names else set()
        for one, own in zip(flat, names, strict=True):
            for key in [key for key in one if _is_of_source(key, group, set(own) - shared)]:
                del one[key]
            one[f"{group}.sources"] = own
    keys = dict.fromkeys(key for one in flat for key in one)
    varying = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
    if not varying:
        return None
    rows = tuple((key, *(_value(one.get(key)) for one in flat)) for key in varying)
    labels = tuple(cell.label for cell in shown)
    return Table("Config: what differs", ("key", *labels), rows, num_words=len(labels) + 1)


def _is_of_source(key: str, group: str, names: Set[str]) -> bool:
    return any(key.startswith(f"{group}.sources.{name}.") for name in names)


def digests(cells: Gathered) -> Table | None:
    """The first 16 letters of the sha256 of each source's bytes, and of the base's identity, for each row."""
    rows = []
    for cell in cells.firsts:
        path = cell.folder / "identity.json"
        parts = read_json(path)["parts"] if path.is_file() else {}
        sources = {name: source["bytes"] for name, source in parts.get("sources", {}).items()}
        for name, value in {"base model": parts.get("base", ""), **sources}.items():
            if value:
                rows.append((cell.label, name, value[:16]))
    return Table("Digests (sha256)", ("row", "of", "begins with"), tuple(rows), num_words=3) if rows else None


def versions(cells: Gathered) -> Table | None:
    """What computed the numbers. Rows that agree share a column."""
    groups: dict[str, list[str]] = {}
    for cell in cells.firsts:
        assert cell.result is not None
        if cell.result.versions:
            groups.setdefault(json.dumps(cell.result.versions), []).append(cell.label)
    if not groups:
        return None
    found = [json.loads(text) for text in groups]
    names = dict.fromkeys(name for one in found for name in one)
    heads = ("all rows",) if len(groups) == 1 else tuple(", ".join(labels) for labels in groups.values())
    rows = tuple((name, *(one.get(name, "") for one in found)) for name in names)
    return Table("Versions", ("package", *heads), rows, num_words=len(heads) + 1)


def commands(cells: Gathered) -> list[Command]:
    """For each finished row the command line that makes its cells, checked by composing it."""
    return [_command(cell.label, cell, cells) for cell in cells.firsts]


def _command(label: str, first: Shown, cells: Gathered) -> Command:
    finished = [cell for cell in cells.of(label) if cell.result is not None]
    frozen = tuple(str(cell.folder / "config.yaml") for cell in finished)
    assert first.result is not None
    words = _overrides(first.result.config)
    if words is None:
        return Command(label, "", frozen)
    seeds = sorted({cell.seed for cell in finished})
    many = ["-m"] if len(seeds) > 1 else []
    where = [] if str(cells.outputs) == "outputs" else [f"paths.outputs={cells.outputs}"]
    seed = f"seed={','.join(map(str, seeds))}"
    return Command(label, shlex.join(["python", "train.py", *many, *words, seed, *where]), frozen)


def _overrides(config: Mapping[str, Any]) -> list[str] | None:
    """The shortest overrides known to compose this config; None where none do."""
    wanted = _told_of(config)
    names = [f"{group}={config[group][key]}" for group, key in GROUPS.items()]
    try:
        made = flattened(_told_of(dump(compose(names))))
        rest = {key: value for key, value in flattened(wanted).items() if key not in made or made[key] != value}
        words = [*names, *listed(rest)]
        return words if not rest or _told_of(dump(compose(words))) == wanted else None
    except ConfigError:
        return None


def _told_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what makes no difference here, as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps({key: part for key, part in config.items() if key not in LEFT_OUT}))
    return found


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = ", ".join(value) or "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
