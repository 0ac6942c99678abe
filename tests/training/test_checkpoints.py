"""The newest checkpoint can always be read, whatever happens while one is written; and nothing else is read as one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import resource
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from babeltune.errors import ModelError, OutputError
from babeltune.training.checkpoints import AtomicCheckpointIO, clear, newest_sound, place, rotate, step_of
from tests.training import jobs
from tests.training.conftest import Start, cell_folder

KILLS = 30
FLIPS = 60


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    for step in (1, 2):
        AtomicCheckpointIO({}).save_checkpoint(_content(step), place(tmp_path, step))
    return tmp_path


def _content(step: int) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"weight": torch.full((4096,), float(step))}}


def _read(path: Path | None, parts: dict[str, Any] | None = None) -> dict[str, Any]:
    assert path is not None
    return AtomicCheckpointIO(parts or {}).load_checkpoint(path)


def test_a_kill_at_any_moment_leaves_a_whole_newest_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    rng = random.Random(11)
    halves = 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        child = os.fork()
        if child == 0:
            _write_for_ever(folder)
        while not place(folder, 1).exists():
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = newest_sound(folder)
        assert newest == max(folder.glob("step-*.ckpt"))
        assert torch.equal(_read(newest)["state_dict"]["weight"], _content(step_of(newest))["state_dict"]["weight"])
        halves += sum(1 for _ in folder.glob(".*.tmp"))
        clear(folder, step_of(newest))
        assert list(folder.glob(".*")) == []
    assert halves > 0, "no kill came while a file was written, so nothing was proved"


def _write_for_ever(folder: Path) -> None:
    step = 0
    while True:
        step += 1
        AtomicCheckpointIO({}).save_checkpoint(_content(step), place(folder, step))
        rotate(folder)


def test_any_flipped_bit_is_found(two: Path) -> None:
    raw = place(two, 2).read_bytes()
    rng = random.Random(3)
    for position in [0, 31, 32, len(raw) - 1, *rng.sample(range(len(raw)), FLIPS)]:
        damaged = bytearray(raw)
        damaged[position] ^= 1 << rng.randrange(8)
        place(two, 2).write_bytes(damaged)
        assert newest_sound(two) == place(two, 1), position
    with pytest.raises(ModelError, match="got a file that is not as it was written"):
        _read(place(two, 2))


@pytest.mark.parametrize("length", [0, 10, 32, 1000])
def test_a_checkpoint_that_was_cut_off_is_passed_over(two: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    os.truncate(place(two, 2), length)
    assert newest_sound(two) == place(two, 1)
    assert f"{place(two, 2)} is damaged; going back to what was before it" in caplog.text
    os.truncate(place(two, 1), length)
    assert newest_sound(two) is None


def test_a_full_disk_leaves_the_checkpoint_before(two: Path) -> None:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        try:
            AtomicCheckpointIO({}).save_checkpoint(_content(2), place(two, 2))
        except OutputError as error:
            os._exit(0 if "step-00000002.ckpt: got File too large; expected a folder that results can" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert newest_sound(two) == place(two, 2)
    assert _read(place(two, 2))["global_step"] == 2
    assert len(list(two.iterdir())) == 2


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_not_loaded(two: Path) -> None:
    ran = two / "ran"
    for name, data in {"bare": pickle.dumps(Malice(ran), protocol=2), "saved": _saved({"state_dict": Malice(ran)})}.items():
        place(two, 9).write_bytes(data)
        assert newest_sound(two) == place(two, 2), name
        place(two, 9).write_bytes(hashlib.sha256(data).digest() + data)
        with pytest.raises(
            ModelError, match="got a file that holds more than tensors; expected a checkpoint that this program wrote"
        ):
            _read(newest_sound(two))
    assert not ran.exists()


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100, 99):
        AtomicCheckpointIO({}).save_checkpoint(_content(step), place(tmp_path, step))
    rotate(tmp_path)
    assert sorted(step_of(path) for path in tmp_path.iterdir()) == [99, 100]


def test_a_checkpoint_of_another_cell_is_refused_with_what_differs(tmp_path: Path) -> None:
    theirs = {"optimizer": {"learning_rate": 0.1, "epochs": 2}, "seed": 0, "base": "a", "template": "b"}
    ours = {"optimizer": {"learning_rate": 0.2, "epochs": 2}, "seed": 1, "base": "c", "cleaning": ["exact"], "template": "b"}
    AtomicCheckpointIO(theirs).save_checkpoint(_content(1), place(tmp_path, 1))
    assert _read(place(tmp_path, 1), theirs)["global_step"] == 1
    with pytest.raises(ModelError) as caught:
        _read(place(tmp_path, 1), ours)
    assert str(caught.value) == (
        f"{place(tmp_path, 1)}: got a checkpoint of another cell (base a there, c here, cleaning None there, ['exact'] here, "
        "optimizer.learning_rate 0.1 there, 0.2 here and 1 more); expected one of this cell; try removing it; training begins anew"
    )


def test_a_cells_checkpoint_holds_exactly_what_is_trained(start: Start, whole: Path, untrained: Path) -> None:
    assert start(jobs.train, untrained, sabotage=jobs.AtStep(11, jobs.terminate_me)).code() == jobs.PREEMPTED
    path = newest_sound(cell_folder(untrained) / "checkpoints")
    assert path is not None
    content = _read(path, json.loads((cell_folder(untrained) / "identity.json").read_text())["parts"])
    state = content["state_dict"]
    adapter = load_file(cell_folder(whole) / "adapter" / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in state} == set(adapter)
    assert all(torch.equal(tensor, adapter[name.replace(".default", "")]) for name, tensor in state.items())
    kinds = Counter(name.split(".")[-3] for name in state)
    assert kinds["lora_A"] == kinds["lora_B"] == 14
    assert all(tensor.abs().sum() > 0 for name, tensor in state.items() if "lora_B" in name)
    moments = content["optimizer_states"][0]["state"]
    assert len(moments) == len(state)
