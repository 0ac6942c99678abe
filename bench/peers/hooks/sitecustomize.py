"""Lets a clock into babeltune's training process without touching it: Python runs this file first, for it is on its path.

When Lightning's trainer is imported, its `fit` gets one callback more. Nothing else changes.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

TRAINER = "lightning.pytorch.trainer.trainer"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _clocked(module.Trainer)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _clocked(trainer: Any) -> None:
    fit = trainer.fit

    @functools.wraps(fit)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        from peers.clocked import Clocked

        self.callbacks.append(Clocked())
        return fit(self, *args, **kwargs)

    trainer.fit = wrapped


if "BENCH_REPORT" in os.environ:
    sys.meta_path.insert(0, _Finder())
