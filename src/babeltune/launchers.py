"""Where the cells of a grid run: one dataclass per option of `hydra/launcher`, each field with its meaning and unit.

They are Hydra's schema for `hydra.launcher`. Nothing here changes a number, so nothing of it is in a cell's identity.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from babeltune.errors import ConfigError, nearest, problem

PLUGIN = "hydra_plugins.babeltune_launcher.BabeltuneLauncher"


@dataclass(kw_only=True)
class LocalLauncher:
    """Run the cells on this machine, `grid.workers` at a time."""

    _target_: str = PLUGIN
    kind: str = "babeltune"


@dataclass(kw_only=True)
class SlurmLauncher:
    """Submit the cells to Slurm as arrays of jobs, one job for each cell and one task for each of its devices."""

    _target_: str = PLUGIN
    kind: str = "slurm"
    partition: str | None = None
    """Null for the cluster's own choice; so for all that can be null here."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int | None = None
    """Minutes that a job may take; null for the partition's limit. A cell that is not done by then is queued again and goes on."""
    mem_gb: float | None = None
    """Memory of a node's share, GiB."""
    cpus_per_task: int | None = None
    """Null for `trainer.threads`."""
    gpu_type: str | None = None
    """Which GPUs to ask for, as the cluster calls them: a100. How many follows from `trainer`."""
    array_parallelism: int = 100
    """Jobs of an array that may run at a time."""
    signal_delay_s: int = 120
    """Seconds before its time is up at which a job is told to write a checkpoint."""
    max_requeues: int = 20
    """How often a cell may be queued again before it has failed."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell that a job begins with: module load cuda."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Any other options of sbatch: {exclude: node7}."""
    wait: bool = True
    """Whether to watch until every cell has ended; false ends the command when the jobs are queued."""
    poll_seconds: float = 10.0
    """How often the queue is asked for."""


@dataclass(kw_only=True)
class RayLauncher:
    """Run each cell as a task of Ray, on a node that has its devices free."""

    _target_: str = PLUGIN
    kind: str = "ray"
    address: str | None = None
    """The cluster's: auto for the one that this machine belongs to; null starts one on this machine alone."""
    cpus_per_task: int | None = None
    """Cores that a process of a cell is given; null for `trainer.threads`."""
    resources: dict[str, float] = field(default_factory=dict)
    """Resources of the cluster's own that a cell needs: {a100: 1}."""
    retries: int = 3
    """How often a cell is taken up again elsewhere when its node is lost."""
    poll_seconds: float = 2.0
    """How often the cells are looked at."""


Launcher = LocalLauncher | SlurmLauncher | RayLauncher

LAUNCHERS: dict[str, type[LocalLauncher] | type[SlurmLauncher] | type[RayLauncher]] = {
    "babeltune": LocalLauncher,
    "slurm": SlurmLauncher,
    "ray": RayLauncher,
}
"""By the name of the option."""


def read(tree: Mapping[str, Any]) -> Launcher:
    """The launcher that a composed `hydra.launcher` means.

    Raises ConfigError with every unknown key (a `+` switches Hydra's own guard off) and every value that cannot be.
    """
    kind = str(tree.get("kind"))
    if kind not in LAUNCHERS:
        got = str(tree.get("_target_", "nothing")).rpartition(".")[2]
        raise ConfigError(problem("hydra/launcher", got, f"one of {', '.join(LAUNCHERS)}", "hydra/launcher=slurm"))
    known = keys(kind)
    problems = [
        problem(f"hydra.launcher.{key}", "an unknown key", f"a key of hydra/launcher={kind}", near(key, kind))
        for key in tree
        if key not in known
    ]
    launcher = LAUNCHERS[kind](**{key: value for key, value in tree.items() if key in known})
    problems += _impossible(launcher)
    if problems:
        raise ConfigError("\n".join(problems))
    return launcher


def keys(kind: str) -> list[str]:
    """What may be set of a launcher."""
    return [item.name for item in dataclasses.fields(LAUNCHERS[kind])]


def near(key: str, kind: str) -> str:
    """A hint for a key that a launcher does not know: the launcher that does, or the nearest key."""
    owners = [name for name in LAUNCHERS if key in keys(name)]
    if owners:
        return f"hydra/launcher={owners[0]}"
    known = [one for one in keys(kind) if one not in ("_target_", "kind")]
    return f"hydra.launcher.{nearest(key, known, 1)}" if known else "leaving it out"


def refusal(key: str, value: str, is_unknown: bool) -> str:
    """The sentence for a `hydra.launcher.KEY=VALUE` that Hydra refuses."""
    kind = next((name for name in reversed(LAUNCHERS) if key in keys(name)), "slurm")
    if is_unknown and "dict" in str(typing.get_type_hints(LAUNCHERS[kind]).get(key, "")):
        hint = f"'+hydra.launcher.{key}={{NAME: VALUE}}'"
        return problem(f"hydra.launcher.{key}", "an entry that is not there yet", "a + before it", hint)
    if is_unknown:
        return problem(f"hydra.launcher.{key}", "an unknown key", "a key of the launcher that is chosen", near(key, kind))
    hint = str(typing.get_type_hints(LAUNCHERS[kind]).get(key, str))
    words = {"list": "a list", "dict": "keys with values", "int": "a whole number", "float": "a number", "bool": "true or false"}
    expected = next((said for part, said in words.items() if part in hint), "a text")
    default = next((item.default for item in dataclasses.fields(LAUNCHERS[kind]) if item.name == key), None)
    typed = "null" if default is None else default if isinstance(default, (int, float, str)) else "VALUE"
    return problem(f"hydra.launcher.{key}", repr(value), expected, f"hydra.launcher.{key}={str(typed).lower()}")


def _impossible(launcher: Launcher) -> Iterator[str]:
    """Counts and times that are none."""
    least = {"timeout_min": 1, "array_parallelism": 1, "cpus_per_task": 1, "signal_delay_s": 0, "max_requeues": 0, "retries": 0}
    hints = typing.get_type_hints(type(launcher))
    for key in hints:
        value = getattr(launcher, key)
        if key in least and value is not None and value < least[key]:
            yield problem(f"hydra.launcher.{key}", value, f"at least {least[key]}", f"hydra.launcher.{key}={max(1, least[key])}")
        if key in ("poll_seconds", "mem_gb") and value is not None and value <= 0:
            yield problem(f"hydra.launcher.{key}", value, "more than 0", f"hydra.launcher.{key}=8")
    if not isinstance(launcher, SlurmLauncher) or not launcher.timeout_min or launcher.timeout_min < 0:
        return
    if launcher.signal_delay_s >= 60 * launcher.timeout_min:
        got = f"{launcher.signal_delay_s} s of {launcher.timeout_min} min"
        yield problem(
            "hydra.launcher.signal_delay_s",
            got,
            "less than the job's whole time",
            f"hydra.launcher.signal_delay_s={30 * launcher.timeout_min}",
        )
