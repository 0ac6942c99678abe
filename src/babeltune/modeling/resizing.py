"""Rows of weights for new pieces. The old rows stay as they are, to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from babeltune.modeling.counting import embedding_matrices
from babeltune.modeling.extending import Extended
from babeltune.options import NewRows


def resize(base: Any, tokenizer: Any, grown: Extended, how: NewRows, seed: int) -> None:
    """Give the base's input and output embeddings a row for each piece that its `tokenizer` has grown by.

    Matrices are V × H, one where the model ties them, else two, with what bias the output has (V). Rows that a base has beyond its
    tokenizer are given to the new pieces first, and none is added but those that are needed. The model's config follows.
    """
    old, new = grown.old_size, grown.size
    if new > len(base.get_input_embeddings().weight):
        with torch.random.fork_rng(devices=[]):
            base.resize_token_embeddings(new, mean_resizing=False)
    splits = _splits(tokenizer, grown) if how is NewRows.pieces else []
    chance = torch.Generator().manual_seed(seed)
    deviation = float(getattr(base.config.get_text_config(), "initializer_range", 0.02))
    with torch.no_grad():
        for matrix in embedding_matrices(base):
            matrix[old:new] = _rows(matrix[:old], splits, new - old, how, deviation, chance)
        bias = getattr(base.get_output_embeddings(), "bias", None)
        if bias is not None:
            rows = torch.zeros(new - old) if how is NewRows.random else _rows(bias[:old], splits, new - old, how, deviation, chance)
            bias[old:new] = rows


def _rows(old: Tensor, splits: list[list[int]], num: int, how: NewRows, deviation: float, chance: torch.Generator) -> Tensor:
    """What `num` new rows begin with, computed in float32."""
    match how:
        case NewRows.pieces:
            means = [(old[ids] if ids else old).float().mean(0) for ids in splits]
            new = torch.stack(means) if means else old[:0].float()
        case NewRows.mean:
            new = old.float().mean(0, keepdim=True).expand(num, *old.shape[1:])
        case NewRows.random:
            new = torch.normal(0.0, deviation, (num, *old.shape[1:]), generator=chance)
    return new.to(old.dtype)


def _splits(tokenizer: Any, grown: Extended) -> list[list[int]]:
    """The old ids that spell each new piece, in the order of the new ids."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    names = {number: piece for piece, number in grown.tokenizer.get_vocab().items()}
    return [[token.id for token in backend.model.tokenize(names[number])] for number in range(grown.old_size, grown.size)]
