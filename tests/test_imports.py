"""Imports go one way; what can live without torch does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "babeltune"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "overrides", "lean"),
    ("records", "steps"),
    ("options", "stepchecks"),
    ("suites", "judges", "launchers"),
    ("alternatives",),
    ("judgechecks", "mixchecks", "modelchecks", "vocabularychecks"),
    ("refusals", "checks"),
    ("config",),
    ("identity", "foreign", "help", "endpoint", "devices"),
    (
        "results",
        "mirroring",
        "statistics",
        "tables",
        "figures",
        "data",
        "evaluation.metrics",
        "modeling.loss",
        "modeling.vocabulary",
    ),
    ("modeling", "evaluation.judging.naming", "planned"),
    ("training", "evaluation", "cells", "papers", "planning"),
    ("comparison", "explaining", "ledgers", "vocabularies", "examining"),
    ("runner",),
    ("worker",),
    ("progress",),
    ("grid",),
    ("launched",),
    ("clusters",),
    ("reporting",),
    ("dashboards",),
    ("plan",),
    ("door",),
    ("__main__",),
)
"""From what knows nothing of the rest to what knows it all. A module imports from layers before it and from its own folder."""


def place(module: str) -> int | None:
    """The layer of a module: the longest name in LAYERS that it begins with."""
    named = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in named:
            return named[".".join(parts[:end])]
    return None


def own_imports(path: Path) -> set[str]:
    """The modules of babeltune that a file imports when it runs, without those for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "babeltune":
            base = node.module.removeprefix("babeltune").lstrip(".")
            for alias in node.names:
                longer = f"{base}.{alias.name}".lstrip(".")
                is_module = (SOURCE / f"{longer.replace('.', '/')}.py").exists() or (SOURCE / longer.replace(".", "/")).is_dir()
                found.add(longer if is_module else base)
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("babeltune.") for alias in node.names if alias.name.startswith("babeltune.")}
    return found


MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"
)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    own = place(module)
    assert own is not None, f"{module} has no place in LAYERS"
    for other in own_imports(SOURCE / f"{module.replace('.', '/')}.py"):
        theirs = place(other)
        assert theirs is not None, f"{other} has no place in LAYERS"
        same_folder = "." in module and module.split(".")[0] == other.split(".")[0]
        assert theirs < own or same_folder, f"{module} imports {other}, which is not before it"


TORCH_FREE = (
    "babeltune",
    "babeltune.config",
    "babeltune.door",
    "babeltune.comparison",
    "babeltune.explaining",
    "babeltune.papers",
    "babeltune.figures",
    "babeltune.reporting",
    "babeltune.tables",
    "babeltune.grid",
    "babeltune.clusters.slurm",
    "babeltune.clusters.rays",
    "babeltune.plan.asking",
    "babeltune.plan.printing",
    "babeltune.cells",
    "babeltune.__main__",
)


def test_nothing_between_the_command_line_and_the_worker_imports_torch() -> None:
    code = "\n".join(
        ["import sys, importlib"]
        + [f"importlib.import_module({name!r}); assert 'torch' not in sys.modules, {name!r}" for name in TORCH_FREE]
        + ["import babeltune; babeltune.compose(['data=toy_zh']); assert 'torch' not in sys.modules, 'compose'"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
