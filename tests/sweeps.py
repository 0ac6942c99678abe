"""The cells of the files in `sweeps/`, as overrides."""

from __future__ import annotations

import itertools
from typing import Any

import yaml

from babeltune import cells
from babeltune.config import CONF
from babeltune.door import listed
from babeltune.options import RunConfig

SWEEPS = CONF.parent / "sweeps"
PAPERS = sorted(path.stem for path in SWEEPS.glob("*.yaml") if path.stem != "demo")


def sweep_cells(name: str) -> list[tuple[str, ...]]:
    """The axes' cells, then those that the file lists."""
    tree: dict[str, Any] = yaml.safe_load((SWEEPS / f"{name}.yaml").read_text(encoding="utf-8"))
    params = tree["hydra"]["sweeper"]["params"]
    axes = [[f"{key}={value.strip()}" for value in str(values).split(",")] for key, values in params.items()]
    entries = [listed(entry) for entry in tree["grid"].get("cells", [])]
    return [(f"sweeps={name}", *cell) for cell in [*itertools.product(*axes), *entries]]


def architecture(config: RunConfig) -> str:
    """The model type at the beginning of a cell's chain of bases."""
    parent = cells.parent_config(config)
    if parent is not None:
        return architecture(parent)
    return str(config.model.fresh["model_type"]) if config.model.fresh else str(config.model.path)
