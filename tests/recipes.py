"""Runs every recipe of the papers from rows to result, small: `python -m tests.recipes [SWEEP or experiment=NAME ...]`.

Each sweep and each experiment is one ordinary command at scale=smoke, on rows that are written for it, offline. What it prints is a
line for each cell that was trained or judged; it ends with their counts, and with 1 when anything failed.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from babeltune.config import CONF, build
from babeltune.results import read_evaluation
from tests import recipes_data
from tests.commands import train
from tests.sweeps import PAPERS, architecture

STEPS = 3
"""Of scale=smoke."""
NO_CELLS = {"tiny", "vi_chatbot", "belle"}
"""Experiments that are no recipe of a paper, or that name no mix: the sweeps do."""
EXPERIMENTS = sorted(f"experiment={path.stem}" for path in (CONF / "experiment").glob("*.yaml") if path.stem not in NO_CELLS)
COUNTS = {"tune": 52, "pretrain": 2, "extend_vocabulary": 1}
"""The papers' cells: fine-tunes are those of the sweeps, pretrainings those of the experiments."""

KINDS: dict[tuple[str, str, str], dict[str, str]] = {
    ("llama", "none", "pretrain"): {"experiment": "medchatzh_books"},
    ("llama", "embeddings", "pretrain"): {"experiment": "belle_pretrain"},
    ("llama", "none", "tune"): {"experiment": "medchatzh"},
    ("llama", "lora", "tune"): {"experiment": "flacuna"},
    ("gptj", "lora", "tune"): {"experiment": "gptj_doctor"},
    ("codegen", "lora", "tune"): {"experiment": "cookbook", "model": "moss_base"},
    ("gpt_neox", "lora", "tune"): {"experiment": "cookbook", "model": "chatglm_6b"},
    ("bloom", "lora", "tune"): {"experiment": "cookbook"},
    ("bloom", "adalora", "tune"): {"experiment": "cookbook", "adapter": "adalora"},
    ("bloom", "prompt", "tune"): {"experiment": "cookbook", "adapter": "prompt"},
    ("bloom", "p_tuning", "tune"): {"experiment": "cookbook", "adapter": "p_tuning"},
    ("bloom", "prefix", "tune"): {"experiment": "cookbook", "adapter": "prefix"},
    ("bloom", "sadapter_p", "tune"): {"experiment": "cookbook", "adapter": "sadapter_p"},
    ("bloom", "sadapter_h", "tune"): {"experiment": "cookbook", "adapter": "sadapter_h"},
    ("bloom", "padapter", "tune"): {"experiment": "cookbook", "adapter": "padapter"},
}
"""Architecture, adapter and stage that a cell of the papers has, and one cell that has them."""

Tree = dict[str, Any]


