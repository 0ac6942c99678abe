"""What to change where a cell will not fit. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from babeltune.options import Accelerator, NoAdapter, Precision, RunConfig, Strategy
from babeltune.plan.units import in_bytes
from babeltune.planned import Facts

TIGHT = 0.95
"""Share of the free memory above which a cell does not fit: other programs take some too."""


def warnings(facts: Facts, config: RunConfig) -> Iterator[str]:
    """A sentence for a cell whose peak is above the memory that is free."""
    if facts.peak_bytes is None or facts.free is None or facts.peak_bytes <= TIGHT * facts.free:
        return
    where = "the GPU" if config.trainer.accelerator is Accelerator.gpu else "this machine"
    changes = list(_changes(facts, config))
    hint = ", ".join(changes) or "a smaller model, or a larger machine"
    yield f"needs {in_bytes(facts.peak_bytes)} where {where} has {in_bytes(facts.free)} free; try {hint}"


def _changes(facts: Facts, config: RunConfig) -> Iterator[str]:
    """What makes a cell smaller, what saves the most first."""
    memory = facts.memory
    trained = memory["gradients"] + memory["optimizer"]
    savings: dict[str, float] = {}
    if isinstance(config.adapter, NoAdapter):
        savings["adapter=lora"] = trained
    elif config.precision.kind is Precision.fp32:
        on_gpu = config.trainer.accelerator is Accelerator.gpu
        savings["precision=bf16" if on_gpu else "precision=nf4"] = memory["weights"] * (0.5 if on_gpu else 0.75)
    elif config.precision.kind is Precision.bf16:
        savings["precision=nf4"] = memory["weights"] * 0.7
    smaller = max(config.data.max_tokens, config.trainer.micro_tokens // 2)
    if smaller < config.trainer.micro_tokens:
        savings[f"trainer.micro_tokens={smaller}"] = memory["activations"] * (1 - smaller / config.trainer.micro_tokens)
    if getattr(config.trainer, "checkpointing", None) is False:
        savings["trainer.checkpointing=true"] = memory["activations"] * 0.8
    if config.trainer.accelerator is Accelerator.gpu and config.trainer.strategy is Strategy.single:
        savings["trainer=fsdp"] = (memory["weights"] + trained) / 2
    for change, saved in sorted(savings.items(), key=lambda pair: -pair[1]):
        if saved > 0:
            yield f"{change} (about {in_bytes(round(saved))} less)"
