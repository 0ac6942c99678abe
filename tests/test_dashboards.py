"""What a table shows is in Weights & Biases too; and W&B can be away, wrong or not installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import comparison, dashboards, mirroring
from babeltune.identity import digest
from babeltune.options import LoggerConfig
from tests import wandb_server
from tests.commands import QUICK, cells, train
from tests.finished import finish, score
from tests.test_comparison import NAME, grid, right
from tests.training.wandb_reader import Run, runs

OFFLINE = LoggerConfig(mode="offline")


@pytest.fixture(autouse=True)
def no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return grid(tmp_path / "outputs", toy_zh=(0.9, 0.85), toy_en=(0.2, 0.25))


def mirrored(manifest: Path) -> list[Run]:
    return runs(manifest.with_suffix(""))


def report(manifest: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make wandb-report` as a process."""
    command = [sys.executable, "-m", "babeltune.dashboards", manifest.stem, "--outputs", str(manifest.parents[1])]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def test_the_table_is_a_run_of_its_own_among_the_runs_of_its_cells(manifest: Path) -> None:
    dashboards.mirror(manifest, OFFLINE)
    (run,) = mirrored(manifest)
    made = comparison.table(manifest)
    assert (run.id, run.name, run.group, run.exit_code) == (digest(json.loads(manifest.read_text()))[:16], "g: table", "g", 0)
    assert run.config["baseline"] is None
    assert run.summary["notes"] == list(made.notes)
    (file,) = manifest.with_suffix("").glob("wandb/offline-run-*/files/media/table/comparison*.json")
    sent = json.loads(file.read_text())
    assert sent["columns"] == [*made.columns, "notes"]
    assert [tuple(row[:-1]) for row in sent["data"]] == list(made.rows)
    assert sent["data"][0][-1].splitlines() == list(made.notes)


def test_the_same_table_is_sent_once_and_another_goes_to_the_same_run(manifest: Path) -> None:
    for _ in range(2):
        dashboards.mirror(manifest, OFFLINE)
    assert len(mirrored(manifest)) == 1
    finish(["data=toy_en", "seed=0", "grid.name=g", "grid.title='Which data?'"], [score(NAME, right(0.5))], manifest.parents[1])
    dashboards.mirror(manifest, OFFLINE)
    first, second = mirrored(manifest)
    assert first.id == second.id
    assert first.summary["rows"] != second.summary["rows"]


def test_nothing_is_mirrored_for_files_only(manifest: Path) -> None:
    dashboards.mirror(manifest, LoggerConfig(kind="none"))
    assert not manifest.with_suffix("").exists()


def test_a_server_that_is_away_costs_the_mirror_only(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
    monkeypatch.setattr(mirroring, "SERVER_SECONDS", 2.0)
    dashboards.mirror(manifest, LoggerConfig(mode="auto"))
    assert "no W&B run for this grid" in caplog.text
    assert not (manifest.with_suffix("") / "mirrored.json").exists()


def test_a_report_without_a_server_says_what_it_would_be(manifest: Path) -> None:
    done = report(manifest)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "nothing is made: no server: WANDB_API_KEY is not set, or WANDB_MODE is not online. It would be"
    assert said[1] == 'a report "Which data?" in the project babeltune, of 4 runs in the group g:'
    assert "  bars: toy/exact_match of every run" in said
    assert "  lines: loss on toy_zh over the steps" in said
    assert "  table: every item with its reply and score" in said


def test_a_report_without_its_library_says_what_it_would_be(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("wandb_workspaces", "wandb_workspaces.reports", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert dashboards.main([manifest.stem, "--outputs", str(manifest.parents[1])]) == 0
    said = capsys.readouterr().out
    assert said.startswith("nothing is made: wandb-workspaces is not installed (pip install '.[report]'). It would be")


def test_a_report_is_made_on_the_server_it_is_sent_to(manifest: Path) -> None:
    with wandb_server.serving() as server:
        done = report(manifest, **server.environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().startswith(f"made: {server.environment['WANDB_BASE_URL']}/me/babeltune/reports/"), done.stdout
        (sent,) = server.variables("upsertView") or server.variables("UpsertView")
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("me", "babeltune", "Which data?")
    spec = json.dumps(json.loads(sent["spec"]))
    for word in ("score/toy/exact_match", "train/loss_toy_en", "replies", "comparison", '"g"'):
        assert word in spec, word


def test_a_server_that_refuses_the_key_is_said_and_is_no_failure(manifest: Path) -> None:
    with wandb_server.serving(status=401) as server:
        done = report(manifest, **server.environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing is made: ")
    assert "  bars: toy/exact_match of every run" in done.stdout
    assert wandb_server.KEY not in done.stdout + done.stderr


def test_a_grid_that_there_is_not_or_that_has_not_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = grid(tmp_path, toy_zh=(-1,), toy_en=(-1,))
    assert dashboards.main(["h", "--outputs", str(tmp_path)]) == 2
    assert dashboards.main([manifest.stem, "--outputs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: wandb-report: got 'h'; expected a grid in {tmp_path / 'grids'}; try g\n"
        "error: the grid g: got no finished cell; expected something to report on; try running it first\n"
    )


@pytest.mark.slow
def test_a_grid_of_two_workers_is_a_run_for_each_cell_and_one_for_its_table(tmp_path: Path) -> None:
    words = ["-m", "data=toy_zh,toy_zh_noisy", *QUICK, "grid.workers=2", "grid.name=pair", f"paths.outputs={tmp_path / 'outputs'}"]
    _, said = train(*words)
    assert "12 items, 1 seed, 2 rows: expect to find a true difference of " in said
    made = cells(tmp_path / "outputs")
    found = {name: runs(folder) for name, folder in made.items()}
    assert len(made) == 2
    for name, folder in made.items():
        (run,) = found[name]
        assert run.id == json.loads((folder / "identity.json").read_text())["identity"][:16]
        assert (run.name, run.group, run.exit_code) == (name, "pair", 0)
        (file,) = folder.glob("wandb/offline-run-*/files/media/table/replies*.json")
        assert len(json.loads(file.read_text())["data"]) == 12
    (table,) = runs(tmp_path / "outputs" / "grids" / "pair")
    assert table.group == "pair"
    assert [row[0] for row in table.summary["rows"]] == ["toy_zh", "toy_zh_noisy"]
    figures = {key.split("/")[1] for key in table.summary if key.startswith("figures/")}
    assert "losses" in figures
    _, again = train(*words)
    assert "expect to find" not in again
    assert {name: len(runs(folder)) for name, folder in made.items()} == dict.fromkeys(made, 1)
    assert len(runs(tmp_path / "outputs" / "grids" / "pair")) == 1
