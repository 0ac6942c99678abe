"""Composed configs of the papers' cells, kept between runs: a table asks for dozens, and each takes a sixth of a second."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babeltune.config import CONF, compose, dump
from babeltune.errors import OutputError
from babeltune.identity import digest
from babeltune.results import read_json, write_json


class Recipes:
    """The config that a row's overrides mean, from memory, from the folder `kept`, or composed."""

    def __init__(self, kept: Path) -> None:
        files = [*CONF.rglob("*.yaml"), *Path(__file__).parents[1].glob("*.py")]
        self._version = digest(sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files))
        self._kept = kept
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, where: Mapping[str, Any], scale: str) -> dict[str, Any]:
        """The whole config. What was kept counts until a file of `conf/` or of the code that composes is touched."""
        words = [*overrides(where), f"scale={scale}"]
        key = digest([self._version, words])
        if key not in self._known:
            self._known[key] = self._read(key) or self._composed(key, words)
        return self._known[key]

    def _read(self, key: str) -> dict[str, Any] | None:
        with contextlib.suppress(OutputError):  # not kept yet, or half of it: it is composed
            found: dict[str, Any] = read_json(self._kept / f"{key}.json")
            return found
        return None

    def _composed(self, key: str, words: list[str]) -> dict[str, Any]:
        tree = dump(compose(words))
        with contextlib.suppress(OutputError):  # results of somebody else may be read only: then nothing is kept
            if self._kept.parents[1].is_dir():
                write_json(self._kept / f"{key}.json", tree)
        return tree


def overrides(where: Mapping[str, Any]) -> list[str]:
    """As on a command line."""
    return [f"{key}={_quoted(value)}" for key, value in where.items()]


def _quoted(value: Any) -> str:
    text = str(value)
    return text if re.fullmatch(r"[\w./:-]+", text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
