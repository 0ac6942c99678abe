"""DeepSpeed's ZeRO-2: gradients and the optimizer's state lie in pieces on a cell's devices, weights are whole on each.

Where the model computes in bfloat16, the trained weights that count are DeepSpeed's float32 copies; those are what is saved.
Checkpoints hold whole tensors, as of every strategy: a run goes on from one on any number of devices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn

from babeltune.errors import ConfigError, problem

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each weight."""


def check_installed() -> None:
    """Raises ConfigError when DeepSpeed is not there."""
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        got = f"no DeepSpeed ({' '.join(str(error).split())})"
        raise ConfigError(
            problem("trainer.strategy=deepspeed", got, "the package", "pip install '.[deepspeed]', or trainer=fsdp")
        ) from error


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's, with checkpoints that are ours: one file of whole tensors, written by the first process."""

    def __init__(self, *, clip: float | None, process_group_backend: str | None = None) -> None:
        super().__init__(
            process_group_backend=process_group_backend,
            config={
                "train_micro_batch_size_per_gpu": 1,  # unused: a step's micro-batches are ours
                "gradient_clipping": clip or 0.0,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": 2},
                "communication_data_type": "fp32",
                "data_types": {"grad_accum_dtype": "fp32"},
            },
        )

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Within, a backward pass is not the last of its step."""
        self.deepspeed_engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        # Batches hold no floating-point numbers; Lightning would look for some, and refuses frozen dataclasses.
        self.precision_plugin.convert_input = lambda data: data  # type: ignore[method-assign]
        self.deepspeed_engine.set_gradient_accumulation_boundary(True)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}  # the module says itself what of it is kept

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)
        values = checkpoint["state_dict"].values()
        for part, value in zip(_trained(self.lightning_module), values, strict=True):
            safe_set_full_fp32_param(part, value.to(part.device))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """As torch's own AdamW would tell it of the whole weights."""
        from deepspeed.utils import safe_get_full_optimizer_state

        zero = getattr(optimizer, "_optimizer", optimizer)  # Lightning may have wrapped it
        assert self.lightning_module is not None
        parts = _trained(self.lightning_module)
        step = next(iter(zero.optimizer.state.values()))["step"]
        state = {
            place: {"step": step.cpu()} | {name: safe_get_full_optimizer_state(part, name).cpu() for name in MOMENTS}
            for place, part in enumerate(parts)
        }
        groups = [{**group, "params": list(range(len(parts)))} for group in zero.optimizer.param_groups]
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        (zero,) = self.optimizers
        (saved,) = checkpoint["optimizer_states"]
        assert self.lightning_module is not None
        step = saved["state"][0]["step"]
        for flat in zero.single_partition_of_fp32_groups:  # type: ignore[attr-defined]
            moments: dict[str, Tensor] = {name: torch.zeros_like(flat) for name in MOMENTS}
            zero.optimizer.state[flat] = {"step": step.clone(), **moments}  # type: ignore[attr-defined]
        zero._lazy_init_hp_params_optimizer_state()  # type: ignore[attr-defined]
        for place, part in enumerate(_trained(self.lightning_module)):
            for name in MOMENTS:
                safe_set_full_optimizer_state(part, saved["state"][place][name].to(part.device), name)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [part for part in module.parameters() if part.requires_grad]
