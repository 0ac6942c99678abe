"""A base's tokenizer with pieces for more languages: which way its kind allows, that it says what it said, and what it brings."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune.data.lines import MixText, Sample, drawn
from babeltune.errors import ModelError, problem
from babeltune.modeling import continuing, sentencepieces
from babeltune.options import ExtendVocabularyStage, ModelConfig
from babeltune.results import write_text

log = logging.getLogger(__name__)

MODEL_FILE = "tokenizer.model"
"""SentencePiece's own file, which the fast tokenizer is made from."""
NORMALIZERS = ("identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")
"""Ways of rewriting text that SentencePiece knows by name."""


@dataclass(frozen=True, slots=True)
class Extended:
    """A tokenizer that has grown."""

    tokenizer: Any
    old_size: int
    size: int
    learned: int
    """Pieces learned, or in the file they were taken from."""
    overlapping: int
    """Those of them that were there already."""
    note: str = ""
    """What a reader of the numbers should know."""
    model_file: bytes | None = None
    """The grown `tokenizer.model` where there was one."""

    @property
    def added(self) -> int:
        return self.size - self.old_size

    def save(self, folder: Path) -> None:
        """Beside the model, so that transformers and sentencepiece both find it."""
        self.tokenizer.save_pretrained(folder)
        if self.model_file is not None:
            (folder / MODEL_FILE).write_bytes(self.model_file)


def extend(
    tokenizer: Any, text: MixText, samples: Sequence[Sample], stage: ExtendVocabularyStage, model: ModelConfig, seed: int
) -> Extended:
    """The tokenizer with pieces learned from the text, or those of `stage.pieces`. What it had keeps its ids.

    Raises ModelError for a tokenizer that cannot grow, and when the grown one would not give the samples back, or writes them
    otherwise than SentencePiece does; ConfigError for a size without room.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    if _is_sentencepiece(parts):
        grown = _by_sentencepiece(tokenizer, parts, text, samples, stage, model, seed)
    else:
        grown = _by_merges(tokenizer, parts, text, stage, seed)
    _check_kept(tokenizer, grown.tokenizer)
    _check_lossless(tokenizer, grown.tokenizer, samples)
    log.info("vocabulary: %s pieces learned, %s of them there already", f"{grown.learned:,}", f"{grown.overlapping:,}")
    log.info("vocabulary: %s pieces, %s added to %s", f"{grown.size:,}", f"{grown.added:,}", f"{grown.old_size:,}")
    return grown


def _is_sentencepiece(parts: dict[str, Any]) -> bool:
    """Whether pieces are SentencePiece's. Raises ModelError when they are neither those nor merges of bytes or characters."""
    kind, before = parts["model"]["type"], json.dumps([parts["normalizer"], parts["pre_tokenizer"]])
    if kind == "BPE" and ("Metaspace" in before or "▁" in before or "\\u2581" in before):
        return True
    if kind == "BPE" and parts["pre_tokenizer"] and ("ByteLevel" in before or parts["model"]["byte_fallback"]):
        return False
    got = f"a {kind} tokenizer" + (" that has no bytes" if kind == "BPE" else "")
    expected = "byte-pair encoding of SentencePiece's, of bytes, or of characters with bytes to fall back on"
    raise ModelError(problem("stage=extend_vocabulary", got, expected, "another model"))


def _by_merges(tokenizer: Any, parts: dict[str, Any], text: MixText, stage: ExtendVocabularyStage, seed: int) -> Extended:
    if stage.pieces is not None:
        got = f"{stage.pieces} for a tokenizer that is not SentencePiece's"
        raise ModelError(problem("stage.pieces", got, "a Llama-type base", "stage.pieces=null to learn pieces from the mix"))

    def texts() -> Iterator[str]:
        return drawn(text.learned_from, stage.max_lines, seed)

    found = continuing.learn(parts, texts, stage.size, stage.coverage)
    grown = _loaded(tokenizer, continuing.with_pieces(parts, found.pieces, found.merges))
    old = continuing.size(parts)
    return Extended(grown, old, old + len(found.pieces), found.learned, found.overlapping, _fewer(found.learned, stage))


