"""A tokenizer learned from text: byte-pair merges with byte fallback, and every text comes back as it went in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

SPECIALS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
"""Merges stay within a word with the space before it, a digit, a run of signs, or white space."""


def train_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A fast tokenizer of at most `size` tokens, the 256 bytes and four marks among them. The same texts give the same tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    marks = list(SPECIALS.values())
    learner = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=size - 256, special_tokens=marks, show_progress=False)
    learner.train_from_iterator(texts, trainer)

    learned = json.loads(learner.to_str())["model"]
    ranked = sorted(learned["vocab"], key=learned["vocab"].get)
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *(piece for piece in ranked if piece not in marks)]
    merges = [tuple(merge) for merge in learned["merges"]]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIALS)
