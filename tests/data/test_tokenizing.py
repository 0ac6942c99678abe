"""Text to ids: boundaries, special tokens, and the cut to a number of tokens."""

from __future__ import annotations

import itertools
import json
import random
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from babeltune.data.tokenizing import NO_ANSWER, NOTHING_TO_LEARN, Encoder, Fitted, fit_conversation, fit_document
from babeltune.errors import ModelError
from babeltune.records import Segment

ALPHABETS = {
    "zh": "你好世界中文模型，。！学习回答　问题",
    "vi": "aàảãạăằẳâấđêềễôốộơờưứxinchàoviệtnam ,.",
    "combining": "e\u0302\u0301o\u031b\u0300 a\u0309",
    "en": "the quick brown fox answers  two questions.\n\t",
    "emoji": "😀👩‍👩‍👧🇻🇳✅ ",
}
TRAPS = ["</s>", "<s>", "<|im_end|>", "  ", "\n\n", " </s> ", "\0", "#", "x" * 40]
BOS, EOS = "<s>", "</s>"


def _text(rng: random.Random) -> str:
    parts = [rng.choice(rng.choice(list(ALPHABETS.values()))) for _ in range(rng.randint(1, 30))]
    if rng.random() < 0.3:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(TRAPS))
    return "".join(parts)


def _with_bytes(trained: Tokenizer) -> Tokenizer:
    """The same BPE with a token for each byte, used for characters that the vocabulary lacks."""
    parts = json.loads(trained.to_str())
    vocabulary = parts["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    parts["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(parts))


