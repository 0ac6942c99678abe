"""What a base model may get wrong, and the base that an adapter of others names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from babeltune.errors import problem
from babeltune.options import ModelConfig, RunConfig

BASES = ("path", "from_cell", "fresh", "answers")
"""Where a base comes from, or what stands in its place."""


def resolved(model: ModelConfig) -> ModelConfig:
    """The model with the base that its adapter names, where it has no other. An adapter fits no stand-in of its base."""
    if model.adapter is None:
        return model
    folder, model = Path(model.adapter), dataclasses.replace(model, standin=None)
    if any(getattr(model, name) is not None for name in BASES):
        return model
    try:
        record = json.loads((folder.expanduser() / "adapter_config.json").read_text(encoding="utf-8"))
        return dataclasses.replace(
            model, path=record.get("base_model_name_or_path"), revision=model.revision or record.get("revision")
        )
    except (OSError, ValueError, AttributeError):
        return model  # whoever needs the folder's bytes says what is wrong with it


def check(config: RunConfig) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    model = config.model
    given = [key for key in BASES if getattr(model, key) is not None]
    if len(given) > 1 or not (given or model.adapter):
        hint = ", ".join(f"model.{key}=null" for key in given) or "model=tiny"
        yield problem("model", " and ".join(given) or "no weights", "one of path, from_cell, fresh and answers", hint)
    if model.tokenizer == "train" and (model.fresh is None or not config.data.sources):
        yield problem("model.tokenizer", "train", "a fresh model and a mix to learn it from", "model.tokenizer=null")
    yield from _only_judged(config)
    if model.fresh is None:
        return
    if "model_type" not in model.fresh:
        yield problem("model.fresh", sorted(model.fresh), "a model_type among its keys", "+model.fresh.model_type=llama")
    if model.tokenizer is None:
        yield problem("model.tokenizer", None, "a tokenizer for a fresh model", "model.tokenizer=train")


def _only_judged(config: RunConfig) -> Iterator[str]:
    """Recorded answers and adapters of others are judged as they are."""
    model = config.model
    for key, what in (("answers", "recorded answers"), ("adapter", "an adapter that is there already")):
        if getattr(model, key) is not None and config.data.sources:
            got = f"{what} and the mix {config.data.name} to train on"
            yield problem(f"model.{key}", got, f"{what} to judge", f"data=none, or model.{key}=null")
    if model.adapter is not None and (model.answers is not None or model.fresh is not None):
        base = "answers" if model.answers is not None else "fresh"
        yield problem("model.adapter", f"an adapter over model.{base}", "trained weights below it", "model.adapter=null")
    if model.answers is not None and config.evaluation.kind == "none":
        yield problem("model.answers", "answers without questions", "a suite to judge them on", "evaluation=toy")
