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
from babeltune.options import Contamination, ContaminationConfig, ExtendVocabularyStage, PrepareStage, RunConfig, SourceConfig

VERSIONS = {"data": 2, "training": 2, "evaluation": 1}
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


NO_RULES = ("decoding", "prompt_tokens", "allow_code", "seconds", "memory_mb")
"""Keys of an evaluation that say how replies are made and run, and not which items there are."""

NO_COUNTING = ("judged_by", "aspects", "category_score", "pools", "macros", "score_names", "answer_ends", "standin")
"""Keys of a suite of rows that say how its items are scored."""

NOT_ITEMS = ("name", "sources", "metrics", "prompt", "batch", *NO_RULES, *NO_COUNTING)
"""Keys of an evaluation that do not decide which its items are, or that count as bytes."""


NO_ITEMS = ("name", "batch", "sources", "decoding", "allow_code", "standin")
"""Keys of a suite that say nothing of what is asked: the sources count by their bytes, its decoding as the cell's."""


NO_VERDICTS = (
    "url",
    "concurrency",
    "retries",
    "timeout",
    "max_requests",
    "max_cost",
    "prompt_price",
    "answer_price",
    "max_unreachable",
    "batch",
)
"""Keys of a judge that change what asking costs and how long it takes, never what it is asked."""


def judge_parts(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a judge's options determines its verdicts."""
    return {key: value for key, value in tree.items() if key not in NO_VERDICTS}


def digest(value: Any) -> str:
    """sha256 of a plain value's canonical JSON, in hex.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def training_parts(
    config: RunConfig,
    *,
    data: Mapping[str, str],
    template: str,
    base: str,
    cleaning: Sequence[Mapping[str, Any]] = (),
    pieces: str | None = None,
    apart: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a cell's identity is the digest of: kept beside the results, so that two cells can be compared part by part.

    `data` is the digest of each source's cleaned bytes, `cleaning` what is done to the whole mix after that, `template` the
    digest of the template's text, `base` that of the base model (files, hub revision, or the identity of the cell it comes from),
    `pieces` that of the file that a vocabulary is extended from, `apart` what must not be trained on (see `apart_parts`).
    """
    tree = dump(config)
    parts: dict[str, Any] = {"versions": {key: VERSIONS[key] for key in ("data", "training")}, "base": base}
    if config.data.sources:
        parts |= {
            "sources": source_parts(config.data.sources, data),
            "data": _mix(tree["data"]),
            "template": template,
            "stage": tree["stage"] if pieces is None else _without_learning(tree["stage"]) | {"pieces": pieces},
            "adapter": tree["adapter"] | _targets(config),
            "optimizer": tree["optimizer"],
        }
        if cleaning:
            parts["cleaning"] = list(cleaning)
        if apart is not None:
            parts["apart"] = dict(apart)
    if uses_seed(config):
        parts["seed"] = config.seed
    if config.model.answers is None:
        parts["precision"] = tree["precision"]
    if isinstance(config.stage, ExtendVocabularyStage):  # it trains nothing, and is judged in a precision all the same
        return {name: part for name, part in parts.items() if name not in ("adapter", "optimizer")}
    if isinstance(config.stage, PrepareStage):
        return {name: part for name, part in parts.items() if name not in ("adapter", "optimizer", "precision")}
    return parts


def apart_parts(config: RunConfig, *, suite: Mapping[str, str], against: Mapping[str, str]) -> dict[str, Any] | None:
    """What of the evaluation determines which rows are dropped for being in it; None when none are. `suite` and `against` are
    the digests of the data sets that items come from."""
    if config.data.contamination.action is not Contamination.drop:
        return None
    suite_keys = {key: value for key, value in dump(config.evaluation).items() if key not in NOT_ITEMS}
    return {
        "evaluation": suite_keys,
        "suite": source_parts({name: one for name, one in config.evaluation.sources.items() if name in suite}, suite),
        "compared": _compared(config, against),
    }


def _compared(config: RunConfig, against: Mapping[str, str]) -> dict[str, Any]:
    options = dump(config.data.contamination)
    sizes = {key: options[key] for key in ("words", "characters", "overlap")}
    return sizes | {"against": source_parts(config.data.contamination.against, against)}


def evaluation_id(
    config: RunConfig,
    *,
    data: Mapping[str, str],
    template: str,
    against: Mapping[str, str] | None = None,
    judge: Mapping[str, Any] | None = None,
) -> str:
    """The identity of how a cell is judged: suite, template, decoding and judge. It re-trains nothing.

    `judge` is what `evaluation.judging.naming.parts` says of the judge, files by their bytes; without it the options count as they
    are. How the training data is compared with the suite is in it where it is not the usual way, so that the report is made again.
    """
    tree = dump(config)
    asking: dict[str, Any] = {"seed": config.seed} if config.decoding.sample else {}
    asking |= {"max_tokens": config.data.max_tokens, "template": template}
    asking |= {"decoding": {key: value for key, value in tree["decoding"].items() if key != "name"}}
    return digest(
        {
            "version": VERSIONS["evaluation"],
            "evaluation": {key: value for key, value in tree["evaluation"].items() if key not in NO_ITEMS},
            "sources": source_parts({name: one for name, one in config.evaluation.sources.items() if name in data}, data),
            "heldout_fraction": config.data.heldout_fraction,
            "judge": judge_parts(tree["judge"]) if judge is None else judge,
        }
        | (asking if config.model.answers is None else {})
        | _comparing(config, against or {})
    )


def _comparing(config: RunConfig, against: Mapping[str, str]) -> dict[str, Any]:
    options = config.data.contamination
    is_reporting = options.action is not Contamination.off
    if options == ContaminationConfig(action=options.action) and is_reporting:
        return {}
    return {"contamination": _compared(config, against) if is_reporting else "off"}


def folder(config: RunConfig, identity: str) -> Path:
    """Where a cell lives: readable in front, exact at the end. What has no effect is not in the name: one cell, not several."""
    does = config.stage.kind if isinstance(config.stage, (PrepareStage, ExtendVocabularyStage)) else config.adapter.kind
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


def _without_learning(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage that learns no pieces, because it is given some."""
    return {name: part for name, part in stage.items() if name not in ("size", "coverage", "max_lines")}


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
