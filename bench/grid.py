"""Four cells as one grid against four runs of the same commands: wall time, whether the results are the same bit for bit, and what
judging costs a cell.

    python bench/grid.py --data FOLDER --tokenizer FOLDER

The cells differ in their seed: 20 steps each on the model S. They are trained as a grid with `grid.workers` unset, as a grid with
one worker, and one after another; each way has an outputs folder that is empty at first. Then copies of what was trained are
judged, as a grid and one after another: only the judging is left to do, and its whole wall time, imports included, is counted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import work
from common import say

SEEDS = (0, 1, 2, 3)
BAR_WALL, BAR_JUDGING = 0.65, 1.5
JUDGED = ("evaluation=toy_en", "evaluation.max_items=64", "decoding.max_new_tokens=32")
"""A suite that asks 64 questions, each answered with at most 32 tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=work.folder)
    parser.add_argument("--tokenizer", type=work.folder)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    setting = work.Setting(size="S", vocabulary=32_000, precision="fp32", steps=options.steps)
    root = common.OUTPUTS / "work" / work.fingerprint(options.data, options.tokenizer)
    task = work.prepare(root, setting, options.data, options.tokenizer)
    runs = [one(Path(task["model"]), Path(task["data"]), setting, common.OUTPUTS / "grid") for _ in range(options.repeats)]
    text = report(runs)
    common.write("grid", {"machine": common.machine(), "steps": options.steps, "runs": runs}, text)
    print(text)


def one(model: Path, data: Path, setting: work.Setting, root: Path) -> dict[str, Any]:
    """Wall seconds of each way, and whether all made the same cells."""
    shutil.rmtree(root, ignore_errors=True)

    def words(place: str) -> list[str]:
        return [*work.overrides(model, data, setting, root / place), "optimizer.epochs=4"]

    seeds = f"seed={','.join(map(str, SEEDS))}"
    seconds = {
        "grid": run(["-m", *words("grid"), seeds], root),
        "grid, one worker": run(["-m", *words("serial"), seeds, "grid.workers=1"], root),
        "separate": sum(run([*words("separate"), f"seed={seed}"], root) for seed in SEEDS),
    }
    same = {place: trained(root / place) == trained(root / "separate") for place in ("grid", "serial")}
    for place in ("judged-grid", "judged-separate"):
        shutil.copytree(root / "separate", root / place)
    judged = {
        "grid": run(["-m", *words("judged-grid"), *JUDGED, seeds, "grid.workers=1"], root),
        "separate": sum(run([*words("judged-separate"), *JUDGED, f"seed={seed}"], root) for seed in SEEDS),
    }
    replies = {place: answers(root / f"judged-{place}") for place in judged}
    return {"wall": seconds, "same": same, "judging": judged, "same_replies": replies["grid"] == replies["separate"]}


def run(words: list[str], root: Path) -> float:
    """Wall seconds of a command. Ends the benchmark when it fails."""
    usage = common.measure([sys.executable, "train.py", *words], common.ONE_THREAD, root / "run.log")
    if usage.code:
        raise SystemExit(f"{' '.join(words)}: {common.last_words(usage.said)}; see {root / 'run.log'}")
    say(f"{usage.wall:.1f} s: {'grid' if words[0] == '-m' else words[-1]}")
    return usage.wall


def trained(place: Path) -> dict[str, tuple[bytes, ...]]:
    """By cell: its adapter and the numbers of its steps, as they are on disk."""
    names = ("adapter/adapter_model.safetensors", "metrics.jsonl")
    return {cell.name: tuple((cell / name).read_bytes() for name in names) for cell in place.glob("*-s*-*") if cell.is_dir()}


def answers(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.glob("*/eval*/**/replies.jsonl")}


def report(runs: list[dict[str, Any]]) -> str:
    ways = list(runs[0]["wall"])
    alone = [run["wall"]["separate"] for run in runs]
    rows = [(way, common.cell([run["wall"][way] for run in runs]), _ratio(runs, "wall", way)) for way in ways]
    rows += [
        (f"judging: {way}", common.cell([run["judging"][way] for run in runs]), _ratio(runs, "judging", way))
        for way in runs[0]["judging"]
    ]
    best = min(run["wall"]["grid"] / whole for run, whole in zip(runs, alone, strict=True))
    gain = max(run["judging"]["separate"] / run["judging"]["grid"] for run in runs)
    bars = [
        common.held("grid's wall time ÷ separate runs'", best, BAR_WALL, at_least=False),
        common.held("seconds of judging a cell, separate ÷ grid", gain, BAR_JUDGING, at_least=True),
        f"adapters and step numbers bit for bit the same: {all(all(run['same'].values()) for run in runs)}",
        f"replies the same: {all(run['same_replies'] for run in runs)}",
    ]
    return "\n".join([common.table(("four cells", "wall s", "÷ separate"), rows), "", *(f"- {bar}" for bar in bars)])


def _ratio(runs: list[dict[str, Any]], what: str, way: str) -> str:
    return common.cell([run[what][way] / run[what]["separate"] for run in runs], "{:.2f}")


if __name__ == "__main__":
    main()
