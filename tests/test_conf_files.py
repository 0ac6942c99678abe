"""Every YAML file says what it is, and every option, mix and sweep cell builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from babeltune import cells
from babeltune.config import CONF, build, compose, dump
from babeltune.help import first_comment, text
from babeltune.options import RunConfig
from tests.sweeps import SWEEPS, sweep_cells

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("source", "paper", "sweeps"))
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
FILES = sorted({*CONF.rglob("*.yaml"), *SWEEPS.glob("*.yaml")})

WITH = {
    "evaluation=humaneval": ["evaluation.allow_code=true"],
    "judge=vicuna": ["judge.against=FOLDER"],
    "judge=fastchat": ["judge.against=FOLDER"],
    "judge=endpoint": ["judge.url=http://127.0.0.1:8000/v1", "judge.model=NAME"],
    "judge=reward": ["judge.model=FOLDER"],
    "judge=recorded": ["judge.file=FILE"],
    "cleaning=semantic": ["cleaning.semantic.model=FOLDER"],
    "cleaning=perplexity": ["cleaning.perplexity.model=FOLDER"],
    "cleaning=reward": ["cleaning.reward.model=FOLDER"],
    "cleaning=translate_vi": ["cleaning.translate_vi.model=FOLDER"],
    "precision=int8": ["adapter=lora"],
    "stage=pretrain": ["template=plain"],
    "template=plain": ["stage=pretrain"],
    "model=tiny_fresh": ["adapter=none"],
    "model=answers": ["data=none"],
    "model=adapter": ["data=none", "model.adapter=FOLDER"],
    "data=none": [],
    "adapter=prompt": ["data.layout=padded"],
    "adapter=p_tuning": ["data.layout=padded"],
    "adapter=prefix": ["data.layout=padded"],
}
"""Options that need another beside them."""


def read(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tree


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF.parent).as_posix())
def test_every_yaml_file_begins_with_a_line_about_itself(path: Path) -> None:
    line = first_comment(path)
    assert line.endswith("."), f"{path} begins with {line!r}"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert next(one for one in lines if not one.startswith("# @package")) == f"# {line}"


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_builds_and_survives_a_round_trip(option: str) -> None:
    config = compose([option, *WITH.get(option, [])])
    cells.check(config)
    tree = dump(config)
    assert build(tree) == config
    assert build(yaml.safe_load(yaml.safe_dump(tree, allow_unicode=True))) == config
    group, _, name = option.partition("=")
    if hasattr(getattr(config, group, None), "name"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_model_builds_at_the_papers_size_as_itself(model: str) -> None:
    config = compose([f"model={model}", "scale=paper", *WITH.get(f"model={model}", [])])
    own = read(CONF / "model" / f"{model}.yaml")
    from_cell = own.get("from_cell") and own["from_cell"].replace("${scale.name}", "paper").replace("${scale.base}", "paper")
    assert (config.model.path, config.model.from_cell) == (own.get("path"), from_cell)


@pytest.mark.parametrize("scale", ["quick", "paper"])
@pytest.mark.parametrize(
    "overrides", [cell for path in sorted(SWEEPS.glob("*.yaml")) for cell in sweep_cells(path.stem)], ids=" ".join
)
def test_every_cell_of_every_sweep_builds(overrides: tuple[str, ...], scale: str) -> None:
    config = compose([*overrides, f"scale={scale}"])
    cells.check(config)
    assert isinstance(config, RunConfig)
    assert config.grid.name == overrides[0].removeprefix("sweeps=")


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mix_has_a_title_and_the_name_of_its_file(path: Path) -> None:
    tree = read(path)
    assert tree["title"]
    assert tree["name"] == path.stem


def test_every_source_is_in_a_mix_or_a_suite() -> None:
    used = set()
    for path in [*(CONF / "data").glob("*.yaml"), *(CONF / "evaluation").glob("*.yaml")]:
        for entry in read(path).get("defaults", []):
            used |= {name for key, name in entry.items() if key.startswith("/source@")} if isinstance(entry, dict) else set()
    assert {path.stem for path in (CONF / "source").glob("*.yaml")} == used


def test_help_lists_every_option_with_its_line() -> None:
    said = text()
    for option in OPTIONS:
        group, _, name = option.partition("=")
        assert f"\n{group}=\n" in said
        assert first_comment(CONF / group / f"{name}.yaml") in said


def test_what_a_user_chooses_is_not_undone_by_the_scale() -> None:
    assert compose(["precision=int8"]).precision.kind.value == "int8"
    assert compose(["experiment=belle"]).precision.kind.value == "fp32"
    assert compose(["experiment=belle", "scale=paper"]).precision.kind.value == "bf16"
