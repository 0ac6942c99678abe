"""Cells that share a worker, and with it what is loaded, give the bytes that they give alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import compose
from babeltune.cells import Cell, cell_of
from babeltune.worker import encode
from tests.commands import QUICK, numbers

pytestmark = pytest.mark.slow

FEW = ["optimizer.epochs=1", "data.max_rows=64", "evaluation.max_items=4"]
VARIANTS = (["adapter=lora", "adapter.dropout=0.1"], ["adapter=ia3"], ["adapter=lora", "optimizer.learning_rate=1e-3"])


def cells(outputs: Path) -> list[Cell]:
    common = ["data=toy_zh", *QUICK, *FEW, f"paths.outputs={outputs}"]
    return [cell_of(compose([*common, *variant])) for variant in VARIANTS]


def work(*asked: Cell) -> None:
    """Have one worker run cells."""
    lines = "".join(encode(cell) + "\n" for cell in asked) + "end\n"
    done = subprocess.run([sys.executable, "-m", "babeltune.worker"], input=lines, capture_output=True, text=True, check=True)
    assert done.stdout.count('"event": "done"') == len(asked), done.stdout


def files(cell: Cell) -> dict[str, bytes]:
    """What the cell trained, and what it answered."""
    found = [*cell.folder.glob("adapter/*.safetensors"), *cell.folder.rglob("replies.jsonl"), *cell.folder.rglob("losses.json")]
    return {str(path.relative_to(cell.folder)): path.read_bytes() for path in found}


def test_cells_in_one_worker_give_the_bytes_of_cells_alone(tmp_path: Path) -> None:
    together, alone = cells(tmp_path / "together"), cells(tmp_path / "alone")
    work(*together)
    work(alone[2])
    assert len(files(alone[2])) == 3
    assert files(together[2]) == files(alone[2])
    assert numbers(together[2].folder) == numbers(alone[2].folder)
    log = (together[2].folder / "train.log").read_text()
    assert "loaded again" not in log
