"""From YAML and a command line to a checked `RunConfig`. Torch-free: composing takes a fraction of a second.

Hydra composes and guards types while it does; `build` walks the finished tree once more, because a `+` on the command line
switches Hydra's guard off; `check` refuses what cannot go together. Every problem is reported at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

from babeltune import modelchecks, refusals
from babeltune.alternatives import ALTERNATIVES, EACH_OF
from babeltune.checks import check
from babeltune.errors import BabelTuneError, ConfigError, nearest, problem
from babeltune.launchers import LAUNCHERS
from babeltune.options import EACH, ModelConfig, RunConfig, SourceConfig

CONF = Path(__file__).parents[2] / "conf"
"""The folder of config groups."""
UNKNOWN = "an unknown key"
"""What a message says was got where a key is one too many; the other keys can be checked all the same."""


def register() -> None:
    """Tell Hydra the schema. Called once, by whoever composes first."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=RunConfig)
    for base, choices in ALTERNATIVES.items():
        group = base.__name__.removesuffix("Config").lower()
        for kind, option in choices.items():
            store.store(group=f"schema/{group}", name=kind, node=option)
    for name, launcher in LAUNCHERS.items():
        store.store(group="schema/launcher", name=name, node=launcher)


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The config that a command line of these overrides means. Raises one ConfigError with everything that is wrong.

    >>> compose(["data=toy_zh", "seed=3"]).seed
    3
    """
    try:
        tree = _composed(list(overrides))
    except Exception as error:  # Hydra raises a dozen kinds, all about the overrides
        raise ConfigError("\n".join(problems_of(overrides) or [" ".join(str(error).split())])) from error
    return load(tree)


def problems_of(overrides: Sequence[str]) -> list[str]:
    """Everything that is wrong with a list of overrides: what does not compose, and what the rest then means."""
    sound, problems = refusals.diagnose(overrides, _composed, CONF)
    try:
        load(_composed(sound))
    except BabelTuneError as error:
        problems += str(error).splitlines()
    return problems


def _composed(overrides: list[str]) -> Any:
    """Hydra's composition, whoever else in this process uses Hydra, and leaving theirs as it was."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.version import VersionBase

    instances = Singleton._instances
    theirs: dict[Any, Any] = {kind: instances.pop(kind) for kind in (GlobalHydra, VersionBase) if kind in instances}
    try:
        register()
        hydra.initialize_config_dir(str(CONF), version_base="1.3")
        return hydra.compose("train", overrides)
    finally:
        for kind in (GlobalHydra, VersionBase):
            instances.pop(kind, None)
        instances.update(theirs)


def load(composed: Any) -> RunConfig:
    """A composed tree, built, checked, and with the model's stand-in in place where the scale asks for one."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))
    except OmegaConfBaseException as error:
        where = str(getattr(error, "full_key", "") or "config")
        words = str(error).splitlines()[0]
        raise ConfigError(problem(where, words, "an interpolation of a key that is there", f"{where}=VALUE")) from error
    for group in ("hydra", "experiment", "sweeps"):
        tree.pop(group, None)
    problems: list[str] = []
    config = cast(RunConfig, _value(RunConfig, tree, "", problems))
    if any(UNKNOWN not in one for one in problems):
        raise ConfigError("\n".join(problems))
    config = dataclasses.replace(config, model=modelchecks.resolved(config.model))
    if config.scale.standins and config.model.standin and config.model.standin != config.model.name:
        config = dataclasses.replace(config, model=_standin(config.model, config.scale.name))
    config = _decoded(config)
    problems += check(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def build(tree: Mapping[str, Any]) -> RunConfig:
    """Typed values from a plain tree. Raises one ConfigError that lists every unknown key and wrong type."""
    problems: list[str] = []
    config = _value(RunConfig, tree, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return cast(RunConfig, config)


def build_source(tree: Mapping[str, Any]) -> SourceConfig:
    """One source from its plain tree; the counterpart of `dump`."""
    problems: list[str] = []
    source = _value(SourceConfig, tree, "source", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return cast(SourceConfig, source)


def dump(config: Any) -> dict[str, Any]:
    """The plain tree that `build` turns back into the same config."""
    return cast(dict[str, Any], _plain(config))


def _standin(model: ModelConfig, scale: str) -> ModelConfig:
    """The small model that runs in the paper model's place, under its name and with its targets."""
    assert model.standin is not None
    small = _model(model.standin, scale)
    return dataclasses.replace(small, name=model.name, title=model.title, lora_targets=model.lora_targets, standin=model.standin)


def _decoded(config: RunConfig) -> RunConfig:
    """With the decoding that the suite says; where models have stand-ins, with no longer replies than the scale allows."""
    own = config.evaluation.decoding
    if own is None:
        return config
    if config.scale.standins:
        own = dataclasses.replace(own, max_new_tokens=min(own.max_new_tokens, config.decoding.max_new_tokens))
    return dataclasses.replace(config, decoding=own)