def _train(kind: str, *, size: int = 600) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    alphabet: list[str] = []
    strip = decoders.Strip(" ", 1, 0)
    sentencepiece = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    match kind:
        case "prepend":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            tokenizer.decoder = decoders.Sequence(sentencepiece)
        case "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=False)
            tokenizer.decoder = decoders.Sequence(sentencepiece)
        case "metaspace_first":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
            tokenizer.decoder = decoders.Sequence([*sentencepiece])
        case "byte_level":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
        case "bytes":
            tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    rng = random.Random(7)
    corpus = ["".join(rng.choice(ALPHABETS["en"] + ALPHABETS["vi"]) for _ in range(60)) + "\n\n## </s>" for _ in range(200)]
    special = [BOS, EOS, "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer if kind == "byte_level" else _with_bytes(tokenizer))


KINDS = ["prepend", "metaspace", "metaspace_first", "byte_level", "bytes"]
TOKENIZERS = {kind: _train(kind) for kind in KINDS}


def _segments(*turns: tuple[str, str]) -> list[Segment]:
    segments = [Segment(BOS, False, True), Segment("Below is an instruction.\n\n", False, True)]
    for prompt, answer in turns:
        segments += [Segment("### Instruction:\n", False, True), Segment(prompt, False)]
        segments += [Segment("\n\n### Response:\n", False, True), Segment(answer, True), Segment(EOS, True, True)]
    return segments


def _flat(parts: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_targets_decode_to_the_answer_and_its_end_mark_for_thousands_of_strings(kind: str) -> None:
    rng = random.Random(kind)
    encoder = Encoder(TOKENIZERS[kind])
    eos = TOKENIZERS[kind].convert_tokens_to_ids(EOS)
    answers = [_text(rng) for _ in range(2000)]
    rows = [_segments((_text(rng), answer)) for answer in answers]
    for answer, segments, ids in zip(answers, rows, encoder.encode(rows), strict=True):
        tokens = fit_conversation(segments, ids, 10_000).rows[0]
        targets = tokens.ids[tokens.targets]
        assert encoder.decode(targets) == answer + EOS
        assert targets[-1] == eos
        assert eos not in targets[:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_a_conversation_decode_to_its_text_with_the_tokenizers_own_decode(kind: str) -> None:
    rng = random.Random(kind)
    rows = [_segments((_text(rng), _text(rng)), (_text(rng), _text(rng))) for _ in range(300)]
    for segments, ids in zip(rows, Encoder(TOKENIZERS[kind]).encode(rows), strict=True):
        text = "".join(segment.text for segment in segments if segment.text not in (BOS, EOS))
        ends = TOKENIZERS[kind].convert_tokens_to_ids([BOS, EOS])
        plain = [id for id in _flat(ids) if id not in ends]
        assert TOKENIZERS[kind].decode(plain, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompts_ids_begin_the_ids_of_the_whole(kind: str) -> None:
    rng = random.Random(kind)
    encoder = Encoder(TOKENIZERS[kind])
    for _ in range(100):
        segments = _segments((_text(rng), _text(rng)), (_text(rng), _text(rng)))
        whole = _flat(encoder.encode([segments])[0])
        for end in range(1, len(segments)):
            prompt = _flat(encoder.encode([segments[:end]])[0])
            assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_text_has_the_ids_that_the_tokenizer_itself_gives(kind: str) -> None:
    tokenizer, encoder = TOKENIZERS[kind], Encoder(TOKENIZERS[kind])
    for text in ["hello world", "你好", "xin chào", "😀 ok"]:
        expected = tokenizer.encode(text, add_special_tokens=False)
        assert _flat(encoder.encode([[Segment(text, True)]])[0]) == expected
        with_bos = encoder.encode([[Segment(BOS, False, True), Segment(text, True)]])[0]
        assert with_bos == [[tokenizer.convert_tokens_to_ids(BOS)], expected]
        assert _flat(encoder.encode([[Segment(BOS + text, False, True)]])[0]) == _flat(with_bos)
        two = [Segment(BOS + EOS + text, False, True)]
        assert _flat(encoder.encode([two])[0]) == [*tokenizer.convert_tokens_to_ids([BOS, EOS]), *expected]


def test_special_tokens_are_read_in_markup_and_spelled_in_content() -> None:
    for tokenizer in TOKENIZERS.values():
        encoder = Encoder(tokenizer)
        special = set(tokenizer.convert_tokens_to_ids([BOS, EOS, "<|im_end|>"]))
        content, markup = encoder.encode([[Segment("a</s><|im_end|>b<s>", False)], [Segment("a</s><|im_end|>b", False, True)]])
        assert special.isdisjoint(_flat(content))
        assert len(special & set(_flat(markup))) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_spelled_as_the_tokenizer_spells_it(kind: str) -> None:
    text = "a </s> b<|im_end|>"
    expected = TOKENIZERS[kind].encode(text, add_special_tokens=False, split_special_tokens=True)
    assert Encoder(TOKENIZERS[kind]).encode([[Segment(text, False)]])[0][0] == expected


def test_content_stays_spelled_where_the_vocabulary_has_the_end_mark_as_an_ordinary_piece() -> None:
    model = models.BPE({"<": 0, "/": 1, "s": 2, ">": 3, "</": 4, "s>": 5, "</s>": 6}, [("<", "/"), ("s", ">"), ("</", "s>")])
    backend = Tokenizer(model)
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([EOS])
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert encoder.encode([[Segment("s</s>/", False), Segment(EOS, True, True)]]) == [[[2, 0, 1, 5, 1], [6]]]


def test_encoding_adds_nothing_and_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = _train("prepend")
    tokenizer.backend_tokenizer.enable_truncation(3)
    before = tokenizer.backend_tokenizer.to_str()
    ids = Encoder(tokenizer).encode([[Segment("a b c d e f g h i j", True)]])[0][0]
    assert len(ids) > 3
    assert tokenizer.backend_tokenizer.to_str() == before


def test_the_digest_knows_tokenizers_apart_and_ignores_padding() -> None:
    digests = {Encoder(tokenizer).digest for tokenizer in TOKENIZERS.values()}
    assert len(digests) == len(TOKENIZERS)
    tokenizer = _train("prepend")
    tokenizer.backend_tokenizer.enable_padding()
    assert Encoder(tokenizer).digest == Encoder(TOKENIZERS["prepend"]).digest


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(ModelError, match=r"model\.tokenizer: got object; expected a fast tokenizer"):
        Encoder(object())


MARK = 1


def _numbered(turns: list[tuple[int, int]]) -> tuple[list[Segment], list[list[int]]]:
    """Turns of so many prompt and answer tokens; ids tell all tokens apart but the end mark."""
    count = iter(range(100, 10_000))
    segments: list[Segment] = []
    ids: list[list[int]] = []
    for prompt, answer in turns:
        segments += [Segment("", False), Segment("", True), Segment("", True, True)]
        ids += [[next(count) for _ in range(prompt)], [next(count) for _ in range(answer)], [MARK]]
    return segments, ids


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5), st.integers(1, 40))
def test_cutting_keeps_a_target_and_learns_the_end_mark_just_where_the_answer_is_whole(
    turns: list[tuple[int, int]], max_tokens: int
) -> None:
    segments, ids = _numbered(turns)
    fitted = fit_conversation(segments, ids, max_tokens)
    prompt, answer = turns[0]
    ends = np.cumsum([p + a + 1 for p, a in turns])
    if not fitted.rows:
        assert answer == 0 or max_tokens <= max(prompt, 1)
        assert fitted.reason in (NO_ANSWER, NOTHING_TO_LEARN)
        return
    (row,) = fitted.rows
    assert len(row.ids) <= max_tokens
    assert row.ids.tolist() == _flat(ids)[: len(row.ids)]
    assert row.targets.any()
    assert not row.targets[0]
    whole = [end for end in ends if end <= max_tokens]
    assert np.count_nonzero(row.ids[row.targets] == MARK) == len(whole) - (ends[0] == 1 and max_tokens >= 1)
    assert fitted.is_cut == (not whole)
    assert fitted.dropped_turns == len(turns) - max(1, len(whole))
    assert len(row.ids) == (whole[-1] if whole else min(max_tokens, prompt + answer))


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 30))
def test_a_conversation_is_dropped_only_if_its_prompt_leaves_no_room(prompt: int, answer: int, max_tokens: int) -> None:
    fitted = fit_conversation(*_numbered([(prompt, answer)]), max_tokens)
    assert bool(fitted.rows) == (max_tokens > max(prompt, 1))
    assert fitted.reason == ("" if fitted.rows else NO_ANSWER)


