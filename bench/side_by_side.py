"""Babeltune, a bare PyTorch loop and six other frameworks on the same work, in turn: speed, memory and losses side by side.

    make bench DATA=FOLDER TOKENIZER=FOLDER
    python bench/side_by_side.py --only babeltune,bare,hf --sizes S --repeats 1

FOLDER of DATA has alpaca35_en or alpaca4_en in it; without it text is drawn with Alpaca's lengths. FOLDER of TOKENIZER has
tokenizer.json or tokenizer.model; without it one is learned from the text. Each system runs in a process and an environment of its
own, with one thread and nothing in its caches. Rows are in `bench/results`, as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import venvs
import work
from common import say
from work import Setting

import reporting


def main() -> None:
    options = _options()
    root = common.OUTPUTS / "work" / work.fingerprint(options.data, options.tokenizer)
    names = options.only or list(venvs.SYSTEMS)
    pythons, left_out = _environments(names)
    settings = [
        Setting(size=size, vocabulary=vocabulary, precision=precision, steps=options.steps)
        for precision in options.precision
        for vocabulary in options.vocabulary
        for size in options.sizes
    ]
    runs: list[dict[str, Any]] = []
    facts = {
        "machine": common.machine(),
        "work": {
            "text": "Alpaca" if options.data else "generated",
            "rows": work.NUM_ROWS,
            "batch": work.BATCH,
            "micro": work.MICRO,
        },
        "versions": {name: common.versions(python, venvs.REPORTED) for name, python in pythons.items()},
        "left_out": left_out,
        "runs": runs,
    }
    for setting in settings:
        task = work.prepare(root, setting, options.data, options.tokenizer)
        for repeat in range(options.repeats):
            for name in list(pythons):
                run = one(name, pythons[name], task, setting, common.OUTPUTS / "runs" / f"{setting.name}-{name}")
                if "problem" in run:
                    left_out[f"{name} {setting.name}"] = run["problem"]
                    continue
                runs.append({"setting": dataclasses.asdict(setting), "system": name, "repeat": repeat, **run})
        text = reporting.report(facts)
        common.write(options.name, facts, text)  # after each setting: a long run that is cut short keeps what it has
    print(reporting.report(facts))
    say(f"written to {common.RESULTS / options.name}.json and .md")


def _options() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=work.folder, default=None, help="folder with alpaca35_en or alpaca4_en")
    parser.add_argument("--tokenizer", type=work.folder, default=None, help="folder of a tokenizer of at most 32,000 tokens")
    parser.add_argument("--only", type=listed, help=f"of {','.join(venvs.SYSTEMS)}")
    parser.add_argument("--sizes", type=listed, default=["S", "M"], help="S, M, tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", type=listed, default=["fp32"], help="fp32, bf16; bf16 is slow where a CPU has no bf16")
    parser.add_argument("--vocabulary", type=lambda text: [int(word) for word in listed(text)], default=[32_000])
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps, at most 8")
    parser.add_argument("--name", default="side_by_side", help="of the files below bench/results")
    options = parser.parse_args()
    if unknown := [name for name in options.only or [] if name not in venvs.SYSTEMS]:
        parser.error(f"--only: got {', '.join(unknown)}; expected some of {', '.join(venvs.SYSTEMS)}")
    if not 1 <= options.steps <= work.NUM_ROWS // work.BATCH:
        parser.error(f"--steps: got {options.steps}; expected 1 to {work.NUM_ROWS // work.BATCH}")
    return options


def _environments(names: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreters of the systems, and of those that there are none for, the reason."""
    pythons, left_out = {}, {}
    for name in names:
        try:
            pythons[name] = venvs.python(name)
        except venvs.CannotInstall as problem:
            left_out[name] = str(problem)
            say(str(problem))
    return pythons, left_out


def one(name: str, python: Path, task: dict[str, Any], setting: Setting, folder: Path) -> dict[str, Any]:
    """A run of one system from a cold start, or the reason why there is none. Its folder is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps({**task, "out": str(folder / "out")}), encoding="utf-8")
    module = venvs.SYSTEMS[name].module
    if module is None:
        words = work.overrides(Path(task["model"]), Path(task["data"]), setting, folder / "out")
        command, path = [str(python), "train.py", *words], f"{common.BENCH}:{common.BENCH / 'peers' / 'hooks'}"
    else:
        command, path = [str(python), "-m", module], str(common.BENCH)
    env = common.ONE_THREAD | {
        "PYTHONPATH": path,
        "BENCH_TASK": str(folder / "task.json"),
        "BENCH_REPORT": str(folder / "report.json"),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        **({} if task["device"] == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}),
        "WANDB_MODE": "disabled",
    }
    before = folder / "before.log"
    if module is not None and (common.BENCH / "peers" / f"ready_{name}.py").exists():
        ready = common.measure([str(python), "-m", f"peers.ready_{name}"], env, before)
        if ready.code:
            return {"problem": f"its own form of the model could not be made: {common.last_words(ready.said)}"}
    usage = common.measure(command, env, folder / "run.log")
    if usage.code or not (folder / "report.json").exists():
        say(f"{name} {setting.name}: failed, see {folder / 'run.log'}")
        return {"problem": common.last_words(usage.said)}
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    peak = _peak(usage, report)
    say(f"{name} {setting.name}: loop {report['loop_cpu']:.1f} CPU-s, wall {usage.wall:.1f} s, {peak / common.MB:.0f} MB")
    shutil.rmtree(folder / "out", ignore_errors=True)
    return {
        "wall": usage.wall,
        "cpu": usage.cpu,
        "peak_rss": peak,
        "peak_training": report["peak_rss"],
        "loop_cpu": report["loop_cpu"],
        "loop_wall": report["loop_wall"],
        "steps": report["steps"],
        "ticks": report["ticks"],
        "peak_device": report["peak_device"],
    }


def _peak(usage: common.Usage, report: dict[str, Any]) -> int:
    """The most that a system's processes held: babeltune's command waits beside the process that trains, and counts too."""
    return max(usage.peak_rss, int(report["peak_rss"])) + int(report.get("peak_beside", 0))


if __name__ == "__main__":
    main()
