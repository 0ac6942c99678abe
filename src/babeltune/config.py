"""From YAML and a command line to a checked `RunConfig`. Torch-free: composing takes a fraction of a second.

Hydra composes and guards types while it does; `build` walks the finished tree once more, because a `+` on the command line
switches Hydra's guard off; `check` refuses what cannot go together. Every problem is reported at once.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast

from babeltune.errors import ConfigError, nearest, problem
from babeltune.options import (
    ALTERNATIVES,
    Accelerator,
    LoraAdapter,
    ModelConfig,
    NoAdapter,
    Precision,
    RunConfig,
    SourceConfig,
    Stage,
    Strategy,
)

CONF = Path(__file__).parents[2] / "conf"
"""The folder of config groups."""


def register() -> None:
    """Tell Hydra the schema. Called once, by whoever composes first."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=RunConfig)
    for base, choices in ALTERNATIVES.items():
        group = base.__name__.removesuffix("Config").lower()
        for kind, option in choices.items():
            store.store(group=f"schema/{group}", name=kind, node=option)


def compose(overrides: list[str]) -> RunConfig:
    """The config that a command line of these overrides means.

    >>> compose(["data=toy_zh", "seed=3"]).seed
    3
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():
        return load(hydra.compose("train", overrides))
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return load(hydra.compose("train", overrides))


def load(composed: Any) -> RunConfig:
    """A composed tree, built, checked, and with the model's stand-in in place where the scale asks for one."""
    from omegaconf import OmegaConf

    tree = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, throw_on_missing=False))
    tree.pop("hydra", None)
    for group in ("experiment", "sweeps"):
        tree.pop(group, None)
    config = build(tree)
    if config.scale.standins and config.model.standin and config.model.standin != config.model.name:
        config = dataclasses.replace(config, model=_standin(config.model))
    problems = list(check(config))
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


def check(config: RunConfig) -> Iterator[str]:
    """What is wrong with a well-typed config: values out of range, and choices that cannot go together."""
    yield from _ranges(config)
    yield from _mix(config)
    yield from _model(config)
    yield from _pairs(config)


def _ranges(config: RunConfig) -> Iterator[str]:
    positive = {
        "optimizer.learning_rate": config.optimizer.learning_rate,
        "optimizer.epochs": config.optimizer.epochs,
        "optimizer.global_batch": config.optimizer.global_batch,
        "optimizer.max_steps": config.optimizer.max_steps,
        "optimizer.clip": config.optimizer.clip,
        "data.max_rows": config.data.max_rows,
        "data.max_tokens": config.data.max_tokens,
        "trainer.devices": config.trainer.devices,
        "trainer.threads": config.trainer.threads,
        "trainer.micro_tokens": config.trainer.micro_tokens,
        "trainer.checkpoint_steps": config.trainer.checkpoint_steps,
        "evaluation.max_items": config.evaluation.max_items,
        "evaluation.batch": config.evaluation.batch,
        "decoding.max_new_tokens": config.decoding.max_new_tokens,
        "grid.workers": config.grid.workers,
    }
    if isinstance(config.adapter, LoraAdapter):
        positive |= {"adapter.rank": config.adapter.rank, "adapter.alpha": config.adapter.alpha}
    for where, value in positive.items():
        if value is not None and value <= 0:
            yield problem(where, value, "a positive number", f"{where}=1")
    shares = {
        "data.max_bad_fraction": config.data.max_bad_fraction,
        "data.heldout_fraction": config.data.heldout_fraction,
        "optimizer.warmup_fraction": config.optimizer.warmup_fraction,
    }
    if isinstance(config.adapter, LoraAdapter):
        shares["adapter.dropout"] = config.adapter.dropout
    for where, share in shares.items():
        if not 0 <= share < 1:
            yield problem(where, share, "a share from 0 up to, not including, 1", f"{where}=0.01")
    if config.seed < 0:
        yield problem("seed", config.seed, "0 or more", "seed=0")
    if config.trainer.micro_tokens < config.data.max_tokens:
        yield problem(
            "trainer.micro_tokens",
            config.trainer.micro_tokens,
            f"room for one example of data.max_tokens={config.data.max_tokens}",
            f"trainer.micro_tokens={config.data.max_tokens}",
        )


def _mix(config: RunConfig) -> Iterator[str]:
    for name, take in config.data.take.items():
        where = f"data.take.{name}"
        if name not in config.data.sources:
            yield problem(where, "a source the mix does not have", "one of its sources", nearest(name, config.data.sources))
        chosen = {key: value for key, value in vars(take).items() if value is not None}
        if len(chosen) > 1:
            yield problem(where, " and ".join(chosen), "one of count, fraction and weight", "removing all but one")
        for key, value in chosen.items():
            if value < 0:
                yield problem(f"{where}.{key}", value, "0 or more", f"{where}.{key}=1")
    for name, source in config.data.sources.items():
        if source.name != name:
            where = f"data.sources.{name}.name"
            yield problem(where, repr(source.name), "the name it is listed under", f"{where}={name}")
    for language, count in config.data.quota.items():
        if count < 0:
            yield problem(f"data.quota.{language}", count, "0 or more rows", f"~data.quota.{language}")


