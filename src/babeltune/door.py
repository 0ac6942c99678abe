"""What happens between the command line and the grid: composing, refusing in one sentence, running, printing the table."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never, cast

from babeltune import config as configs
from babeltune import launchers
from babeltune.errors import BabelTuneError, ConfigError, problem
from babeltune.launchers import Launcher, LocalLauncher, RayLauncher, SlurmLauncher
from babeltune.options import ExtendVocabularyStage, GridConfig, PrepareStage, RunConfig
from babeltune.overrides import listed

if TYPE_CHECKING:
    from babeltune.cells import Cell
    from babeltune.progress import Standing

REFUSED = 2
"""Exit code when nothing was run because what was asked cannot be."""
MULTIRUN = ("-m", "--multirun")
"""They may stand anywhere; Hydra wants them before or behind all overrides."""
FAILED = 1
"""Exit code when some cell failed."""


def main(arguments: list[str]) -> int:
    """Run what the command line asks for. Returns the exit code; prints one sentence for everything that it refuses."""
    if any(word in ("--help", "-h") for word in arguments):
        from babeltune.help import text

        try:
            print(text(), flush=True)
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra's errors come here in place of being printed with their traces
    import hydra

    configs.register()
    outcome: list[int] = []
    enter = hydra.main(config_path=str(configs.CONF), config_name="train", version_base="1.3")(
        lambda composed: outcome.append(alone(composed))
    )
    sys.argv = [sys.argv[0], *sorted(arguments, key=lambda word: word not in MULTIRUN)]
    try:
        with _scratch(), _hydra_returns():
            enter()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except _Finished as finished:
        return finished.code
    except Exception as error:
        if not _is_hydras(error):
            raise
        return refuse("\n".join(_diagnosed(arguments) or [" ".join(str(error).split())]))
    return max(outcome, default=0)


class _Finished(BaseException):
    """A grid's exit code, on its way through Hydra, which keeps no launcher's return value."""

    def __init__(self, code: int) -> None:
        self.code = code


def launch(master: Any, jobs: Sequence[Sequence[str]], compose: Callable[[Sequence[str]], Any]) -> None:
    """`answer` for Hydra's launcher: of the jobs that its sweeper made of the axes, and of the cells that `grid.cells` lists.

    `master` is the grid's own composed config; `compose` makes one of a job's overrides.
    """
    from omegaconf import OmegaConf

    params = master.hydra.sweeper.params or {}
    entries: Any = OmegaConf.to_container(master.grid.cells)
    typed = list(dict.fromkeys(tuple(job[len(params) :]) for job in jobs))  # a job begins with the file's own axes
    composed = [(job, compose(job)) for job in jobs] if params or not entries else []
    problems: list[str] = []
    for (place, entry), words in itertools.product(enumerate(entries), typed):
        where = f"grid.cells[{place}]"
        if not entry or not isinstance(entry, dict):
            problems.append(problem(where, repr(entry), "keys with values", "{data: none}"))
            continue
        overrides = [*listed(entry), *words]
        try:
            composed.append(([f"{where}:", *overrides], compose(overrides)))
        except Exception as error:  # Hydra raises a dozen kinds, all about the overrides
            problems += [f"{where}: {line}" for line in configs.problems_of(overrides) or [" ".join(str(error).split())]]
    raise _Finished(refuse("\n".join(dict.fromkeys(problems))) if problems else answer(composed, master.hydra.launcher))


def alone(composed: Any) -> int:
    """`answer` for a command line without axes. Raises nothing; a list of cells has no meaning there."""
    from hydra.core.hydra_config import HydraConfig

    if composed.grid.cells:
        return refuse(problem("grid.cells", f"{len(composed.grid.cells)} cells for a single run", "a grid", "-m"))
    return answer([([], composed)], HydraConfig.get().launcher)


def answer(composed: Sequence[tuple[Sequence[str], Any]], launcher: Any) -> int:
    """`run_grid`, with what it refuses printed. Hydra adds words of its own to what is raised through it.

    `launcher` is the composed `hydra.launcher`.
    """
    from omegaconf import OmegaConf

    try:
        return run_grid(composed, launchers.read(cast(dict[str, Any], OmegaConf.to_container(launcher))))
    except BabelTuneError as error:
        return refuse(str(error))


def run_grid(composed: Sequence[tuple[Sequence[str], Any]], launcher: Launcher) -> int:
    """Run one or many composed configs as cells of one grid and print their table. Returns the exit code.

    Raises ConfigError with every problem of every cell before anything runs.
    """
    from babeltune import comparison, launched
    from babeltune.cells import with_parents

    checked = _checked(composed)
    if checked[0].plan:
        return _plan(checked)
    where = launched.place(os.environ)
    launched.check(checked, where, launcher)
    wanted = comparison.named(checked)
    cells = with_parents(wanted)
    _ready([cell for cell in cells if not cell.is_done], launcher)
    if where is not None and where.rank > 0:
        launched.run(cells, where)  # this process leaves when its part is done
    record = comparison.write_manifest(wanted)
    if not all(cell.is_done for cell in cells) and (expected := comparison.outlook(wanted)):
        print(expected, file=sys.stderr)
    standings = launched.run(cells, where) if where is not None else _run(cells, launcher, wanted[0].grid)
    prepared = [config for config in wanted if isinstance(config.stage, PrepareStage)]
    print(_ledgers(standings) if len(prepared) == len(wanted) else comparison.summary(record, standings))
    for text in _vocabularies(standings):
        print(text)
    if len(wanted) > 1 and len(prepared) < len(wanted):
        from babeltune import dashboards

        dashboards.mirror(record, wanted[0].logger)
    failed = [standing for standing in standings if standing.state in ("failed", "preempted")]
    for standing in failed:
        print(f"error: {standing.cell.folder.name}: {standing.note}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(standings)} cells did not finish; the same command runs them again", file=sys.stderr)
    return FAILED if failed else 0


def _plan(wanted: Sequence[RunConfig]) -> int:
    """Print what the cells would take, and run none of them. Raises ModelError when that cannot be found out."""
    from babeltune.plan import asking, printing

    print(printing.text(asking.lines(wanted)))
    return 0


def _ready(missing: Sequence[Cell], launcher: Launcher) -> None:
    """Refuse to run cells where they cannot be, before anything is written. Raises ConfigError."""
    if not missing:
        return
    match launcher:
        case LocalLauncher():
            from babeltune import devices

            devices.check([cell.config.trainer for cell in missing])
        case SlurmLauncher():
            from babeltune.clusters import slurm

            slurm.check()
        case RayLauncher():
            from babeltune.clusters import rays

            rays.check()
        case other:
            assert_never(other)


def _run(cells: list[Cell], launcher: Launcher, asked: GridConfig) -> list[Standing]:
    """Run the cells that are not done, where the launcher says."""
    match launcher:
        case LocalLauncher():
            from babeltune import grid

            return grid.run(cells, workers=asked.workers)
        case SlurmLauncher():
            from babeltune.clusters.slurm import run as run_on_slurm

            return run_on_slurm(cells, launcher, name=asked.name or "grid")
        case RayLauncher():
            from babeltune.clusters.rays import run as run_on_ray

            return run_on_ray(cells, launcher, name=asked.name or "grid")
        case other:
            assert_never(other)


def _ledgers(standings: Sequence[Standing]) -> str:
    """What a run that only prepares prints: what is in each mix."""
    from babeltune import ledgers
    from babeltune.results import read_result

    found = [read_result(standing.cell.folder) for standing in standings]
    return "\n\n".join(ledgers.text(result) for result in found if result is not None) or "nothing was prepared"


def _vocabularies(standings: Sequence[Standing]) -> Iterator[str]:
    """What a run that extends vocabularies prints below its table: what each brings."""
    from babeltune import vocabularies
    from babeltune.results import read_result

    for standing in standings:
        if isinstance(standing.cell.config.stage, ExtendVocabularyStage) and standing.state in ("done", "kept"):
            result = read_result(standing.cell.folder)
            if result is not None:
                yield vocabularies.text(result)


def _checked(composed: Sequence[tuple[Sequence[str], Any]]) -> list[RunConfig]:
    """The cells' configs. Raises ConfigError with every problem of each, which is named by its overrides."""
    from babeltune import cells, comparison

    wanted = []
    problems: list[str] = []
    for overrides, tree in composed:
        try:
            config = configs.load(tree)
            cells.check(config)
            wanted.append(config)
        except BabelTuneError as error:
            cell = f"{' '.join(overrides)}: " if len(composed) > 1 else ""
            problems += [f"{cell}{line}" for line in str(error).splitlines()]
    problems = problems or list(comparison.check(wanted))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return wanted


