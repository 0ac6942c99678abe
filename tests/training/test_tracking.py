"""Numbers are on disk whatever happens; W&B has the same ones when it can."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from babeltune.errors import OutputError
from babeltune.options import LoggerConfig
from babeltune.training.tracking import Tracker
from tests import wandb_server
from tests.training import jobs, wandb_reader
from tests.training.conftest import Start, adapter, cell_folder, losses, metrics

CANARY = "0123456789abcdef0123456789abcdefcafecafe"
OFFLINE = ("logger=wandb", "logger.mode=offline")
ONLINE = ("logger=wandb", "logger.mode=online")


def _files_only(folder: Path) -> Tracker:
    return Tracker(folder, LoggerConfig(kind="none"), run_id="id", name="name", group="group", settings={})


def _losses_of(run: wandb_reader.Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key.startswith("train/")} for line in run.history if "train/loss" in line]


def _without_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "step"} for line in lines]


def _without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if "loss" in key or key == "step"} for line in lines]


def test_rewinding_forgets_later_steps_and_a_line_that_was_cut_off(tmp_path: Path) -> None:
    with _files_only(tmp_path) as tracker:
        for step in range(1, 6):
            tracker.log_metrics({"train/loss": 1 / step}, step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "train/lo')
    with _files_only(tmp_path) as tracker:
        tracker.rewind(3)
        tracker.log_metrics({"train/loss": 0.25}, 4)
        assert [(line["step"], line["train/loss"]) for line in tracker.lines()] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"metrics\.jsonl: got a full disk; expected a folder that results can be written to"):
        _files_only(tmp_path).log_metrics({"train/loss": 1.0}, 1)


def test_two_cells_in_one_process_are_two_whole_runs_with_their_own_names(start: Start, whole: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    running = start(
        jobs.train_many,
        outputs,
        (OFFLINE, (*OFFLINE, "seed=1", "grid.name=seeds")),
        environment={"WANDB_API_KEY": CANARY, "HOME": str(tmp_path)},
    )
    assert running.code() == 0, running.said
    folders = sorted((path.parent for path in outputs.glob("*/identity.json")), key=lambda folder: "-s1-" in folder.name)
    (first,), (second,) = (wandb_reader.runs(folder) for folder in folders)
    for run, folder in zip((first, second), folders, strict=True):
        identity = json.loads((folder / "identity.json").read_text())["identity"]
        result = json.loads((folder / "result.json").read_text())
        assert (run.id, run.name, run.exit_code) == (identity[:16], folder.name, 0)
        assert run.config["config"] == result["config"]
        assert run.summary["ledger"] == result["ledger"]
        assert run.summary["training"] == result["training"]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert _losses_of(run) == _without_step(lines)
    assert [(run.group, run.config["config"]["seed"]) for run in (first, second)] == [("toy_all", 0), ("seeds", 1)]
    assert {"train/loss_toy_zh", "train/loss_toy_vi", "train/loss_toy_en"} <= set(first.summary)
    told = [path for path in (*outputs.rglob("*"), running.log) if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert told == []


def test_a_run_that_goes_on_has_a_mirror_with_every_step(start: Start, untrained: Path, whole: Path) -> None:
    assert start(jobs.train, untrained, OFFLINE, sabotage=jobs.AtStep(7, jobs.kill_me)).code() != 0
    assert start(jobs.train, untrained, OFFLINE).code() == 0
    stopped, done = wandb_reader.runs(cell_folder(untrained))
    assert stopped.exit_code is None
    assert done.exit_code == 0
    assert _losses_of(done) == _without_step(metrics(untrained)) == _without_step(metrics(whole))


def test_training_goes_on_without_a_server(start: Start, untrained: Path, whole: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    environment = {"WANDB_API_KEY": CANARY, "WANDB_BASE_URL": nobody}
    began = time.monotonic()
    running = start(jobs.train, untrained, ONLINE, environment=environment, sabotage=jobs.impatient)
    assert running.code() == 0, running.said
    assert time.monotonic() - began < 20
    assert "no W&B run for this cell" in running.said
    assert losses(untrained) == losses(whole)
    assert adapter(untrained) == adapter(whole)
    assert json.loads((cell_folder(untrained) / "result.json").read_text())["tracking"] == {"wandb": None}


def test_training_goes_on_when_the_server_goes_away_under_it(start: Start, untrained: Path, whole: Path) -> None:
    with wandb_server.serving() as server:
        address = server.environment["WANDB_BASE_URL"]
        began = time.monotonic()
        sabotage = jobs.StopServer(6, address)
        running = start(jobs.train, untrained, ONLINE, environment=server.environment, sabotage=sabotage)
        assert running.code() == 0, running.said
        assert time.monotonic() - began < 20
        assert server.variables("UpsertBucket"), "the server had the run when it went away"
    assert _without_times(metrics(untrained)) == _without_times(metrics(whole))
    assert adapter(untrained) == adapter(whole)
    folder = cell_folder(untrained)
    assert json.loads((folder / "result.json").read_text())["tracking"]["url"].startswith(address)
    (mirrored,) = (wandb_reader.read(path) for path in folder.glob("wandb/run-*/*.wandb"))
    assert _losses_of(mirrored) == _without_step(metrics(untrained)), "what wandb sync will send"


def test_a_key_that_the_server_refuses_costs_the_mirror_only(start: Start, untrained: Path, whole: Path) -> None:
    with wandb_server.serving(status=401) as server:
        running = start(jobs.train, untrained, ONLINE, environment=server.environment, sabotage=jobs.impatient)
        assert running.code() == 0, running.said
    assert "no W&B run for this cell" in running.said
    assert wandb_server.KEY not in running.said
    assert losses(untrained) == losses(whole)


def test_a_run_that_goes_on_is_the_same_run_on_the_server(start: Start, untrained: Path) -> None:
    identity = json.loads((cell_folder(untrained) / "identity.json").read_text())["identity"]
    with wandb_server.serving() as server:
        killed = start(jobs.train, untrained, ONLINE, environment=server.environment, sabotage=jobs.AtStep(7, jobs.kill_me))
        assert killed.code() != 0
        assert start(jobs.train, untrained, ONLINE, environment=server.environment, sabotage=jobs.impatient).code() == 0
        asked = server.variables("UpsertBucket")
    assert {one["name"] for one in asked} == {identity[:16]}
    opening = [one for one in asked if one["displayName"]]
    assert [(one["displayName"], one["groupName"], one["jobType"]) for one in opening] == 2 * [
        (cell_folder(untrained).name, "toy_all", "cell")
    ]
    assert len(server.variables("RunResumeStatus")) == 2, "both asked whether the run is there"


def test_training_goes_on_when_wandb_cannot_write(start: Start, untrained: Path, whole: Path) -> None:
    (cell_folder(untrained) / "wandb").write_text("a file where W&B wants a folder")
    running = start(jobs.train, untrained, OFFLINE)
    assert running.code() == 0, running.said
    assert losses(untrained) == losses(whole)


def test_the_log_of_a_run_is_ours(start: Start, untrained: Path) -> None:
    running = start(jobs.train, untrained, OFFLINE)
    assert running.code() == 0
    noise = ("Tip", "available", "dataloader", "LeafSpec", "weights_only", "log_every_n_steps", "Trainer", "eval mode", "wandb:")
    assert [line for line in running.said.splitlines() if any(word in line for word in noise)] == []
