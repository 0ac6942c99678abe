"""Small trained networks between the layers of a frozen base: down to a few features, tanh, up again, added to what passes by.

Where they go and how they start is that of the library behind the Alpaca-CoT study (its `peft/tuners/bottleneck.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from babeltune.modeling.places import linears, places
from babeltune.options import BottleneckAdapter, HoulsbyAdapter, ParallelAdapter, PfeifferAdapter


class Side(Enum):
    """How a bottleneck stands to the module it is attached to."""

    before = "before"
    """Changes what goes in."""
    after = "after"
    """Changes what comes out."""
    beside = "beside"
    """Sees what goes in, and is added to what comes out."""


class Bottleneck(nn.Module):
    """A linear module of the base with a bottleneck before, after or beside it. Its own weights are float32, and so is its sum."""

    def __init__(self, base: Any, side: Side, adapter: BottleneckAdapter) -> None:
        super().__init__()
        self.base = base
        self.side = side
        inside = base.out_features if side is Side.after else base.in_features
        outside = base.in_features if side is Side.before else base.out_features
        where = {"device": base.weight.device, "dtype": torch.float32}
        self.down = nn.Parameter(torch.empty(adapter.size, inside, **where))
        self.up = nn.Parameter(torch.empty(outside, adapter.size, **where))
        nn.init.normal_(self.down, std=0.02)
        if adapter.zero_start:
            nn.init.zeros_(self.up)
        else:
            nn.init.normal_(self.up, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        match self.side:
            case Side.before:
                return self.base(self._added(x, x))  # type: ignore[no-any-return]
            case Side.after:
                y = self.base(x)
                return self._added(y, y)
            case Side.beside:
                return self._added(self.base(x), x)

    def _added(self, passing: Tensor, seen: Tensor) -> Tensor:
        narrow = torch.tanh(nn.functional.linear(seen.to(self.down.dtype), self.down))
        return passing + nn.functional.linear(narrow, self.up).to(passing.dtype)


def sides(base: Any, adapter: BottleneckAdapter) -> dict[str, Side]:
    """The modules of each layer that get a bottleneck, by their last names."""
    where = places(base, adapter.kind)
    match adapter:
        case PfeifferAdapter():
            return dict.fromkeys(where.last, Side.after)
        case HoulsbyAdapter():
            return dict.fromkeys(where.first, Side.before) | dict.fromkeys(where.last, Side.after)
        case ParallelAdapter():
            return dict.fromkeys(where.attention, Side.beside)
        case other:
            raise AssertionError(other)


def insert(base: Any, adapter: BottleneckAdapter) -> Any:
    """Freeze the base and put the bottlenecks into it, in place."""
    base.requires_grad_(False)
    chosen = sides(base, adapter)
    found = [(name, module) for name, module in base.named_modules() if name.rsplit(".", 1)[-1] in chosen]
    for name, module in found:
        parent, _, last = name.rpartition(".")
        setattr(base.get_submodule(parent), last, Bottleneck(module, chosen[last], adapter))
    return base


def bottlenecks(model: nn.Module) -> Iterator[Bottleneck]:
    return (module for module in model.modules() if isinstance(module, Bottleneck))


def expected_bottlenecks(base: Any, adapter: BottleneckAdapter) -> int:
    """size × (features seen + features added to) for every bottleneck, without biases.

    Before and after a feed-forward block of a model of width H that is 2·size·H each; beside a module, size·(in + out).
    """
    chosen = sides(base, adapter)
    total = 0
    for name, module in linears(base).items():
        match chosen.get(name.rsplit(".", 1)[-1]):
            case Side.before:
                total += 2 * adapter.size * module.in_features
            case Side.after:
                total += 2 * adapter.size * module.out_features
            case Side.beside:
                total += adapter.size * (module.in_features + module.out_features)
            case None:
                pass
    return total
