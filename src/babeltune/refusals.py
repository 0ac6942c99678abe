"""What Hydra and OmegaConf refuse, in the one shape of a message. Their own words name classes; ours name what to type."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from babeltune import launchers
from babeltune.alternatives import ALTERNATIVES
from babeltune.errors import nearest, problem
from babeltune.options import RunConfig

HELP = "python train.py --help"


def diagnose(overrides: Sequence[str], compose: Callable[[list[str]], Any], conf: Path) -> tuple[list[str], list[str]]:
    """The overrides that compose, and a sentence for each of the others. Hydra itself stops at the first.

    Groups are tried before keys, as Hydra applies them: `adapter=none` decides whether `adapter.rank=8` is a key.
    """
    sound: list[str] = []
    problems: list[str] = []
    for override in sorted(overrides, key=lambda word: "." in word.split("=")[0]):
        try:
            compose([*sound, override])
        except Exception as error:  # whatever composing raises is about this override: the ones before it compose
            problems.append(explain(error, override, conf))
        else:
            sound.append(override)
    return sound, problems


def explain(error: BaseException, override: str, conf: Path) -> str:
    """One sentence for what is wrong with one override."""
    key, _, value = override.partition("=")
    name = key.lstrip("+~").split("@")[0]
    words = f"{error} {error.__cause__ or ''}"
    options = sorted(path.stem for path in (conf / name).glob("*.yaml")) if name else []
    if not name or ("=" not in override and not key.startswith("~")):
        return problem("command line", repr(override), "group=option or key=value", example(name, conf))
    if name.startswith("hydra.launcher."):
        return launchers.refusal(name.split(".")[2], value, "Could not" in words)
    if name.split(".")[0] == "hydra":
        return problem(
            name, "an unknown key" if "Could not" in words else repr(value), "one of Hydra's own", "python train.py --cfg hydra"
        )
    if "@" in key:
        return problem(override, "a group at another place", f"{name}=OPTION", f"{name}={value}")
    if "OverrideParseException" in type(error).__name__:
        return problem("command line", repr(override), "group=option or key=value, with signs and spaces quoted", f"{name}=VALUE")
    if "Ambiguous value" in words:
        hint = f"python train.py -m {override} for a grid, or {name}=[{value}] for a list"
        return problem(name, repr(value), "one value", hint)
    if key.startswith("~"):
        if _hints(name.split(".")) is None:
            return _unknown(name)
        return problem(override, "a removal", "a value for every key", f"leaving {override} out or {name}={_default(name)}")
    if key.startswith("+") and (options or "Multiple values" in words):
        return problem(override, "a + for what is there", f"{name}=OPTION", override.lstrip("+"))
    if options:
        expected = f"one of the {len(options)} options in conf/{name}"
        return problem(name, repr(value), expected, offer(value, options, f"{name}="))
    if name.startswith("model.fresh"):
        return problem(name, repr(value), "a model that is fresh", "model=tiny_fresh")
    if ("Could not override" in words or key.startswith("+")) and (kept := _entry(name, value)) is not None:
        return problem(name, "a new entry", "a + before what is not there yet", kept)
    if _hints(name.split(".")) is None:
        return _unknown(name)
    if "Could not override" in words:
        return problem(name, "a new entry", "a + before what is not there yet", f"'+{override}'")
    return problem(name, repr(value), _expected(name, words), f"{name}={_default(name)}")


def _expected(name: str, words: str) -> str:
    found = re.search(r"(?:expected one|valid values:)[^\[]*\[(.+?)\]", words)
    if found is not None:
        return f"one of {found[1]}"
    kind = _hints(name.split("."))
    text = str(getattr(kind, "__name__", kind))
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    for part, said in (("list", "a list"), ("dict", "keys with values"), *names.items()):
        if text.startswith(part):
            return f"{said} or null" if isinstance(kind, types.UnionType) else said
    return "keys with values"


def _unknown(name: str) -> str:
    """An unknown key, with the nearest there are at its level."""
    *path, last = name.split(".")
    while path and not keys(path):
        last = path.pop()
    where = ".".join(path)
    expected = f"a key of {where}" if where else "a config group or key"
    return problem(name, "an unknown key", expected, offer(last, keys(path), f"{where}.".lstrip(".")))


def offer(word: str, known: Iterable[str], prefix: str) -> str:
    """The known words nearest to one, each as it is typed; where none is near, the words alone, or the help for many."""
    known = list(known)
    close = nearest(word, known).split(", ")
    if len(close) <= 3:
        return ", ".join(f"{prefix}{one}" for one in close)
    return HELP if len(close) > 20 else f"one of {', '.join(close)}"


def keys(path: Sequence[str]) -> list[str]:
    """The keys that a part of the config may have; none below a value or a free mapping."""
    kinds = _kinds(path)
    return list(dict.fromkeys(key for kind in kinds for key in typing.get_type_hints(kind)))


def _kinds(path: Sequence[str]) -> list[type]:
    found = _hints(path) if path else RunConfig
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        found = next((part for part in typing.get_args(found) if dataclasses.is_dataclass(part)), None)
        if typing.get_origin(_hints(path)) is dict or found is None:
            return []
    return [typing.cast(type, found), *ALTERNATIVES.get(typing.cast(type, found), {}).values()]


def _hints(path: Sequence[str]) -> Any:
    """The type of the value at a path, or None when there is no such key."""
    here: Any = RunConfig
    for name in path:
        if typing.get_origin(here) in (types.UnionType, typing.Union):
            here = next(part for part in typing.get_args(here) if part is not type(None))
        if typing.get_origin(here) is dict:
            here = typing.get_args(here)[1]
            continue
        if not isinstance(here, type) or not dataclasses.is_dataclass(here):
            return Any if here is Any else None
        options = [here, *ALTERNATIVES.get(here, {}).values()]
        here = next((hints[name] for kind in options if name in (hints := typing.get_type_hints(kind))), None)
    return here


def _entry(name: str, value: str) -> str | None:
    """How to add an entry to a mapping of the config, for a path that leads into one."""
    path = name.split(".")
    for depth in range(len(path) - 1, 0, -1):
        if str(_hints(path[:depth])).startswith("dict") and _hints(path) is not None:
            inner = value
            for part in reversed(path[depth:]):
                inner = f"{{{part}:{inner}}}"
            return f"'+{'.'.join(path[:depth])}={inner}'"
    return None


def _default(name: str) -> str:
    """What a key is when nobody sets it, as it is typed."""
    *path, last = name.split(".")
    for kind in _kinds(path):
        for field in dataclasses.fields(kind):
            if field.name == last:
                value = field.default_factory() if callable(field.default_factory) else field.default
                return typed(value)
    return "VALUE"


def typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    if value is dataclasses.MISSING or value == "???":
        return "VALUE"
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "")


def example(name: str, conf: Path) -> str:
    """Something to type for a group or key: what it is when nobody says anything."""
    if name and (conf / name).is_dir():
        defaults = yaml.safe_load((conf / "train.yaml").read_text(encoding="utf-8"))["defaults"]
        options = [entry[name] for entry in defaults if isinstance(entry, dict) and entry.get(name)]
        return f"{name}={options[0] if options else 'NAME'}"
    if name and _hints(name.split(".")) is not None:
        return f"{name}={_default(name)}"
    return f"{name}=VALUE" if "." in name else "data=toy_zh or adapter.rank=8"
