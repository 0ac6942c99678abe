"""The demo: what was planted in the toy world is found, and what was not planted is not."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import statistics
from babeltune.comparison import Row, read_rows
from tests.commands import ROOT, cells, train
from tests.training.wandb_reader import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's results, in `BABELTUNE_DEMO` when they are to be kept."""
    kept = os.environ.get("BABELTUNE_DEMO")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("demo")
    train("sweeps=demo", f"paths.outputs={folder}", timeout=900)
    return folder


@pytest.fixture(scope="module")
def rows(outputs: Path) -> dict[str, Row]:
    return {row.label: row for row in read_rows(outputs / "grids" / "demo.json")}


@pytest.mark.parametrize(
    "worse",
    [
        pytest.param("toy_zh_noisy", id="right answers win over half wrong ones"),
        pytest.param("toy_zh_small", id="more rows win over fewer"),
        pytest.param("toy_vi", id="the language that is asked in wins over another"),
        pytest.param("none", id="tuning wins over none"),
    ],
)
def test_what_was_planted_is_found(rows: dict[str, Row], worse: str) -> None:
    values = _values(rows)
    seeds = statistics.pooled_seed_variance(list(values.values()))
    difference = statistics.paired_difference(values["toy_zh"], values[worse], seeds)
    assert difference is not None
    assert difference.interval.value > 10
    assert difference.interval.low > 0


def test_a_mix_does_not_win_against_itself(rows: dict[str, Row]) -> None:
    values = _values(rows)
    seeds = statistics.pooled_seed_variance(list(values.values()))
    twice = {label: matrix for label, matrix in values.items() if len(matrix) == 2}
    assert len(twice) == 4
    for label, matrix in twice.items():
        difference = statistics.paired_difference(matrix[:1], matrix[1:], seeds)
        assert difference is not None
        assert difference.p_value > 0.05 / len(twice), f"two seeds of {label} were told apart"


def test_the_table_says_what_was_found(outputs: Path) -> None:
    table, progress = train("sweeps=demo", f"paths.outputs={outputs}")
    verdicts = {line.split()[0]: line for line in table.splitlines() if line.startswith(("toy_", "none"))}
    assert "baseline" in verdicts["toy_zh"]
    for label in ("toy_zh_noisy", "toy_zh_small", "toy_vi", "none"):
        assert "worse" in verdicts[label]
    assert progress.count("done before") == 10, "nothing was trained again"
    again = subprocess.run(
        [sys.executable, "-m", "babeltune", "table", "demo", "--outputs", str(outputs)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert again.stdout.strip() in table


def test_no_training_prompt_is_a_test_question(outputs: Path) -> None:
    from babeltune.data import toyworld

    cell = next(folder for name, folder in cells(outputs).items() if name.startswith("toy_zh-tiny"))
    items = json.loads(next(cell.glob("evaluations/*/items.json")).read_text())
    asked = {(item["messages"][0]["text"], item["messages"][0]["input"]) for item in items}
    learned = {(row["instruction"], row["input"]) for row in toyworld.instructions("zh", 1200)}
    assert asked
    assert not asked & learned


def test_the_adapter_loads_with_plain_peft_from_anywhere(outputs: Path, tmp_path: Path) -> None:
    cell = next(folder for name, folder in cells(outputs).items() if name.startswith("toy_zh-tiny"))
    program = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n"
        "base = json.load(open(sys.argv[1] + '/adapter_config.json'))['base_model_name_or_path']\n"
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), sys.argv[1])\n"
        "print(sum(float(p.abs().sum()) for n, p in model.named_parameters() if 'lora_B' in n) > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(cell / "adapter")], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "True"


def test_weights_and_biases_has_what_the_folder_has(outputs: Path) -> None:
    groups = set()
    for name, folder in cells(outputs).items():
        if name.startswith("toy_documents"):
            continue
        result = json.loads((folder / "result.json").read_text())
        run = runs(folder)[-1]
        groups.add(run.group)
        assert run.config["identity"] == result["identity"]
        assert run.config["config"]["data"]["name"] == result["config"]["data"]["name"]
        for score, value in result["scores"].items():
            assert run.summary[f"score/{score}"] == pytest.approx(value["value"])
        assert json.loads(json.dumps(run.summary["ledger"])) == result["ledger"]
        for source in result["config"]["data"]["sources"]:
            assert any(f"train/loss_{source}" in line for line in run.history)
    assert groups == {"demo"}


def _values(rows: dict[str, Row]) -> dict[str, statistics.Floats]:
    scores = [[run["toy_zh/exact_match"].items for run in row.scores] for row in rows.values()]
    assert all(itertools.chain(scores))
    return dict(zip(rows, statistics.aligned(*scores), strict=True))