def refuse(text: str) -> int:
    """Print what is refused; of several processes of a machine, the first one does."""
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) != "0":
        return REFUSED
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return REFUSED


def _is_hydras(error: BaseException) -> bool:
    """Whether an error comes from composing, as opposed to a mistake of ours while cells run."""
    trace = error.__traceback__
    ours = False
    while trace is not None:
        ours = ours or trace.tb_frame.f_code is run_grid.__code__
        trace = trace.tb_next
    return not ours


def _diagnosed(arguments: Sequence[str]) -> list[str]:
    """Everything that is wrong with a command line that Hydra refuses; of a grid, the values of each axis one by one."""
    flags = [i for i, word in enumerate(arguments) if word.startswith("-")]
    alone = ("-m", "--multirun", "--resolve", "-r", "--run")
    skipped = {*flags, *(i + 1 for i in flags if arguments[i] not in alone and "=" not in arguments[i])}
    overrides = [word for i, word in enumerate(arguments) if i not in skipped]
    if not set(MULTIRUN) & set(arguments) and not any(word.startswith("sweeps=") for word in overrides):
        return configs.problems_of(overrides)
    cells = _expanded(overrides)
    if len(cells) == 1:
        return configs.problems_of(cells[0])
    return list(dict.fromkeys(f"{' '.join(cell)}: {line}" for cell in cells for line in configs.problems_of(cell)))


def _expanded(overrides: Sequence[str]) -> list[list[str]]:
    """The cells of a grid; what cannot be read stays as it is, to be refused by name."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    axes: list[list[str]] = []
    for override in overrides:
        axes.append([override])
        with contextlib.suppress(HydraException):
            parsed = OverridesParser.create().parse_override(override)
            if parsed.is_discrete_sweep():
                axes[-1] = [f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()]
    return [list(cell) for cell in itertools.product(*axes)]


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Hydra notes each multirun in a folder; ours notes grids itself, so Hydra's goes to a temporary one."""
    with tempfile.TemporaryDirectory(prefix="babeltune-") as folder:
        os.environ["BABELTUNE_SCRATCH"] = str(Path(folder))
        yield


@contextlib.contextmanager
def _hydra_returns() -> Iterator[None]:
    """Hydra ends some commands (`--cfg job`) by leaving the program; that is not a failure."""
    try:
        yield
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            raise