def _model(config: RunConfig) -> Iterator[str]:
    model = config.model
    given = [key for key in ("path", "from_cell", "fresh") if getattr(model, key) is not None]
    if len(given) != 1:
        yield problem("model", " and ".join(given) or "no weights", "one of path, from_cell and fresh", "model=tiny")
    if model.fresh is not None and "model_type" not in model.fresh:
        yield problem("model.fresh", sorted(model.fresh), "a model_type among its keys", "model.fresh.model_type=llama")
    if model.fresh is not None and model.tokenizer is None:
        yield problem("model.tokenizer", None, "a tokenizer for a fresh model", "model.tokenizer=train")


def _pairs(config: RunConfig) -> Iterator[str]:
    trainer, precision = config.trainer, config.precision.kind
    quantised = precision in (Precision.int8, Precision.nf4)
    if quantised and isinstance(config.adapter, NoAdapter) and config.data.sources:
        yield problem(
            f"precision={precision.value} with adapter=none",
            "quantised weights to train",
            "an adapter over a quantised base",
            "adapter=lora or precision=bf16",
        )
    if precision is Precision.int8 and trainer.strategy is Strategy.fsdp:
        yield problem("precision=int8 with trainer=fsdp", "8-bit weights to shard", "weights that shard", "precision=nf4")
    if quantised and config.model.fresh is not None:
        yield problem(
            f"precision={precision.value} with model.fresh",
            "random weights to quantise",
            "a trained base",
            "precision=fp32",
        )
    if trainer.strategy is Strategy.fsdp and trainer.accelerator is Accelerator.cpu:
        yield problem(
            "trainer=fsdp on a CPU",
            "sharding without a GPU, which torch refuses",
            "a GPU for each process",
            "trainer=ddp_cpu, or trainer.accelerator=gpu",
        )
    if trainer.strategy is Strategy.single and trainer.devices > 1:
        yield problem("trainer.devices", trainer.devices, f"1 with trainer={trainer.name}", "trainer=ddp_cpu or trainer=ddp")
    if (config.stage.kind is Stage.pretrain) != (config.template.name == "plain"):
        wanted = "plain" if config.stage.kind is Stage.pretrain else "alpaca"
        yield problem(
            "template",
            config.template.name,
            f"template={wanted} in stage={config.stage.kind.value}",
            f"template={wanted}",
        )
    if config.optimizer.global_batch < trainer.devices:
        yield problem(
            "optimizer.global_batch",
            config.optimizer.global_batch,
            f"an example for each of {trainer.devices} devices",
            f"optimizer.global_batch={trainer.devices}",
        )


def _standin(model: ModelConfig) -> ModelConfig:
    """The small model that runs in the paper model's place, under the paper model's name."""
    small = compose([f"model={model.standin}", "scale=paper"]).model
    return dataclasses.replace(small, name=model.name, title=model.title, standin=model.standin)


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
        problems.append(problem(where, "nothing", "a value", f"{where}=..."))
        return None
    if isinstance(kind, type) and issubclass(kind, Enum):
        word = value.value if isinstance(value, Enum) else value
        if word in [member.value for member in kind]:
            return kind(word)
        words = [str(member.value) for member in kind]
        problems.append(problem(where, repr(value), f"one of {', '.join(words)}", nearest(str(value), words, 1)))
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    expected = wanted.get(kind, "a list" if typing.get_origin(kind) is list else "a mapping")
    problems.append(problem(where, repr(value), expected, "python train.py --cfg job to see what is set"))
    return None


def _record(kind: type, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(problem(where or "config", repr(value), "a mapping", "a config group's option"))
        return None
    if kind in ALTERNATIVES:
        choices = ALTERNATIVES[kind]
        chosen = value.get("kind")
        if chosen not in choices:
            problems.append(problem(f"{where}.kind", repr(chosen), f"one of {', '.join(choices)}", f"{where}=lora"))
            return None
        kind = choices[cast(str, chosen)]
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            at = f"{where}.{key}".lstrip(".")
            problems.append(problem(at, "an unknown key", f"a key of {where or 'the config'}", nearest(str(key), hints)))
    fields = {
        key: _value(hints[key], part, f"{where}.{key}".lstrip("."), problems) for key, part in value.items() if key in hints
    }
    for item in dataclasses.fields(kind):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if item.name not in fields and (required or item.default == "???"):
            at = f"{where}.{item.name}".lstrip(".")
            problems.append(problem(at, "nothing", "a value", f"{at}=..."))
            fields[item.name] = None
    return kind(**fields)


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
