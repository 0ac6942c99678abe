"""A paper's table beside our own numbers: paper | ours | difference | confidence. Torch-free; reads results and nothing else.

The reported values are data, one file for a table in `conf/paper/`. A row names the cell that reproduces it, a column the score;
whatever finished cells match are shown, with what sets them apart from the paper's said below, and the command that makes a
missing one.
"""

from __future__ import annotations

from pathlib import Path

from babeltune.errors import ConfigError, nearest, problem
from babeltune.papers import layout, spec
from babeltune.papers.finding import Finished
from babeltune.tables import Table

ALL = "all"
"""In the place of a table's name: every table there is."""


def names() -> list[str]:
    """Every table there is."""
    return list(spec.files())


def table(name: str, outputs: Path, near: Path | None = None) -> Table:
    """The paper's table with what has been run so far. Links lead from the folder `near`, by default the current one.

    Raises ConfigError for a table that there is not, and for a file that is not one.
    """
    return _table(name, Finished(outputs), near or Path())


def tables(name: str, outputs: Path, near: Path | None = None) -> list[Table]:
    """The table of this name, or `all` of them."""
    finished = Finished(outputs)
    return [_table(one, finished, near or Path()) for one in (names() if name == ALL else [name])]


def _table(name: str, finished: Finished, near: Path) -> Table:
    files = spec.files()
    if name not in files:
        raise ConfigError(problem("paper", repr(name), f"one of {', '.join(files)}, {ALL}", nearest(name, files)))
    return layout.table(*spec.read(files[name]), finished, near)
