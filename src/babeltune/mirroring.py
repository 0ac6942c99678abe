"""Weights & Biases runs, opened the same way for a cell and for a grid. Whatever W&B does, it costs the mirror only."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babeltune.options import LoggerConfig

log = logging.getLogger(__name__)

SERVER_SECONDS = 20.0
"""How long a W&B server may keep a run waiting, at its beginning and at its end."""


def is_online(mode: str = "auto") -> bool:
    """Whether a run goes to a server: when told so, or by default when an API key is set and W&B is not set to be offline."""
    if mode == "auto":
        return bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
    return mode == "online"


def open_run(
    folder: Path, config: LoggerConfig, *, run_id: str, name: str, group: str, kind: str, settings: Mapping[str, Any]
) -> Any | None:
    """A W&B run that writes below `folder`; one of the same id goes on. None, with a warning, when it cannot be had.

    `kind` is what W&B calls the type of a job: cell or grid.
    """
    import wandb

    online = is_online(config.mode)
    try:
        return wandb.init(
            project=config.project,
            id=run_id,
            name=name,
            group=group,
            job_type=kind,
            config=dict(settings),
            dir=str(folder),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            reinit="finish_previous",
            save_code=False,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=SERVER_SECONDS,
                finish_timeout=SERVER_SECONDS,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
    except Exception as error:  # an unreachable server or a bad key: results are on disk all the same
        log.warning("no W&B run for this %s (%s); its numbers are in %s", kind, error, folder)
        return None