def main(words: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        root = Path(folder)
        recipes_data.write(root / "data")
        return run(words or [*PAPERS, *EXPERIMENTS], root)


def run(names: Sequence[str], root: Path) -> int:
    """Run each sweep or experiment below `root`, a line a cell. Returns the exit code."""
    started = time.monotonic()
    problems: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for name in names:
        grid = name.removeprefix("experiment=")
        problems += _command(name, grid, root)
        for folder, evaluation in _cells(root / "outputs" / "grids" / f"{grid}.json"):
            if (folder.name, evaluation) in seen:
                continue
            found = list(wrong_with(folder, evaluation))
            problems += [f"{folder.name}: {what}" for what in found]
            seen[folder.name, evaluation] = _stage(folder, name in PAPERS)
            print(_line(grid, folder, found), flush=True)
    counts = Counter({folder: stage for (folder, _), stage in seen.items()}.values())
    if set(names) >= {*PAPERS, *EXPERIMENTS}:
        problems += [f"{stage}: {counts[stage]} cells, not {count}" for stage, count in COUNTS.items() if counts[stage] != count]
    for what in problems:
        print(f"FAILED {what}")
    kinds = ", ".join(f"{count} {stage}" for stage, count in sorted(counts.items()))
    print(f"{counts.total()} cells in {time.monotonic() - started:.0f} s ({kinds}); {len(problems)} problems")
    return 1 if problems else 0


def smoke(root: Path) -> list[str]:
    """The overrides that make a run small and keep it on this machine."""
    return ["scale=smoke", "logger=none", f"paths.data={root / 'data'}", f"paths.outputs={root / 'outputs'}"]


def _command(name: str, grid: str, root: Path) -> list[str]:
    """Run one command. Returns what it says when it fails."""
    words = [f"sweeps={name}"] if name in PAPERS else [name, f"grid.name={grid}"]
    try:
        train(*words, *smoke(root))
    except (AssertionError, subprocess.TimeoutExpired) as error:
        said = [text for text in str(error).splitlines() if text.startswith("error: ")]
        return [f"{name}: {text}" for text in said or [str(error)]]
    return []


def _cells(manifest: Path) -> Iterator[tuple[Path, str]]:
    """The folders of a grid that have a result, each with the identity of how it was judged."""
    for cell in json.loads(manifest.read_text())["cells"] if manifest.exists() else []:
        folder = manifest.parents[1] / cell["folder"]
        if (folder / "result.json").exists():
            yield folder, cell["evaluation"]


def wrong_with(folder: Path, evaluation: str | None = None) -> Iterator[str]:
    """What a finished cell at scale=smoke lacks: steps, finite losses, gradients, weights, scores, or its labels.

    `evaluation` is the identity of how it was judged; None for the last way.
    """
    tree = _result(folder)
    if tree["config"]["data"]["sources"] and tree["config"]["stage"]["kind"] in ("tune", "pretrain"):
        steps = [json.loads(one) for one in (folder / "metrics.jsonl").read_text().splitlines()]
        if len(steps) != STEPS or tree["training"]["steps"] != STEPS:
            yield f"{len(steps)} steps, not {STEPS}"
        for step in steps:
            if not (math.isfinite(step["train/loss"]) and step["train/gradient_norm"] > 0):
                yield f"loss {step['train/loss']}, gradient {step['train/gradient_norm']} in step {step['step']}"
    makes = tree["config"]["data"]["sources"] and tree["config"]["stage"]["kind"] != "prepare"
    if makes and not any(path for kind in ("model", "adapter") for path in (folder / kind).glob("*.safetensors")):
        yield "no weights"
    scores = read_evaluation(folder, evaluation or tree["evaluation"])
    if scores is None or (not scores and tree["config"]["evaluation"]["kind"] != "none"):
        yield "not judged"
    if any(score.n == 0 for score in (scores or {}).values()):
        yield "judged on no items"
    if "scale=smoke" not in tree["labels"]:
        yield f"labels {tree['labels']}"


def _line(recipe: str, folder: Path, found: Sequence[str]) -> str:
    """A cell in a line: recipe, model, architecture, data, adapter, precision, steps, losses, seconds."""
    tree = _result(folder)
    config, training = tree["config"], tree["training"]
    cell = f"{config['model']['name']:19} {architecture(build(config)):8} {config['data']['name']:28}"
    what = f"{config['adapter']['kind']}/{config['precision']['kind']}" if config["data"]["sources"] else "untuned"
    losses = ""
    if training.get("first_loss") is not None:
        fell = f"{training['first_loss']:.3f} → {training['last_loss']:.3f}"
        losses = f"{training['steps']} steps  {fell}  {training['seconds']:.1f} s"
    return f"{'FAILED' if found else 'ok':6} {recipe:20} {cell} {what:16} {losses}".rstrip()


def _stage(folder: Path, is_in_sweep: bool) -> str:
    """What kind of cell it is: fine-tunes outside of the sweeps are variants of one of the papers'."""
    config = _result(folder)["config"]
    if not config["data"]["sources"]:
        return "untuned"
    stage = str(config["stage"]["kind"])
    return stage if is_in_sweep or stage != "tune" else "variant"


def _result(folder: Path) -> Tree:
    tree: Tree = json.loads((folder / "result.json").read_text())
    return tree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
