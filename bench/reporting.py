"""Runs of `side_by_side.py` as tables, and whether the bars hold."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import common
import venvs
from work import Setting

OURS, YARDSTICK, REFERENCE = "babeltune", "bare", "hf"
SPEED = {"S": 3.0, "M": 2.0}
"""Useful tokens a second, against every peer."""
MEMORY = {"S": 0.6, "M": 0.8}
"""Peak memory, against the smallest peer."""
OVERHEAD = {"M": 1.05}
"""The loop's CPU time, against the bare loop."""
SAME_LOSS = 1e-4
"""Relative, step by step."""
HEADER = (
    "system", "tokens/s", "per CPU-s", "answer tokens/s", "loop CPU-s", "wall s", "peak MB", "padding", "last loss", "× speed",
    "× memory",
)  # fmt: skip

Runs = dict[str, list[dict[str, Any]]]


def report(facts: dict[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    machine, done = facts["machine"], facts["work"]
    text = [
        f"{machine['date']}, {machine['processor']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, commit {machine['commit']}; one thread; {done['text']} text; median (least–most).",
    ]
    for setting, runs in _by_setting(facts["runs"]):
        text += [
            f"**{setting.size}**, vocabulary {setting.vocabulary:,}, {setting.precision}, {setting.steps} steps of {done['batch']}",
            common.table(HEADER, list(_rows(runs))),
            "\n".join(_findings(setting, runs)),
        ]
    text += [f"Left out: {name}: {reason}" for name, reason in facts["left_out"].items()]
    notes = [
        f"{system.title} {system.note}." for name, system in venvs.SYSTEMS.items() if system.note and name in facts["versions"]
    ]
    used = [f"{name}: " + ", ".join(f"{p} {v}" for p, v in found.items()) for name, found in facts["versions"].items()]
    return "\n\n".join([*text, *notes, "Versions. " + "; ".join(used)])


def _by_setting(runs: list[dict[str, Any]]) -> Iterator[tuple[Setting, Runs]]:
    found: defaultdict[Setting, Runs] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[Setting(**run["setting"])][run["system"]].append(run)
    yield from found.items()


def _sum(run: dict[str, Any], what: str) -> float:
    return float(sum(step[what] for step in run["steps"]))


def _median(runs: list[dict[str, Any]], what: str) -> float:
    return float(statistics.median(run[what] for run in runs))


def speed(runs: list[dict[str, Any]]) -> float:
    """Useful tokens for each CPU second of the loop, the median of the runs."""
    return float(statistics.median(_sum(run, "useful") / run["loop_cpu"] for run in runs))


def _rows(by_system: Runs) -> Iterator[tuple[str, ...]]:
    ours = by_system.get(OURS)
    for name, runs in by_system.items():
        fed = _sum(runs[0], "fed")
        yield (
            venvs.SYSTEMS[name].title,
            common.cell([_sum(run, "useful") / run["loop_wall"] for run in runs], "{:,.0f}"),
            common.cell([_sum(run, "useful") / run["loop_cpu"] for run in runs], "{:,.0f}"),
            common.cell([_sum(run, "targets") / run["loop_wall"] for run in runs], "{:,.0f}"),
            common.cell([run["loop_cpu"] for run in runs]),
            common.cell([run["wall"] for run in runs]),
            common.cell([run["peak_rss"] / common.MB for run in runs], "{:,.0f}"),
            f"{1 - _sum(runs[0], 'useful') / fed:.0%}" if fed else "",
            f"{runs[0]['steps'][-1]['loss']:.6f}",
            f"{speed(ours) / speed(runs):.2f}" if ours else "",
            f"{_median(ours, 'peak_rss') / _median(runs, 'peak_rss'):.2f}" if ours else "",
        )


def _findings(setting: Setting, by_system: Runs) -> Iterator[str]:
    """The bars, and where a system did not see what the others saw."""
    ours = by_system.get(OURS)
    if not ours:
        return
    peers = {name: runs for name, runs in by_system.items() if name not in (OURS, YARDSTICK)}
    if peers and setting.size in SPEED:
        fastest = max(peers, key=lambda name: speed(peers[name]))
        smallest = min(peers, key=lambda name: _median(peers[name], "peak_rss"))
        gain = speed(ours) / speed(peers[fastest])
        share = _median(ours, "peak_rss") / _median(peers[smallest], "peak_rss")
        yield "- " + common.held(f"useful tokens per CPU-s × {fastest}, the fastest peer", gain, SPEED[setting.size], at_least=True)
        yield "- " + common.held(f"peak memory × {smallest}, the smallest peer", share, MEMORY[setting.size], at_least=False)
    if YARDSTICK in by_system and setting.size in OVERHEAD:
        overhead = _median(ours, "loop_cpu") / _median(by_system[YARDSTICK], "loop_cpu")
        yield "- " + common.held("CPU time of the loop × the bare loop", overhead, OVERHEAD[setting.size], at_least=False)
    if REFERENCE in by_system:
        off = _loss_difference(ours[0], by_system[REFERENCE][0])
        yield "- " + common.held("largest relative difference of a step's loss from HF Trainer", off, SAME_LOSS, at_least=False)
    for name, runs in by_system.items():
        yield from (f"- {venvs.SYSTEMS[name].title}: {words}" for words in _differences(ours[0], runs[0]))


def _loss_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(one["steps"], other["steps"], strict=True)))


def _differences(ours: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    """Where a run saw other tokens than ours, or began with another loss, or went another way from there."""
    if len(run["steps"]) != len(ours["steps"]):
        yield f"made {len(run['steps'])} steps, not {len(ours['steps'])}"
        return
    for what, said in (("useful", "tokens"), ("targets", "targets")):
        if _sum(run, what) != _sum(ours, what):
            yield f"saw {_sum(run, what):,.0f} {said}, not {_sum(ours, what):,.0f}"
    first, begun = ours["steps"][0]["loss"], run["steps"][0]["loss"]
    off = abs(first - begun) / first
    if off > SAME_LOSS:
        yield f"began with a loss of {begun:.6f}, not {first:.6f}"
    elif (off := _loss_difference(run, ours)) > SAME_LOSS:
        yield f"began alike; later a step's loss was off by up to {off:.1e}"
