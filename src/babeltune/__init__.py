"""Controlled experiments on instruction-tuning data.

    >>> import babeltune
    >>> config = babeltune.compose(["data=toy_zh", "seed=1"])
    >>> result = babeltune.run(config)
    >>> result.scores["toy/exact_match"].value

Importing this takes no torch; running does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from babeltune.config import compose
from babeltune.errors import BabelTuneError, ConfigError, DataError, EvalError, ModelError, OutputError
from babeltune.options import RunConfig
from babeltune.records import Score
from babeltune.results import RunResult, find_results, read_result

if TYPE_CHECKING:
    from babeltune.cells import Cell

__all__ = [
    "BabelTuneError",
    "ConfigError",
    "DataError",
    "EvalError",
    "ModelError",
    "OutputError",
    "RunConfig",
    "RunResult",
    "Score",
    "compose",
    "find_results",
    "read_result",
    "run",
]


def run(config: RunConfig | Cell) -> RunResult:
    """Train and judge one cell in this process, the cells that it stands on first; what is on disk is not done again.

    Raises a BabelTuneError that says in one sentence what is wrong and what to try.
    """
    from babeltune.cells import Cell, with_parents
    from babeltune.runner import run as run_cell

    cells = [config] if isinstance(config, Cell) else with_parents([config])
    results = [run_cell(cell) for cell in cells]
    return results[-1]
