"""A tokenizer learned from text: byte-pair merges with byte fallback, and every text comes back as it went in."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from babeltune.errors import ConfigError, problem

SPECIALS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

WORDS = r"\p{Han}| ?[^\s\p{P}\p{Han}]+| ?\p{P}+|\s+"
"""Merges stay within a Chinese character, a word or signs with the space before them, or white space."""


def train_tokenizer(texts: Iterable[str], size: int) -> Any:
    """A fast tokenizer of at most `size` tokens, the 256 bytes and four marks among them. The same texts give the same tokenizer.

    Raises ConfigError when the size leaves room for nothing else.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    marks = list(SPECIALS.values())
    room = size - 256 - len(marks)
    if room <= 0:
        least = 256 + len(marks) + 1
        raise ConfigError(
            problem(
                "model.vocabulary", size, f"at least {least}: 256 bytes, {len(marks)} marks and some text", "model.vocabulary=2048"
            )
        )
    alphabet = _frequent_characters(texts, max(1, room * 3 // 4))
    learner = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size - 256,
        special_tokens=marks,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
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


def _frequent_characters(texts: list[str], limit: int) -> list[str]:
    """The characters that get a token; a Chinese corpus has thousands, and the rare ones are written as bytes.

    `limit_alphabet` alone breaks ties at random.
    """
    counts = Counter(itertools.chain.from_iterable(texts))
    return sorted(counts, key=lambda character: (-counts[character], character))[:limit]