def _by_sentencepiece(
    tokenizer: Any,
    parts: dict[str, Any],
    text: MixText,
    samples: Sequence[Sample],
    stage: ExtendVocabularyStage,
    model: ModelConfig,
    seed: int,
) -> Extended:
    base = sentencepieces.of_pairs(_model_file(tokenizer, model))
    normalizer = base.normalizer_spec.name if base.normalizer_spec.name in NORMALIZERS else "identity"
    if stage.pieces is None:
        texts = drawn(text.learned_from, stage.max_lines, seed)
        other = sentencepieces.learn(texts, stage.size, stage.coverage, normalizer)
        note = _fewer(len(other.pieces), stage)
    else:
        other = sentencepieces.read(Path(stage.pieces))
        theirs = other.normalizer_spec.name
        note = f"the pieces are of text under {theirs}; the base's {normalizer} stays" if theirs != normalizer else ""
    merged = sentencepieces.append(base, other, stage.scores, _behind(parts, base))
    merges = sentencepieces.merges(merged.proto)
    with_new = continuing.with_pieces(parts, merged.pieces, [])
    grown = _loaded(tokenizer, with_new | {"model": with_new["model"] | {"merges": merges}})
    _check_agreement(tokenizer, base, grown, merged.proto, samples, stage)
    old = continuing.size(parts)
    raw = merged.proto.SerializeToString(deterministic=True)
    return Extended(grown, old, old + len(merged.pieces), merged.learned, merged.overlapping, note, raw)


def _fewer(learned: int, stage: ExtendVocabularyStage) -> str:
    return f"the text has {learned:,} pieces to learn, not the {stage.size:,} asked for" if learned < stage.size else ""


