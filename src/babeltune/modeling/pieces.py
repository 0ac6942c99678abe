"""Tensors that lie in pieces on several devices, made whole to be written and taken apart again when they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(part: Any) -> Any:
    """A value to be written by the first process: what lies in pieces is put together there, and is empty elsewhere.

    All processes must ask. A value that is not in pieces comes back as it is; of a weight that DeepSpeed keeps a float32 copy of,
    the copy does.
    """
    if hasattr(part, "get_full_hp_param"):
        tensor: Tensor = part.get_full_hp_param()
    elif isinstance(part, DTensor):
        tensor = part.full_tensor().detach()
    else:
        return part
    return tensor.cpu() if torch.distributed.get_rank() == 0 else tensor.new_empty(0, device="cpu")


def like(value: Any, part: Tensor) -> Any:
    """A whole tensor cut into pieces as `part` is, where that is in pieces and of the same shape."""
    if not (isinstance(part, DTensor) and isinstance(value, Tensor) and value.shape == part.shape):
        return value
    return distribute_tensor(value.to(part.device), part.device_mesh, part.placements, src_data_rank=None)


@torch.no_grad()
def join(model: nn.Module) -> None:
    """Put what was trained together again, in place, in the memory of the first process. All must call this."""
    joined: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, part in list(module.named_parameters(recurse=False)):
            if part.requires_grad and id(part) not in joined and (tensor := whole(part)) is not part:
                joined[id(part)] = nn.Parameter(tensor)
            if id(part) in joined:
                setattr(module, name, joined[id(part)])
