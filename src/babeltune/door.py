"""What happens between the command line and the grid: composing, refusing in one sentence, running, printing the table."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from babeltune import config as configs
from babeltune.errors import BabelTuneError, nearest, problem
from babeltune.options import ALTERNATIVES, RunConfig

REFUSED = 2
"""Exit code when nothing was run because what was asked cannot be."""
FAILED = 1
"""Exit code when some cell failed."""


def main(arguments: list[str]) -> int:
    """Run what the command line asks for. Returns the exit code; prints one sentence for everything that it refuses."""
    if any(word in ("--help", "-h") for word in arguments):
        from babeltune.help import text

        print(text())
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra's errors come here in place of being printed with their traces
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    configs.register()
    outcome: list[int] = []
    enter = hydra.main(config_path=str(configs.CONF), config_name="train", version_base="1.3")(
        lambda composed: outcome.append(run_grid([([], composed)]))
    )
    sys.argv = [sys.argv[0], *arguments]
    try:
        with _scratch(), _hydra_returns():
            enter()
    except BabelTuneError as error:
        return refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return refuse(explain(error))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except _Finished as finished:
        return finished.code
    return max(outcome, default=0)


class _Finished(BaseException):
    """A grid's exit code, on its way through Hydra, which keeps no launcher's return value."""

    def __init__(self, code: int) -> None:
        self.code = code


def run_grid(composed: Sequence[tuple[Sequence[str], Any]]) -> int:
    """Run one or many composed configs as cells of one grid and print their table. Returns the exit code."""
    from babeltune import comparison, grid
    from babeltune.cells import with_parents

    wanted = []
    problems: list[str] = []
    for overrides, tree in composed:
        try:
            wanted.append(configs.load(tree))
        except BabelTuneError as error:
            named = " ".join(overrides)
            problems += [f"{named}: {line}" if len(composed) > 1 else line for line in str(error).splitlines()]
    if problems:
        raise configs.ConfigError("\n".join(dict.fromkeys(problems)))
    cells = with_parents(wanted)
    standings = grid.run(cells, workers=wanted[0].grid.workers)
    record = comparison.write_manifest(wanted, cells)
    print(comparison.summary(record, standings))
    failed = [standing for standing in standings if standing.state != "done" and standing.state != "kept"]
    for standing in failed:
        print(f"error: {standing.cell.folder.name}: {standing.note}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(standings)} cells did not finish; the same command runs them again", file=sys.stderr)
    return FAILED if failed else 0


def launch(composed: Sequence[tuple[Sequence[str], Any]]) -> None:
    """`run_grid` for Hydra's launcher."""
    raise _Finished(run_grid(composed))


def refuse(text: str) -> int:
    for line in text.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return REFUSED


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's errors in the one shape of a message."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return problem(group, repr(name), f"one of the {len(options)} options in conf/{group}", nearest(name, options))
    if isinstance(error, OverrideParseException):
        return problem("command line", repr(error.override), "group=option or key=value", "python train.py --help")
    cause = error.__cause__ or error.__context__ or error
    words = str(error).splitlines()[0]
    if (found := re.search(r"Could not override '(.+?)'", words)) is not None:
        return _unknown(found[1])
    if isinstance(cause, OmegaConfBaseException) and (found := re.search(r"override (\S+?)=(.*)", words)) is not None:
        return problem(found[1], repr(found[2]), _wanted(str(cause)), "python train.py --help")
    if (found := re.search(r"'?([\w./]+)'? ", words)) is not None and "Key" in str(cause):
        return _unknown(str(getattr(cause, "full_key", "") or found[1]))
    return problem("command line", " ".join(str(error).split())[:300], "a config that composes", "python train.py --help")


def _wanted(words: str) -> str:
    found = re.search(r"could not be converted to (\w+)", words)
    names = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
    if found is not None:
        return names.get(found[1], f"a value of type {found[1]}")
    found = re.search(r"valid values: \[(.+?)\]", words) or re.search(r"expected one of \[(.+?)\]", words)
    return f"one of {found[1]}" if found else " ".join(words.split())[:160]


def _unknown(key: str) -> str:
    """An unknown key, with the nearest there are at its level."""
    path = key.lstrip("+~").split("@")[0].split(".")
    known = _keys(path[:-1])
    hint = nearest(path[-1], known) if known else "python train.py --cfg job"
    where = ".".join(path[:-1])
    options = f"a key of {where}" if where else "a config group or key"
    return problem(key, "an unknown key", options, ".".join([where, hint]).lstrip("."))


def _keys(path: list[str]) -> list[str]:
    """The keys that a part of the config has."""
    kinds: list[Any] = [RunConfig]
    for name in path:
        kinds = [hints[name] for kind in kinds if name in (hints := typing.get_type_hints(kind))]
        kinds = [other for kind in kinds for other in [kind, *ALTERNATIVES.get(kind, {}).values()] if isinstance(kind, type)]
    return [key for kind in kinds for key in typing.get_type_hints(kind)]


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
