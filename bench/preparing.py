"""From rows on disk to batches: babeltune against what others offer, each in a process of its own, in turn.

    python bench/preparing.py --data FOLDER --tokenizer FOLDER

All 52,002 rows of Alpaca, read, laid out, tokenised and, where a way packs, packed to 512 tokens; caches are empty. Then babeltune
again with its cache there, up to the first batch; and another mix of the same source, of which nothing may be tokenised again. Time
is counted from where libraries and tokenizer are loaded to the last row. Threads are not bounded: each way uses the cores it can.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import venvs
import work
from common import say


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of preparing: whose environment, and what is run in it."""

    title: str
    system: str
    module: str
    argument: str = ""


WAYS = {
    "babeltune": Way(title="babeltune, packed", system="babeltune", module="peers.prepare_babeltune"),
    "direct": Way(title="bare: tokenizers alone, packed", system="hf", module="peers.prepare_direct"),
    "batched": Way(title="datasets.map, batched", system="hf", module="peers.prepare_map", argument="batched"),
    "rows": Way(title="alpaca-lora's map, row by row", system="hf", module="peers.prepare_map", argument="rows"),
    "trl": Way(title="TRL", system="trl", module="peers.prepare_trl"),
    "trl_packed": Way(title="TRL, packed", system="trl", module="peers.prepare_trl", argument="packed"),
    "litgpt": Way(title="LitGPT", system="litgpt", module="peers.prepare_litgpt"),
    "torchtune": Way(title="torchtune", system="torchtune", module="peers.prepare_torchtune"),
    "torchtune_packed": Way(title="torchtune, packed", system="torchtune", module="peers.prepare_torchtune", argument="packed"),
}
OURS, BARE, WARM_SECONDS = "babeltune", "direct", 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=work.folder)
    parser.add_argument("--tokenizer", type=work.folder)
    parser.add_argument("--rows", type=int, default=52_002)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WAYS), help=f"of {','.join(WAYS)}")
    options = parser.parse_args()
    task = ready(options.data, options.tokenizer, options.rows)
    facts: dict[str, Any] = {"machine": common.machine(), "rows": options.rows, "runs": {}, "left_out": {}}
    for _ in range(options.repeats):
        for name in options.only:
            if name not in facts["left_out"]:
                attempt(name, task, facts)
    text = report(facts)
    common.write("preparing", facts, text)
    print(text)


def ready(data: Path | None, tokenizer: Path | None, count: int) -> dict[str, Any]:
    """The task, its rows all of Alpaca's."""
    root = common.OUTPUTS / "work" / work.fingerprint(data, tokenizer)
    task = work.prepare(root, work.Setting(size="S", vocabulary=32_000, precision="fp32", steps=8), data, tokenizer)
    whole = root / f"data-{count}"
    rows = work.rows(whole, data, count)
    path = whole / "prompts.jsonl"
    if not path.exists():
        lines = (json.dumps(row | {"prompt": work.prompt(row)}) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
    source = whole / "source"
    (source / work.SOURCE).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(whole / work.SOURCE / "rows.jsonl", source / work.SOURCE / "rows.jsonl")
    return task | {"rows": str(path), "data": str(source)}


def attempt(name: str, task: dict[str, Any], facts: dict[str, Any]) -> None:
    """One cold run of a way, and of babeltune's what follows it."""
    folder = common.OUTPUTS / "preparing" / name
    shutil.rmtree(folder, ignore_errors=True)
    found = run(WAYS[name], WAYS[name].argument, task, folder, facts, name)
    if found is None or name != OURS:
        return
    for what in ("warm", "mix"):
        run(WAYS[name], what, task, folder, facts, what)


def run(way: Way, argument: str, task: dict[str, Any], folder: Path, facts: dict[str, Any], name: str) -> dict[str, Any] | None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task | {"out": str(folder / "cache")}), encoding="utf-8")
    env = {
        "PYTHONPATH": str(common.BENCH),
        "BENCH_TASK": str(folder / "task.json"),
        "BENCH_REPORT": str(folder / "report.json"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        python = venvs.python(way.system)
    except venvs.CannotInstall as problem:
        facts["left_out"][name] = str(problem)
        return None
    usage = common.measure([str(python), "-m", way.module, *([argument] if argument else [])], env, folder / "run.log")
    if usage.code:
        facts["left_out"][name] = common.last_words(usage.said)
        say(f"{name}: failed, see {folder / 'run.log'}")
        return None
    found = json.loads((folder / "report.json").read_text(encoding="utf-8")) | {"process_wall": usage.wall}
    say(f"{name}: {found['cpu']:.1f} CPU-s, {found['wall']:.1f} s, {found['peak_rss'] / common.MB:.0f} MB")
    facts["runs"].setdefault(name, []).append(found)
    return dict(found)


def report(facts: dict[str, Any]) -> str:
    runs = facts["runs"]
    rows = [
        (
            WAYS[name].title,
            common.cell([run["cpu"] for run in found]),
            common.cell([run["wall"] for run in found]),
            common.cell([run["process_wall"] for run in found]),
            common.cell([run["peak_rss"] / common.MB for run in found], "{:,.0f}"),
            f"{found[0]['tokens']:,}",
        )
        for name, found in runs.items()
        if name in WAYS
    ]
    machine = facts["machine"]
    text = [
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, commit {machine['commit']}; {facts['rows']:,} rows.",
        common.table((f"{facts['rows']:,} rows", "CPU-s", "wall s", "with imports", "peak MB", "tokens"), rows),
        *(f"Left out: {name}: {reason}" for name, reason in facts["left_out"].items()),
    ]
    return "\n\n".join([*text, "\n".join(f"- {line}" for line in _bars(runs))])


def _bars(runs: dict[str, Any]) -> list[str]:
    def middle(name: str, what: str) -> float:
        return common.spread([run[what] for run in runs[name]])["median"]

    lines = []
    peers = [name for name in runs if name in WAYS and name not in (OURS, BARE)]
    if OURS in runs and peers:
        fastest = min(peers, key=lambda name: middle(name, "wall"))
        ratio = middle(OURS, "wall") / middle(fastest, "wall")
        lines.append(common.held(f"wall time ÷ that of {WAYS[fastest].title}, the fastest peer", ratio, 1.0, at_least=False))
        lines += [
            f"CPU time ÷ that of {WAYS[name].title}: {middle(OURS, 'cpu') / middle(name, 'cpu'):.2f}"
            for name in (fastest, BARE)
            if name in runs
        ]
    if "warm" in runs:
        lines.append(
            common.held("seconds to the first batch with the cache there", middle("warm", "wall"), WARM_SECONDS, at_least=False)
        )
    if "mix" in runs:
        made = max(run["stores_made"] for run in runs["mix"])
        lines.append(f"another mix of known sources: {made} sources tokenised, {middle('mix', 'wall'):.2f} s")
    return lines


if __name__ == "__main__":
    main()
