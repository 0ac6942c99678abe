"""FSDP2: weights, gradients and the optimizer's state lie in pieces on a cell's devices, and are whole again on disk.

Each layer is put together when it runs and taken apart after it. What lies between the layers (embeddings, norms, output layer)
is put together for the whole pass, because the output layer is used outside of its own forward. Checkpoints hold whole tensors:
a run goes on from one on any number of devices, with whichever strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn

from babeltune.modeling.pieces import like, whole


class WholeForward(nn.Module):
    """A function of a model as a module, so that FSDP2 sees where a pass begins and ends."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, *arguments: Any) -> Tensor:
        return self._function(self.model, *arguments)


def shard(model: Any, function: Callable[..., Tensor], mesh: Any) -> WholeForward:
    """Take a model apart, in place, onto the devices of a mesh. Returns `function` of it, which must be called through this."""
    from torch.distributed.fsdp import fully_shard

    for layer in layers(model):
        fully_shard(layer, mesh=mesh)
    root = WholeForward(model, function)
    fully_shard(root, mesh=mesh)
    return root


def layers(model: Any) -> list[nn.Module]:
    """The blocks of a transformer, by the names that transformers gives what must stay together on a device."""
    lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = set(lm._no_split_modules or ())
    return [module for module in lm.modules() if type(module).__name__ in names]


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's, with checkpoints that are ours: one file of whole tensors, written by the first process."""

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {}  # the module says itself what of it is kept

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()  # Lightning may have wrapped it
        return state | {"state": {key: {name: whole(part) for name, part in one.items()} for key, one in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parts = [part for group in optimizer.param_groups for part in group["params"]]
            own = {key: {name: like(value, parts[key]) for name, value in one.items()} for key, one in saved["state"].items()}
            optimizer.load_state_dict(saved | {"state": own})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)