def _model_file(tokenizer: Any, model: ModelConfig) -> Path:
    """The SentencePiece model that a fast tokenizer was made from, from its folder or the hub."""
    from transformers.utils import cached_file

    place = str(tokenizer.name_or_path)
    revision = model.revision if place == model.path and not Path(place).exists() else None
    found = cached_file(
        place,
        MODEL_FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if found is None:
        got, hint = f"{place} without {MODEL_FILE}", f"model.tokenizer=FOLDER of the base's tokenizer with its {MODEL_FILE}"
        raise ModelError(problem("stage=extend_vocabulary", got, "the SentencePiece model that its tokenizer was made from", hint))
    return Path(found)


def _behind(parts: dict[str, Any], base: Any) -> list[tuple[str, bool]]:
    """Tokens that a tokenizer has behind the pieces of its SentencePiece model, in the order of their ids, and whether special.

    Raises ModelError when the two do not have the same pieces.
    """
    ids = {number: piece for piece, number in parts["model"]["vocab"].items()}
    special = {token["id"]: token["special"] for token in parts["added_tokens"]}
    ids |= {token["id"]: token["content"] for token in parts["added_tokens"]}
    names = [ids.get(number) for number in range(continuing.size(parts))]
    if names[: len(base.pieces)] != [piece.piece for piece in base.pieces] or None in names:
        got = f"{len(base.pieces):,} pieces in {MODEL_FILE} that are not the first of {len(ids):,} in the tokenizer"
        raise ModelError(problem("stage=extend_vocabulary", got, "one vocabulary", "model.tokenizer=FOLDER of the base's own"))
    return [(str(names[number]), special.get(number, False)) for number in range(len(base.pieces), len(names))]


def _loaded(tokenizer: Any, parts: dict[str, Any]) -> Any:
    """The tokenizer with another tokenizer.json, as anyone loads it from a folder."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in Path(folder).iterdir():
            if path.name in ("vocab.json", "merges.txt", MODEL_FILE):
                path.unlink()  # of the old vocabulary
        write_text(Path(folder) / "tokenizer.json", json.dumps(parts, ensure_ascii=False))
        grown = AutoTokenizer.from_pretrained(folder)
    grown.name_or_path = tokenizer.name_or_path
    return grown


def _check_kept(tokenizer: Any, grown: Any) -> None:
    now = grown.get_vocab()
    assert all(now.get(piece) == number for piece, number in tokenizer.get_vocab().items()), "an old piece has another id"


def _check_lossless(tokenizer: Any, grown: Any, samples: Sequence[Sample]) -> None:
    """Refuse a grown tokenizer that loses lines which the old one gave back."""
    for sample in samples:
        lost = _lost(grown, sample.lines) - _lost(tokenizer, sample.lines)
        if lost:
            got = f"{len(lost)} of {len(sample.lines)} lines of {sample.language} that do not come back as they went in"
            raise ModelError(problem("stage=extend_vocabulary", got, "a tokenizer that loses nothing", "another base"))


def _lost(tokenizer: Any, lines: Sequence[str]) -> set[int]:
    backend = literal(tokenizer)
    ids = [encoding.ids for encoding in backend.encode_batch_fast(list(lines), add_special_tokens=False)]
    back = backend.decode_batch(ids, skip_special_tokens=False)
    return {place for place, (one, two) in enumerate(zip(lines, back, strict=True)) if one != two}


def _check_agreement(
    tokenizer: Any, base: Any, grown: Any, merged: Any, samples: Sequence[Sample], stage: ExtendVocabularyStage
) -> None:
    """Refuse scores for which the fast tokenizer, which trains, and SentencePiece, which others may serve with, part ways.

    Where the base's two differ already is left out of the count.
    """
    lines = [line for sample in samples for line in sample.lines]
    parted = _differing(grown, merged, lines) - _differing(tokenizer, base, lines)
    if parted:
        got = f"pieces that transformers and sentencepiece write {len(parted)} of {len(lines)} lines with in different ways"
        hint = "stage.scores=falling" if stage.scores.value != "falling" else "another stage.pieces"
        raise ModelError(problem(f"stage.scores={stage.scores.value}", got, "one way of writing", hint))


def _differing(tokenizer: Any, proto: Any, lines: list[str]) -> set[int]:
    fast = literal(tokenizer).encode_batch_fast(lines, add_special_tokens=False)
    own = sentencepieces.processor(proto).encode(lines)
    return {place for place, (one, two) in enumerate(zip(fast, own, strict=True)) if one.ids != two}


def literal(tokenizer: Any) -> Any:
    """A tokenizer's backend to which `</s>` is four letters."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(
        json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None})
    )
    backend.encode_special_tokens = True
    return backend


def measure(tokenizer: Any, grown: Extended, samples: Sequence[Sample]) -> dict[str, Any]:
    """The facts of an extension, with tokens per line and characters per token before and after, by language.

    Both are over all lines of a language: tokens / lines and characters / tokens (arXiv:2304.07854, section 5, has the first).
    """
    by_language: dict[str, Any] = {}
    for sample in samples:
        if sample.language in by_language:
            continue  # on better lines
        before, after = (_tokens(one, sample.lines) for one in (tokenizer, grown.tokenizer))
        characters = sum(map(len, sample.lines))
        by_language[sample.language] = {
            "measured_on": sample.group,
            "lines": len(sample.lines),
            "tokens_per_line": [round(tokens / len(sample.lines), 2) for tokens in (before, after)],
            "characters_per_token": [round(characters / tokens, 3) for tokens in (before, after)],
        }
    counts = {key: getattr(grown, key) for key in ("learned", "overlapping", "added", "old_size", "size", "note")}
    for language, found in by_language.items():
        before, after = found["tokens_per_line"]
        log.info("%s: %s → %s tokens a line, %s", language, before, after, found["measured_on"])
    return counts | {"languages": by_language}


def _tokens(tokenizer: Any, lines: Sequence[str]) -> int:
    return sum(len(one.ids) for one in literal(tokenizer).encode_batch_fast(list(lines), add_special_tokens=False))