@functools.cache
def _model(name: str, scale: str) -> ModelConfig:
    """Composed once: the cells of a grid share their stand-in."""
    return compose([f"model={name}", f"scale={scale}"]).model


def _value(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as `kind`, or None with a line in `problems`."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = next(part for part in typing.get_args(kind) if part is not type(None))
        return _value(inner, value, where, problems)
    if dataclasses.is_dataclass(kind):
        return _record(cast(type, kind), value, where, problems)
    if origin is list and isinstance(value, list):
        (inner,) = typing.get_args(kind)
        return [_value(inner, part, f"{where}[{i}]", problems) for i, part in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        inner = typing.get_args(kind)[1]
        return {str(key): _value(inner, part, f"{where}.{key}", problems) for key, part in value.items()}
    return _scalar(kind, value, where, problems)


def _scalar(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if value == "???":
        problems.append(_nothing(where))
        return None
    if isinstance(kind, type) and issubclass(kind, Enum):
        word = value.value if isinstance(value, Enum) else value
        if word in [member.value for member in kind]:
            return kind(word)
        words = [str(member.value) for member in kind]
        problems.append(problem(where, repr(value), f"one of {', '.join(words)}", f"{where}={nearest(str(value), words, 1)}"))
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    expected = wanted.get(kind, "a list" if typing.get_origin(kind) is list else "keys with values")
    problems.append(problem(where, repr(value), expected, refusals.example(where, CONF)))
    return None


def _record(kind: type, value: Any, where: str, problems: list[str]) -> Any:
    if value == "???" or value is None:
        problems.append(_nothing(where))
        return None
    if not isinstance(value, Mapping):
        problems.append(problem(where or "config", repr(value), "keys with values", refusals.example(where, CONF)))
        return None
    if kind in ALTERNATIVES:
        choices = ALTERNATIVES[kind]
        chosen = value.get("kind")
        if chosen not in choices:
            near = difflib.get_close_matches(str(chosen), choices, n=1)
            hint = f"{where}={near[0]}" if near else refusals.example(where, CONF)
            problems.append(problem(f"{where}.kind", repr(chosen), f"one of {', '.join(choices)}", hint))
            return None
        kind = choices[cast(str, chosen)]
        missing = [item.name for item in dataclasses.fields(kind) if item.name not in value]
        if missing:  # Hydra fills in every key of the kind that it knows
            got, expected = f"{chosen!r} over the options of another kind", f"its own keys: {', '.join(missing)}"
            problems.append(problem(f"{where}.kind", got, expected, f"{where}={chosen} in place of {where}.kind={chosen}"))
            return None
    hints = typing.get_type_hints(kind)
    each = {item.name: item.metadata[EACH] for item in dataclasses.fields(kind) if EACH in item.metadata}
    for key in value:
        if key not in hints:
            at = f"{where}.{key}".lstrip(".")
            expected = f"a key of {where}" if where else "a config group or key"
            problems.append(problem(at, UNKNOWN, expected, refusals.offer(str(key), hints, f"{where}.".lstrip("."))))
    fields = {
        key: _each(each[key], part, at, problems) if key in each else _value(hints[key], part, at, problems)
        for key, part in value.items()
        if key in hints and (at := f"{where}.{key}".lstrip("."))
    }
    for item in dataclasses.fields(kind):
        if item.name not in value:
            problems.append(_nothing(f"{where}.{item.name}".lstrip(".")))
            fields[item.name] = None
    return kind(**fields)


def _each(base: type, value: Any, where: str, problems: list[str]) -> Any:
    """A mapping of names to values whose type each says itself. What a value leaves out is as its class has it."""
    if not isinstance(value, Mapping):
        problems.append(problem(where, repr(value), "names with values", refusals.example(where, CONF)))
        return None
    choices = EACH_OF[base]
    built = {}
    for name, part in value.items():
        at = f"{where}.{name}"
        chosen = part.get("kind") if isinstance(part, Mapping) else None
        if chosen not in choices:
            got = repr(part if chosen is None else chosen)
            problems.append(
                problem(f"{at}.kind", got, f"one of {', '.join(choices)}", f"{at}.kind={nearest(str(chosen), choices, 1)}")
            )
        else:
            kind = choices[chosen]
            built[str(name)] = _record(kind, dump(kind()) | dict(part), at, problems)
    return built


def _nothing(where: str) -> str:
    """The sentence for a value that is missing: never set, or removed with `~`."""
    group = where.removesuffix(".name").removesuffix(".kind")
    if (CONF / group).is_dir():
        return problem(group, "nothing", f"an option of conf/{group}", refusals.example(group, CONF))
    return problem(where, "nothing", "a value", refusals.example(where, CONF))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
