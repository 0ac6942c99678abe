"""What a worker makes of errors that nobody raised on purpose, and what it does when its grid is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from babeltune import compose
from babeltune.cells import Cell, cell_of
from babeltune.worker import _reason, decode, encode, is_out_of_memory


@pytest.fixture(scope="module")
def cell() -> Cell:
    return cell_of(compose(["data=toy_zh", "model=tiny_fresh"]))


def test_running_out_of_memory_says_what_to_lower(cell: Cell) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert _reason(caught.value, cell) == (
        f"{cell.folder.name}: got too little memory; expected room for 1024 tokens at a time; "
        "try trainer.micro_tokens=512, a smaller data.max_tokens, or precision=nf4 with an adapter"
    )


def test_other_errors_are_one_line_and_name_the_log(cell: Cell) -> None:
    reason = _reason(ValueError("first\nsecond"), cell)
    assert reason == f"ValueError: first second (see {cell.folder / 'train.log'})"
    assert not is_out_of_memory(ValueError("first"))


def test_a_cell_comes_through_the_pipe_as_it_was_sent(cell: Cell) -> None:
    assert decode(encode(cell)) == cell


def test_a_worker_ends_when_its_grid_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "babeltune.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=20) == -9


def test_a_worker_that_is_told_to_end_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "babeltune.worker"], input="end\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
