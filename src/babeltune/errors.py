"""What babeltune raises on purpose, by who has to act."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BabelTuneError(Exception):
    """Base of everything raised on purpose; its text is one sentence a user can act on."""


class ConfigError(BabelTuneError):
    """The command line or a YAML file asks for something that cannot be."""


class DataError(BabelTuneError):
    """A source, a row or a mix is missing or broken."""


class ModelError(BabelTuneError):
    """A base model, tokenizer or adapter is missing, broken or does not fit."""


class EvalError(BabelTuneError):
    """A suite, a metric or a judge cannot give a score."""


class OutputError(BabelTuneError):
    """The output folder cannot be written or is full."""


class HeldError(OutputError):
    """Another process is working on the cell."""


def problem(where: str, got: object, expected: str, hint: str) -> str:
    """The one shape of a message: where, got, expected, try.

    >>> problem("data.max_rows", -5, "a positive count", "null to take every row")
    'data.max_rows: got -5; expected a positive count; try null to take every row'
    """
    return f"{where}: got {got}; expected {expected}; try {hint}"


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words most like `word`, best first, for a message's hint; all of them when none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=count, cutoff=0.5)
    return ", ".join(close or known)
