"""Two finished cells → what differs between them: what they are made of, how they score, and which items changed. Torch-free.

Every difference says what it changes: `training` is in the cells' identity, `judging` in that of their evaluation, `rounding` may
move the last digits, and `no` changes no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from babeltune import comparison, statistics
from babeltune.errors import ConfigError, nearest, problem
from babeltune.records import Score
from babeltune.results import RunResult, damaged, evaluation_folder, read_evaluations, read_json, read_replies, read_result
from babeltune.tables import Table, number

MOST_CHARS = 60
"""Of a value, a question or a reply in a table."""
MOST_GROUPS = 20
"""Categories that are listed, those that changed most first."""
MOST_ITEMS = 3
"""Items that are shown, each way."""
SHORT = 8
"""Hexadecimal digits of a digest that are shown."""
LEAST_PREFIX = 4
"""Digits of an identity that may name a cell."""
ROUNDING = ("trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.threads", "trainer.micro_tokens")
"""Options that change the order in which numbers are summed up, and nothing else."""
JUDGING = ("evaluation", "decoding", "judge", "template")
"""Groups that say how a cell is judged."""
BASE = ("path", "revision", "from_cell", "fresh", "tokenizer", "vocabulary", "answers", "adapter")
"""Keys of a model that its base follows from."""
NOTHING = "—"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished cell as it is on disk."""

    folder: Path
    parts: Mapping[str, Any]
    """What its identity is made of."""
    config: Mapping[str, Any]
    result: RunResult
    evaluation: str
    """The one that is compared."""
    asked: Mapping[str, Any]
    scores: Mapping[str, Score]

    @property
    def judged(self) -> Path:
        return evaluation_folder(self.folder, self.evaluation)
