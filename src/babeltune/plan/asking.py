"""`plan=true` as the command line answers it: which cells there are, and what each would take. Torch-free."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from babeltune import config as configs
from babeltune import lean, planned
from babeltune.cells import Cell, cache_folder, cell_of, parent_config
from babeltune.data import sources
from babeltune.errors import BabelTuneError, ModelError, problem
from babeltune.grid import terminable
from babeltune.options import PrepareStage, RunConfig
from babeltune.planned import Facts
from babeltune.results import read_json
from babeltune.suites import NoSuite


@dataclass(frozen=True, slots=True)
class Line:
    """A cell of a plan."""

    name: str
    """Its folder's, or where that is not known what it is made of."""
    config: RunConfig
    cell: Cell | None
    """None where a source is missing: without its bytes a cell has no identity."""
    state: str
    """done, `trained, not judged`, `started: step k of n`, or new."""
    missing: tuple[str, ...] = ()
    """What is not here, a sentence each."""
    facts: Facts = field(default_factory=Facts)
    steps_done: int = 0
    """Up to its newest checkpoint."""
    actual: dict[str, Any] = field(default_factory=dict)
    """What training took, where it is done."""

    @property
    def is_done(self) -> bool:
        return self.state == "done"


def lines(wanted: Sequence[RunConfig]) -> list[Line]:
    """A line for each cell that a command would run, and for those they stand on, with all that can be found out.

    Nothing is trained. Mixes are prepared, and plans of cells that have steps to do are kept for when they are trained.
    """
    found: dict[str, Line] = {}
    for config in wanted:
        for one in [*_parents(config), config]:
            line = _line(one)
            found.setdefault(f"{line.name} {line.cell.evaluation if line.cell else ''}", line)
    whole = list(found.values())
    left = [line for line in whole if not line.is_done]
    told = dict(zip(map(id, left), _measured(left), strict=True))
    done = [dataclasses.replace(line, facts=told[id(line)]) if id(line) in told else line for line in whole]
    for line in done:
        if line.cell is not None and not line.cell.is_trained:
            planned.keep(cache_folder(line.config), line.cell.identity, line.facts)
    return [_counted(line) for line in done]


def _parents(config: RunConfig) -> list[RunConfig]:
    """The configs of the cells that a cell stands on, the first to be run first."""
    parent = None if isinstance(config.stage, PrepareStage) else parent_config(config)
    return [] if parent is None else [*_parents(parent), parent]


def _line(config: RunConfig) -> Line:
    """A cell with its state. What of its data or its suite is missing is said, and left out."""
    missing = tuple(_missing(config))
    name = f"{config.data.name}-{config.model.name}-{config.adapter.kind}-s{config.seed}"
    if any(_is_away(source.name, config) for source in config.data.sources.values()):
        return Line(name, config, None, "new", missing)
    try:
        cell = cell_of(config)
    except BabelTuneError as error:
        bare = dataclasses.replace(config, evaluation=NoSuite(name="none"))
        try:
            cell = cell_of(bare)
        except BabelTuneError as first:
            return Line(name, config, None, "new", (*missing, str(first)))
        config, missing = bare, (*missing, str(error))
    state, steps_done = _state(cell)
    return Line(cell.folder.name, config, cell, state, missing, steps_done=steps_done, actual=_actual(cell))


def _missing(config: RunConfig) -> Iterator[str]:
    root = Path(config.paths.data)
    for source in config.data.sources.values():
        if not _is_away(source.name, config):
            continue
        where = f"not in {root / source.name}"
        yield f"{source.name}: {where}; {f'a run fetches {source.hub_id}, a plan does not' if source.hub_id else 'no hub id'}"


def _is_away(name: str, config: RunConfig) -> bool:
    """Whether a source of the mix is not on this machine."""
    source = next(one for one in config.data.sources.values() if one.name == name)
    if source.toy is not None or (source.hub_id is not None and Path(source.hub_id).is_dir()):
        return False
    try:
        return not sources.locate(source, Path(config.paths.data))
    except BabelTuneError:
        return True


def _state(cell: Cell) -> tuple[str, int]:
    """Where a cell stands, and the steps up to its newest checkpoint."""
    if cell.is_done:
        return "done", 0
    if cell.is_trained:
        return "trained, not judged", 0
    steps = [int(path.stem.removeprefix("step-")) for path in cell.folder.glob("checkpoints/step-*.ckpt")]
    return (f"started: step {max(steps):,}", max(steps)) if steps else ("new", 0)


def _actual(cell: Cell) -> dict[str, Any]:
    """What training took and what was planned, as the cell's folder has them."""
    if not cell.is_trained:
        return {}
    facts: dict[str, Any] = read_json(cell.folder / "trained.json")
    return {name: value for name, value in facts.items() if name != "ledger"}


def _counted(line: Line) -> Line:
    """A started cell with how many steps there are."""
    if line.steps_done and line.facts.steps:
        return dataclasses.replace(line, state=f"{line.state} of {line.facts.steps:,}")
    return line


def _measured(left: Sequence[Line]) -> list[Facts]:
    """What a process with torch finds out about cells. Raises ModelError when it dies."""
    if not left:
        return []
    asked = [
        {
            "name": line.name,
            "config": configs.dump(line.config),
            "is_trained": line.cell is not None and line.cell.is_trained,
            "has_data": line.cell is not None,
        }
        for line in left
    ]
    environment = lean.environment(left[0].config.trainer.threads)
    command = [sys.executable, "-m", "babeltune.plan.measuring"]
    with (
        terminable(),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        ) as process,
    ):
        try:
            said, _ = process.communicate(json.dumps(asked))
        except BaseException:
            process.terminate()  # it ends what it has started, and takes its scratch folders with it
            raise
    if process.returncode:
        got = f"a process that ended with exit code {process.returncode} while it looked at the cells"
        raise ModelError(problem("plan", got, "an answer", "the lines above, or the command without plan=true"))
    return [planned.facts_of(json.loads(line)) for line in said.splitlines()]