def test_an_end_mark_of_several_tokens_is_never_learnt_in_part() -> None:
    segments = [Segment("", False), Segment("", True), Segment("", True, True)]
    fitted = fit_conversation(segments, [[5, 6], [7, 8], [1, 2, 3]], 6)
    assert fitted.rows[0].ids.tolist() == [5, 6, 7, 8]
    assert fitted.is_cut


def test_what_follows_the_last_answer_stays_if_it_fits() -> None:
    segments = [Segment("", False), Segment("", True), Segment("", False, True)]
    assert len(fit_conversation(segments, [[5, 6], [7], [9]], 4).rows[0].ids) == 4
    shorter = fit_conversation(segments, [[5, 6], [7], [9]], 3)
    assert (shorter.rows[0].ids.tolist(), shorter.is_cut, shorter.dropped_turns) == ([5, 6, 7], False, 0)


@given(st.integers(0, 200), st.integers(2, 40))
def test_a_long_document_is_split_and_every_token_after_its_first_is_learned_once(length: int, max_tokens: int) -> None:
    fitted = fit_document([Segment("", True), Segment("", True, True)], [list(range(length)), [1000]], max_tokens)
    if length == 0:
        assert fitted == Fitted((), NOTHING_TO_LEARN)
        return
    learned = [id for row in fitted.rows for id in row.ids[row.targets].tolist()]
    assert learned == [*range(1, length), 1000], "the end mark comes after the text's end and nowhere else"
    for before, after in itertools.pairwise(fitted.rows):
        assert after.ids[0] == before.ids[-1]
    for row in fitted.rows:
        assert 2 <= len(row.ids) <= max_tokens
        assert row.targets.tolist() == [False] + [True] * (len(row.ids) - 1)
    assert max(len(row.ids) for row in fitted.rows) - min(len(row.ids) for row in fitted.rows) <= 1
