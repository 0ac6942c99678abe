"""What a cell is known by: a hash over everything that determines its numbers, and over nothing else.

Left out on purpose: where things lie (`paths`), where they are mirrored (`logger`), what they are called (names, titles, licences),
and how many devices or processes share the work (`trainer`, `grid`, `data.workers`): the global batch, the order and the loss are
the same on one device and on eight, to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from babeltune.config import dump
from babeltune.options import PrepareStage, RunConfig, SourceConfig

VERSIONS = {"data": 1, "training": 1, "evaluation": 1}
"""Raised by hand when code changes the numbers it computes from the same config and bytes."""

SOURCE_KEYS = ("language", "format", "files", "encoding", "rename", "toy")
DATA_KEYS = (
    "take",
    "quota",
    "max_rows",
    "max_tokens",
    "loss_on",
    "max_bad_fraction",
    "heldout_fraction",
    "layout",
    "order",
)


def digest(value: Any) -> str:
    """sha256 of a plain value's canonical JSON, in hex.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def training_parts(
    config: RunConfig, *, data: Mapping[str, str], template: str, base: str, cleaning: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What a cell's identity is the digest of: kept beside the results, so that two cells can be compared part by part.

    `data` is the digest of each source's cleaned bytes, `cleaning` what is done to the whole mix after that, `template` the
    digest of the template's text, `base` that of the base model (files, hub revision, or the identity of the cell it comes from).
    """
    tree = dump(config)
    parts: dict[str, Any] = {"versions": {key: VERSIONS[key] for key in ("data", "training")}, "base": base}
    if config.data.sources:
        parts |= {
            "sources": source_parts(config.data.sources, data),
            "data": _mix(tree["data"]),
            "template": template,
            "stage": tree["stage"],
            "adapter": tree["adapter"] | _targets(config),
            "optimizer": tree["optimizer"],
        }
        if cleaning:
            parts["cleaning"] = list(cleaning)
    if uses_seed(config):
        parts["seed"] = config.seed
    parts["precision"] = tree["precision"]
    if isinstance(config.stage, PrepareStage):
        return {name: part for name, part in parts.items() if name not in ("adapter", "optimizer", "precision")}
    return parts


def evaluation_id(config: RunConfig, *, data: Mapping[str, str], template: str) -> str:
    """The identity of how a cell is judged: suite, template, decoding and judge. It re-trains nothing."""
    tree = dump(config)
    keys = ("kind", "languages", "metrics", "max_items", "prompt")
    sampled = {"seed": config.seed} if config.decoding.sample else {}
    return digest(
        {
            "version": VERSIONS["evaluation"],
            "evaluation": {key: tree["evaluation"][key] for key in keys},
            "sources": source_parts({name: one for name, one in config.evaluation.sources.items() if name in data}, data),
            "heldout_fraction": config.data.heldout_fraction,
            "max_tokens": config.data.max_tokens,
            "template": template,
            "decoding": {key: value for key, value in tree["decoding"].items() if key != "name"},
            "judge": tree["judge"],
        }
        | sampled
    )


def folder(config: RunConfig, identity: str) -> Path:
    """Where a cell lives: readable in front, exact at the end. What has no effect is not in the name: one cell, not several."""
    does = config.stage.kind if isinstance(config.stage, PrepareStage) else config.adapter.kind
    adapter = f"-{does}" if config.data.sources else ""
    seed = f"-s{config.seed}" if uses_seed(config) else ""
    return Path(config.paths.outputs) / f"{config.data.name}-{config.model.name}{adapter}{seed}-{identity[:8]}"


def uses_seed(config: RunConfig) -> bool:
    """Whether anything before the evaluation is random."""
    return bool(config.data.sources) or config.model.fresh is not None


def source_parts(sources: Mapping[str, SourceConfig], data: Mapping[str, str]) -> dict[str, Any]:
    """What of each source determines numbers: how it is read, and its bytes."""
    parts = {}
    for name, source in sources.items():
        tree = dump(source)
        parts[name] = {key: tree[key] for key in SOURCE_KEYS} | {"bytes": data[name]}
    return parts


def _mix(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a mix determines numbers, without what says nothing: a null, or whose sizes a temperature of 1 is about."""
    takes = {name: {way: value for way, value in take.items() if value is not None} for name, take in tree["take"].items()}
    parts = {key: tree[key] for key in DATA_KEYS} | {"take": {name: take for name, take in takes.items() if take}}
    if tree["temperature"] != 1:
        parts |= {key: tree[key] for key in ("temperature", "temperature_over")}
    return parts


def _targets(config: RunConfig) -> dict[str, Any]:
    """The modules an adapter really attaches to, whichever group named them."""
    targets = getattr(config.adapter, "targets", None)
    return {} if targets is None else {"targets": sorted(targets or config.model.lora_targets)}
