"""Releases that must not come back, and calls that must not come in."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "src").rglob("*.py"), ROOT / "train.py"])

REFUSED = {
    "lightning": ["2.6.2", "2.6.3"],
    "hydra-core": ["1.3.2", "1.3.7"],
    "torch": ["2.5.0", "2.9.1"],
}


def requirements() -> dict[str, Requirement]:
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {one.name: one for one in map(Requirement, tree["project"]["dependencies"])}


@pytest.mark.parametrize(("name", "version"), [(name, version) for name, versions in REFUSED.items() for version in versions])
def test_a_release_known_to_be_bad_cannot_be_installed(name: str, version: str) -> None:
    assert not requirements()[name].specifier.contains(version, prereleases=True)


def test_the_stolen_releases_are_named_so_that_a_wider_range_keeps_them_out() -> None:
    assert {"!=2.6.2", "!=2.6.3"} <= {str(part) for part in requirements()["lightning"].specifier}


def test_what_is_installed_is_what_is_pinned() -> None:
    from importlib.metadata import version

    for name, requirement in requirements().items():
        assert requirement.specifier.contains(Version(version(name)).public), name


RUNS_CODE = ("pickle", "cPickle", "joblib", "dill", "cloudpickle")


def forbidden(tree: ast.AST) -> list[str]:
    """What a file does that runs code from data, or that is known to give stale or wrong numbers."""
    found = []
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] != ["UnpicklingError"]:
            names += [node.module or ""]
        # catching pickle's error is no unpickling
        found += [name for name in names if name.split(".")[0] in RUNS_CODE and used != {"UnpicklingError"}]
        if isinstance(node, ast.Call):
            settings = {one.arg: one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)}
            saves = isinstance(node.func, ast.Attribute) and node.func.attr == "save_checkpoint"
            # Lightning's save_checkpoint(weights_only=False) writes the optimiser too; it loads nothing.
            found += ["weights_only=False"] if settings.get("weights_only") is False and not saves else []
            found += ["trust_remote_code=True"] if settings.get("trust_remote_code") is True else []
        if isinstance(node, ast.Attribute) and node.attr in ("estimated_stepping_batches", "map"):
            found.append(f".{node.attr}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_comes_out_of_data(path: Path) -> None:
    assert forbidden(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import dill.source",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(place, trust_remote_code=True)",
        "trainer.estimated_stepping_batches",
        "rows.map(clean)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert forbidden(ast.parse(code))
