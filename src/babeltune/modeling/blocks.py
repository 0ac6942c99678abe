"""What `trainer.checkpointing` and `trainer.compile` do to the layers of a model while it trains."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from torch import nn

from babeltune.errors import ConfigError, ModelError, problem
from babeltune.options import TrainerConfig

COMPILERS = ("g++", "c++", "clang++")
"""Programs that torch.compile's kernels are made by on a CPU; on a GPU Triton needs one too, for its launchers."""

UNCOMPILED = ("bloom",)
"""Families whose layers get another hook in every pass: see `loss.ALIBI`."""


@contextlib.contextmanager
def prepared(model: Any, trainer: TrainerConfig) -> Iterator[None]:
    """Have each layer computed again in the backward pass, or compiled, as `trainer` says; a number changes by rounding at most.

    Raises ModelError for a family without such layers, ConfigError when there is nothing to compile with.
    """
    lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    with contextlib.ExitStack() as undo:
        if trainer.checkpointing:
            _checkpoint(lm)
            undo.callback(lm.activation_checkpointing_disable)
        if trainer.compile:
            for layer in _compile(lm):
                undo.callback(setattr, layer, "_compiled_call_impl", None)
        yield


def _checkpoint(lm: Any) -> None:
    if not lm.supports_gradient_checkpointing:
        expected = "a family that can be computed in layers"
        raise ModelError(problem("trainer.checkpointing=true", lm.config.model_type, expected, "trainer.checkpointing=false"))
    lm.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    lm.disable_input_require_grads()  # only the reentrant kind needs gradients of the embeddings


def _compile(lm: Any) -> list[nn.Module]:
    """The layers, told to compile themselves at their first pass, for any number of tokens."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or lm.config.model_type in UNCOMPILED:
        expected = "a family whose layers stay as they are from step to step"
        raise ModelError(problem("trainer.compile=true", lm.config.model_type, expected, "trainer.compile=false"))
    if not any(map(shutil.which, COMPILERS)):
        raise ConfigError(
            problem(
                "trainer.compile=true", "no C++ compiler on the path", "g++ or clang++", "installing one, or trainer.compile=false"
            )
        )
    for layer in layers:
        layer.compile(dynamic=True)
    return layers
