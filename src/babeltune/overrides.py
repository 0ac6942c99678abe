"""Keys and values as Hydra's command line reads them. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def listed(entry: Mapping[str, Any]) -> list[str]:
    """An entry of `grid.cells` as overrides.

    >>> listed({"data": "none", "optimizer.clip": None, "evaluation.prompt": "Answer: {question}"})
    ['data=none', 'optimizer.clip=null', 'evaluation.prompt="Answer: {question}"']
    """
    return [f"{key}={_written(value)}" for key, value in entry.items()]


def _written(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    match value:
        case str() if re.fullmatch(r"[A-Za-z]\w*", value, re.ASCII) and value.lower() not in (
            "null",
            "true",
            "false",
            "nan",
            "inf",
        ):
            return value
        case str():
            return QuotedString(text=value, quote=Quote.double).with_quotes()
        case list():
            return f"[{','.join(map(_written, value))}]"
        case dict():
            return "{" + ",".join(f"{key}:{_written(part)}" for key, part in value.items()) + "}"
        case None:
            return "null"
        case _:
            return str(value)
