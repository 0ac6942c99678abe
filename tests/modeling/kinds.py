"""Every kind of adapter, small, and what tests do with any of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from babeltune.data.rows import Document, MicroBatch, collate
from babeltune.modeling import adapters
from babeltune.modeling.loss import target_losses
from babeltune.options import (
    AdaLoraAdapter,
    AdapterConfig,
    DoraAdapter,
    EmbeddingsAdapter,
    HoulsbyAdapter,
    Ia3Adapter,
    Layout,
    LoraAdapter,
    ParallelAdapter,
    PfeifferAdapter,
    Precision,
    PrefixAdapter,
    PromptAdapter,
    PTuningAdapter,
    RsLoraAdapter,
    RunConfig,
)
from tests.modeling import tiny

KINDS: dict[str, AdapterConfig] = {
    "lora": LoraAdapter(rank=4, dropout=0.0),
    "rslora": RsLoraAdapter(rank=4, dropout=0.0),
    "dora": DoraAdapter(rank=4, dropout=0.0),
    "adalora": AdaLoraAdapter(initial_rank=6, target_rank=3, dropout=0.0),
    "prompt": PromptAdapter(tokens=5),
    "p_tuning": PTuningAdapter(tokens=5, hidden=16),
    "prefix": PrefixAdapter(tokens=5, hidden=16),
    "sadapter_p": PfeifferAdapter(size=4),
    "sadapter_h": HoulsbyAdapter(size=4),
    "padapter": ParallelAdapter(size=4),
    "ia3": Ia3Adapter(),
    "embeddings": EmbeddingsAdapter(),
}
VIRTUAL = ("prompt", "p_tuning", "prefix")
FAMILIES = ("llama", "bloom", "gptj")


def config(kind: str, family: str, path: Path | None = None, precision: Precision = Precision.fp32, **changes: Any) -> RunConfig:
    settings = tiny.config(path, precision=precision)
    return dataclasses.replace(
        settings,
        adapter=dataclasses.replace(KINDS[kind], **changes),
        model=dataclasses.replace(settings.model, lora_targets=tiny.TARGETS[family]),
        data=dataclasses.replace(settings.data, layout=Layout.padded if kind in VIRTUAL else Layout.packed),
    )


def attached(kind: str, family: str, **changes: Any) -> tuple[Any, RunConfig]:
    settings = config(kind, family, **changes)
    return adapters.attach(tiny.model(family), settings), settings


def document(start: int, length: int) -> Document:
    ids = np.arange(start, start + length, dtype=np.int32) % tiny.VOCABULARY
    return Document(ids, np.arange(length) > length // 3, 0)


def batch() -> MicroBatch:
    """Two texts of different lengths, each in a row of its own."""
    return collate([[document(4, 30)], [document(90, 19)]], pad_id=0)


def losses(model: Any, texts: MicroBatch | None = None) -> torch.Tensor:
    texts = texts or batch()
    return target_losses(model, texts.input_ids_BT, texts.position_ids_BT, texts.document_ids_BT, texts.labels_BT)


def train(model: Any, steps: int, learning_rate: float = 1e-2) -> list[float]:
    """The loss of each step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    model.train()
    seen = []
    for _ in range(steps):
        loss = losses(model).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float(loss.detach()))
    return seen


def evaluated(model: Any) -> torch.Tensor:
    """The loss of each target token, without dropout."""
    model.eval()
    with torch.no_grad():
        return losses(model)


def reloaded(family: str, folder: Path, settings: RunConfig) -> Any:
    return adapters.load(tiny.model(family), folder, settings)
