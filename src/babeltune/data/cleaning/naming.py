"""What a pipeline's outcome depends on beside its input: the steps' options, and the bytes of the models and files they name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from babeltune.config import dump
from babeltune.data import sources
from babeltune.steps import StepConfig

NEUTRAL = ("batch", "retries", "timeout", "max_requests", "max_failed")
"""Options that change how fast a step is or when it gives up, never what comes out of one that is through."""
NAMED = ("model", "tokenizer", "file")
"""Options that name a folder, a file or a hub id."""

LIBRARIES = {"language": "lingua-language-detector", "markdown": "markdownify"}
"""Kinds whose outcome changes with the release of a library."""


def key(steps: Mapping[str, StepConfig], cache: Path) -> list[dict[str, Any]]:
    """A plain value that is the same exactly when the steps do the same. `cache` remembers hashes of big files.

    What a step is called does not count.
    """
    return [_step(step, cache) for step in steps.values()]


def _step(step: StepConfig, cache: Path) -> dict[str, Any]:
    options = {name: value for name, value in dump(step).items() if name not in NEUTRAL}
    for name in NAMED:
        if options.get(name):
            options[name] = _named(str(options[name]), cache)
    if step.kind in LIBRARIES:
        options["library"] = version(LIBRARIES[step.kind])
    return options


def _named(place: str, cache: Path) -> str:
    """A folder or file by its bytes; a hub id as it is, with its revision beside it."""
    path = Path(place).expanduser()
    if path.is_file():
        return sources.digest_files([path], cache / sources.DIGESTS)
    if path.is_dir():
        return sources.digest_files(sorted(one for one in path.iterdir() if one.is_file()), cache / sources.DIGESTS)
    return place
