"""Memory that data take on their way from a file to a step, against the number of rows.

    python bench/memory.py --rows 2000000

Writes a source of so many rows, and of an eighth, a quarter and half as many, into a temporary folder; takes each through reading,
filters, tokenizer, store, mix, plan and loader in a process of its own; prints what the process held after each stage. `anonymous`
is what a process owns; `files` are pages of programs and of the store, which the system takes back when it needs room; `peak` is
the most of both at a time. A worker begins as a copy of the process, and owns few of the pages that it is said to hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = ("water", "rice", "river", "market", "teacher", "doctor", "answer", "small", "green", "often", "before", "under", "paper")
PARTS = (8, 4, 2, 1)
STAGES = ("start", "store", "mix", "plan", "loader", "worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the largest source")
    parser.add_argument("--steps", type=int, help="the most steps that a loader makes; every one of an epoch by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(list(measure(options.measure, options.steps))))
        return
    measured = {rows: in_a_process(rows, options.steps) for rows in (options.rows // part for part in PARTS)}
    print(table(measured))


def in_a_process(rows: int, steps: int | None) -> list[dict[str, Any]]:
    """The stages of a source of so many rows, measured in a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data" / "big" / "rows.jsonl", rows)
        command = [sys.executable, __file__, "--measure", folder, *(["--steps", str(steps)] if steps else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    stages: list[dict[str, Any]] = json.loads(done.stdout)
    return stages


def write(path: Path, rows: int) -> None:
    """A source of `rows` questions and answers, no two alike."""
    path.parent.mkdir(parents=True)
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt = f"{number} {' '.join(draw.choices(WORDS, k=8))}?"
            file.write(json.dumps({"prompt": prompt, "response": " ".join(draw.choices(WORDS, k=draw.randint(4, 16)))}) + "\n")


def measure(folder: Path, steps: int | None) -> Iterator[dict[str, Any]]:
    """What this process holds after each stage, in bytes, and how long the stage took."""
    from babeltune import compose
    from babeltune.data import preparing
    from babeltune.data.batching import Examples, Plan, StepDataset, StepSampler
    from babeltune.data.datamodule import StepLoader
    from babeltune.modeling.vocabulary import train_tokenizer
    from babeltune.options import Format, SourceConfig

    config = compose(["data=none", "evaluation=none", "data.max_rows=null", f"paths.data={folder}/data"])
    source = SourceConfig(name="big", language="en", format=Format.prompt_response)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources={"big": source}))
    way = preparing.writing(config, train_tokenizer([" ".join(WORDS), "0123456789?"], 400))
    clock = Clock()
    yield clock.stage("start")
    preparing.prepare(config, way, folder)
    yield clock.stage("store")
    mixed = preparing.prepare(config, way, folder)
    yield clock.stage("mix", rows=mixed.ledger.num_rows, tokens=mixed.ledger.num_tokens)
    examples = Examples([(store, store.pool[taken.indices]) for store, taken in mixed.parts])
    plan = Plan(examples.lengths, examples.target_counts, seed=0, epochs=1.0, global_batch=64)
    plan.step(0)
    yield clock.stage("plan")
    dataset = StepDataset(examples, plan, layout=config.data.layout, max_tokens=256, micro_tokens=4096, pad_id=0)
    for stage, workers in (("loader", 0), ("worker", 1)):
        batches = iter(StepLoader(dataset, StepSampler(0, plan.total_steps), workers))
        few = min(steps or plan.total_steps, plan.total_steps - 1)  # after the last step, the worker is gone
        done = sum(len(batch.examples) for batch in itertools.islice(batches, few))
        yield clock.stage(stage, process=batches._workers[0].pid if workers else "self", rows=done)  # type: ignore[attr-defined]


class Clock:
    """Memory and time between one stage and the next."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def stage(self, name: str, process: int | str = "self", **facts: int) -> dict[str, Any]:
        seconds = time.perf_counter() - self._since
        gc.collect()
        facts = facts | memory(process)
        self._since = time.perf_counter()
        return {"stage": name, "seconds": seconds, **facts}


def memory(process: int | str) -> dict[str, int]:
    """Bytes that a process holds now, and the most that it held at a time."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    keys = {"anonymous": "RssAnon", "files": "RssFile", "peak": "VmHWM"}
    return {name: int(lines[key].split()[0]) * 1024 for name, key in keys.items()}


def table(measured: dict[int, list[dict[str, Any]]]) -> str:
    """A line for each stage: MB by number of rows, and bytes for each row more."""
    sizes = list(measured)
    lines = ["stage    memory     " + "".join(f"{rows:>12,}" for rows in sizes) + "   bytes/row      rows/s"]
    for place, stage in enumerate(STAGES):
        for kind in ("anonymous", "files", "peak"):
            held = [measured[rows][place][kind] for rows in sizes]
            growth = (held[-1] - held[0]) / (sizes[-1] - sizes[0])
            last = measured[sizes[-1]][place]
            speed = f"{last.get('rows', sizes[-1]) / last['seconds']:12,.0f}" if kind == "anonymous" and place else ""
            cells = "".join(f"{value / 2**20:9,.0f} MB" for value in held)
            lines.append(f"{stage:8} {kind:10} {cells} {growth:11.1f} {speed}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
