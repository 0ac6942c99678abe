"""Vocabularies that grow: nothing that was there changes, nothing is lost, and everybody writes the same."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from babeltune.data.lines import Sample
from babeltune.data.tokenizing import Encoder
from babeltune.errors import ConfigError, ModelError
from babeltune.modeling import continuing, extending, resizing, sentencepieces
from babeltune.modeling.extending import Extended
from babeltune.modeling.loading import fresh_model
from babeltune.options import ExtendVocabularyStage, ModelConfig, NewRows, Scores
from tests.modeling import tiny

PLACES = itertools.product(("old", "new", "red"), ("house", "door"), ("north", "south"))
ENGLISH = [f"the {a} {b} is in the {c} of the town" for a, b, c in PLACES]
CHINESE = [
    f"{a}在{b}的{c}边，今天天气很好。"
    for a, b, c in itertools.product(("学校", "医院", "老房子"), ("城市", "公园"), ("北", "南", "东"))
]
VIETNAMESE = [f"{a} ở phía {b} thành phố, hôm nay trời đẹp" for a in ("Trường học", "Bệnh viện") for b in ("bắc", "nam", "đông")]
LINES = [*CHINESE, *VIETNAMESE]
TRAPS = ["你好　世界", "a  b", "Đường e\u0302\u0301", "👩‍👧🇻🇳", "</s> <s>", "医院ở北边the door"]
SAMPLES = [Sample("zh", tuple(CHINESE), "held-out rows"), Sample("vi", tuple(VIETNAMESE), "held-out rows")]


class Text:
    """Lines, as a mix's text gives them."""

    def learned_from(self) -> Iterator[str]:
        return iter(LINES * 3)


@functools.cache
def _base_proto() -> Any:
    """Pieces of English with bytes to fall back on, as Llama's."""
    import io

    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH),
        model_writer=written,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepieces._parsed(written.getvalue(), "base")


def llama(folder: Path, **settings: Any) -> Any:
    """A Llama-type tokenizer as it lies in a folder: SentencePiece's file and what transformers has to know of it."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(_base_proto().SerializeToString())
    told = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True, "add_prefix_space": True}
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | marks | settings))
    return AutoTokenizer.from_pretrained(folder)


def byte_level(_: Path) -> Any:
    """A byte-level tokenizer of the kind of GPT-2 and BLOOM."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    backend.train_from_iterator([*ENGLISH, "在的"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", clean_up_tokenization_spaces=False)


def own(_: Path) -> Any:
    """The product's own."""
    from babeltune.modeling.vocabulary import train_tokenizer

    return train_tokenizer(ENGLISH, 330)


KINDS: dict[str, Callable[[Path], Any]] = {"llama": lambda path: llama(path / "base"), "byte_level": byte_level, "own": own}


def grow(tokenizer: Any, seed: int = 0, **stage: Any) -> Extended:
    options = ExtendVocabularyStage(**({"size": 150} | stage))
    return extending.extend(tokenizer, Text(), SAMPLES, options, ModelConfig(name="base"), seed)  # type: ignore[arg-type]


@pytest.fixture(params=list(KINDS))
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return KINDS[request.param](tmp_path)


def test_old_pieces_keep_their_ids_and_old_text_its_tokens(base: Any) -> None:
    grown = grow(base)
    assert grown.added > 20
    assert len(grown.tokenizer) == grown.size == len(base) + grown.added
    vocabulary = grown.tokenizer.get_vocab()
    assert all(vocabulary[piece] == number for piece, number in base.get_vocab().items())
    for text in ENGLISH:
        assert grown.tokenizer.encode(text) == base.encode(text)


def test_new_text_takes_fewer_tokens_and_every_new_piece_spells_what_it_did(base: Any) -> None:
    grown = grow(base)
    for line in LINES:
        assert len(grown.tokenizer.encode(line)) < 0.7 * len(base.encode(line))
        spelled = [part for number in grown.tokenizer.encode(line, add_special_tokens=False) for part in _old(base, grown, number)]
        assert base.decode(spelled) == base.decode(base.encode(line, add_special_tokens=False)) == line


def _old(base: Any, grown: Extended, number: int) -> list[int]:
    piece = grown.tokenizer.convert_ids_to_tokens(number)
    return [token.id for token in base.backend_tokenizer.model.tokenize(piece)] if number >= grown.old_size else [number]


def test_every_text_comes_back(base: Any) -> None:
    encoder = Encoder(grow(base).tokenizer)
    from babeltune.records import Segment

    for text in [*LINES, *TRAPS]:
        (parts,) = encoder.encode([[Segment("a", is_target=False), Segment(text, is_target=True)]])
        assert encoder.decode(parts[1]) == text


def test_the_same_text_gives_the_same_bytes(base: Any, tmp_path: Path) -> None:
    one, again = (grow(base, max_lines=30) for _ in range(2))
    assert one.tokenizer.backend_tokenizer.to_str() == again.tokenizer.backend_tokenizer.to_str()
    assert one.model_file == again.model_file
    assert grow(base, seed=1, max_lines=30).tokenizer.get_vocab() != one.tokenizer.get_vocab()


def test_what_is_saved_loads_as_it_was_with_and_without_sentencepieces_file(base: Any, tmp_path: Path) -> None:
    grown = grow(base)
    grown.save(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.model").exists() == (grown.model_file is not None)
    assert loaded.get_vocab() == grown.tokenizer.get_vocab()
    for text in [*LINES, *ENGLISH, *TRAPS]:
        assert loaded.encode(text) == grown.tokenizer.encode(text)
    if grown.model_file is not None:
        (tmp_path / "saved" / "tokenizer.json").unlink()
        from_file = AutoTokenizer.from_pretrained(tmp_path / "saved")
        for text in [*LINES, *ENGLISH]:
            assert from_file.tokenize(text) == loaded.tokenize(text)


def test_no_new_piece_of_a_byte_level_tokenizer_is_out_of_reach(tmp_path: Path) -> None:
    for make in (byte_level, own):
        tokenizer = make(tmp_path)
        grown = grow(tokenizer)
        backend = grown.tokenizer.backend_tokenizer
        names = {number: piece for piece, number in grown.tokenizer.get_vocab().items()}
        for number in range(grown.old_size, grown.size):
            assert [token.id for token in backend.model.tokenize(names[number])] == [number]


def test_no_merge_reaches_over_a_byte_that_stands_for_a_rare_character(tmp_path: Path) -> None:
    grown = grow(own(tmp_path), coverage=0.5)
    assert not any("<0x" in piece and len(piece) > 6 for piece in grown.tokenizer.get_vocab())
    assert len(grown.tokenizer.encode("城")) == 3


def test_pieces_that_are_there_are_counted_as_overlap(tmp_path: Path) -> None:
    other = sentencepieces.learn(LINES, 150, 0.9995, "identity")
    merged = sentencepieces.append(_base_proto(), other, Scores.falling)
    there = {piece.piece for piece in _base_proto().pieces}
    theirs = {piece.piece for piece in other.pieces}
    assert merged.overlapping == len(there & theirs) > 3
    assert merged.learned == len(theirs)
    assert set(merged.pieces) == theirs - there
    assert [piece.piece for piece in merged.proto.pieces][: len(there)] == [piece.piece for piece in _base_proto().pieces]
    again = sentencepieces.append(merged.proto, other, Scores.falling)
    assert again.pieces == ()


def test_falling_scores_fall_as_float32_even_below_the_lowest_of_llamas() -> None:
    proto = sentencepieces._parsed(_base_proto().SerializeToString(), "copy")
    proto.pieces[-1].score = -1e9
    other = sentencepieces.learn(LINES, 150, 0.9995, "identity")
    merged = sentencepieces.append(proto, other, Scores.falling)
    scores = [piece.score for piece in merged.proto.pieces][len(proto.pieces) - 1 :]
    assert len(scores) > 20
    assert all(one > two for one, two in itertools.pairwise(scores))


def test_scores_that_make_two_ways_of_writing_are_refused(tmp_path: Path) -> None:
    tokenizer = llama(tmp_path / "base")
    with pytest.raises(ModelError) as caught:
        grow(tokenizer, scores=Scores.zero)
    words = str(caught.value)
    assert words.startswith("stage.scores=zero: got pieces that transformers and sentencepiece write ")
    assert words.endswith(" of 24 lines with in different ways; expected one way of writing; try stage.scores=falling")
    assert grow(tokenizer, scores=Scores.falling).added == grow(tokenizer, scores=Scores.keep).added


def test_pieces_of_a_file_are_taken_and_a_normaliser_of_theirs_is_told_of(tmp_path: Path) -> None:
    other = sentencepieces.learn(LINES, 150, 0.9995, "nmt_nfkc")
    path = tmp_path / "zh.model"
    path.write_bytes(other.SerializeToString())
    tokenizer = llama(tmp_path / "base")
    grown = grow(tokenizer, pieces=str(path))
    assert grown.learned == len(other.pieces)
    assert grown.note == "the pieces are of text under nmt_nfkc; the base's identity stays"
    assert grown.tokenizer.decode(grown.tokenizer.encode("，！　", add_special_tokens=False)) == "，！　"


def test_tokens_behind_the_pieces_of_llama_keep_their_ids(tmp_path: Path) -> None:
    tokenizer = llama(tmp_path / "base")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    old = tokenizer.pad_token_id
    assert old == len(_base_proto().pieces)
    grown = grow(tokenizer)
    assert grown.tokenizer.pad_token_id == old
    assert grown.old_size == old + 1
    assert grown.tokenizer.encode("[PAD]", add_special_tokens=False) == [old]
    own_ids = sentencepieces.processor(sentencepieces._parsed(grown.model_file or b"", "")).encode("[PAD]医院")
    assert old not in own_ids


def refusal(*arguments: Any, **stage: Any) -> str:
    with pytest.raises((ModelError, ConfigError)) as caught:
        grow(*arguments, **stage)
    return str(caught.value)


def test_what_cannot_grow_is_refused_in_a_sentence(tmp_path: Path) -> None:
    expected = "byte-pair encoding of SentencePiece's, of bytes, or of characters with bytes to fall back on"
    for kind, model in {"Unigram": models.Unigram([("<u>", 0.0), ("a", -1.0)], 0), "WordPiece": models.WordPiece({"a": 0})}.items():
        backend = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="a")
        assert refusal(backend) == f"stage=extend_vocabulary: got a {kind} tokenizer; expected {expected}; try another model"
    letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), eos_token="a")
    assert "got a BPE tokenizer that has no bytes" in refusal(letters)
    assert refusal(byte_level(tmp_path), pieces="zh.model") == (
        "stage.pieces: got zh.model for a tokenizer that is not SentencePiece's; expected a Llama-type base; "
        "try stage.pieces=null to learn pieces from the mix"
    )
    llama_type = llama(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.model").unlink()
    words = refusal(llama_type)
    assert words.startswith(f"stage=extend_vocabulary: got {tmp_path / 'base'} without tokenizer.model; expected the SentencePiece")


def test_a_size_without_room_for_the_characters_is_refused(tmp_path: Path) -> None:
    words = refusal(llama(tmp_path / "base"), size=10)
    assert words.startswith("stage.size: got 10 (")
    assert words.endswith("; try a larger stage.size or a smaller stage.coverage")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zh.model"
    path.write_text("no such thing")
    assert str(path) in refusal(llama(tmp_path / "base"), pieces=str(path))


def test_fewer_pieces_than_asked_for_are_told_of(base: Any) -> None:
    grown = grow(base, size=5000)
    assert grown.note == f"the text has {grown.learned:,} pieces to learn, not the 5,000 asked for"


def test_tokens_are_counted_before_and_after(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    grown = grow(tokenizer)
    worse = Sample("zh", ("不算",), "rows learned from")
    found = extending.measure(tokenizer, grown, [*SAMPLES, worse])
    chinese = found["languages"]["zh"]
    before, after = (sum(len(one.encode(line)) for line in CHINESE) for one in (tokenizer, grown.tokenizer))
    assert chinese["lines"] == len(CHINESE)
    assert chinese["tokens_per_line"] == [round(before / len(CHINESE), 2), round(after / len(CHINESE), 2)]
    assert chinese["characters_per_token"] == [round(sum(map(len, CHINESE)) / tokens, 3) for tokens in (before, after)]
    assert chinese["measured_on"] == "held-out rows"
    assert found["added"] == found["learned"] - found["overlapping"] == found["size"] - found["old_size"]


FAMILIES = {"tied": ("llama", {"tie_word_embeddings": True}), "untied": ("llama", {}), "with a bias": ("gptj", {})}


def model(family: str, rows: int, dtype: torch.dtype = torch.float32) -> Any:
    kind, keys = FAMILIES[family]
    made = fresh_model(tiny.FAMILIES[kind] | keys, rows, seed=0)
    if family == "with a bias":
        torch.nn.init.uniform_(made.lm_head.bias, generator=torch.Generator().manual_seed(0))
    return made.to(dtype)


def matrices(lm: Any) -> list[torch.Tensor]:
    found = [lm.get_input_embeddings().weight, lm.get_output_embeddings().weight]
    bias = lm.get_output_embeddings().bias
    return [one.detach().clone() for one in (found if bias is None else [*found, bias])]


@pytest.mark.parametrize("how", NewRows)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spare", [0, 7])
def test_old_rows_stay_to_the_last_bit_and_new_ones_begin_as_asked(family: str, how: NewRows, spare: int, tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    grown = grow(tokenizer)
    lm = model(family, len(tokenizer) + spare, torch.bfloat16)
    before = matrices(lm)
    random = torch.get_rng_state()
    resizing.resize(lm, tokenizer, grown, how, seed=3)
    assert torch.equal(torch.get_rng_state(), random)
    assert lm.config.vocab_size == grown.size == len(lm.get_input_embeddings().weight)
    assert (lm.get_input_embeddings().weight is lm.get_output_embeddings().weight) == (family == "tied")
    number = grown.size - 1
    pieces = _old(tokenizer, grown, number)
    assert len(pieces) > 1
    for one, two in zip(before, matrices(lm), strict=True):
        old = one[: len(tokenizer)]
        assert torch.equal(two[: len(tokenizer)], old)
        assert two.dtype == torch.bfloat16
        match how:
            case NewRows.pieces:
                assert torch.equal(two[number], old[pieces].float().mean(0).bfloat16())
            case NewRows.mean:
                assert torch.equal(two[number], old.float().mean(0).bfloat16())
            case NewRows.random if two.ndim == 2:
                assert 0.015 < float(two[len(tokenizer) :].float().std()) < 0.025
                again = model(family, len(tokenizer) + spare, torch.bfloat16)
                resizing.resize(again, tokenizer, grown, how, seed=3)
                assert all(torch.equal(a, b) for a, b in zip(matrices(again), matrices(lm), strict=True))
            case NewRows.random:
                assert not two[len(tokenizer) :].any()


def test_no_row_is_taken_from_a_base_with_more_rows_than_it_needs(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    grown = grow(tokenizer)
    lm = model("untied", grown.size + 9)
    last = lm.get_input_embeddings().weight[grown.size :].detach().clone()
    resizing.resize(lm, tokenizer, grown, NewRows.pieces, seed=0)
    assert lm.config.vocab_size == grown.size + 9
    assert torch.equal(lm.get_input_embeddings().weight[grown.size :], last)


def test_a_fresh_process_loads_the_same_logits_on_new_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    grown = grow(tokenizer)
    ids = grown.tokenizer(CHINESE[0], return_tensors="pt").input_ids
    assert (ids >= grown.old_size).any()
    for family in FAMILIES:
        lm = model(family, len(tokenizer)).eval()
        resizing.resize(lm, tokenizer, grown, NewRows.random, seed=0)
        lm.save_pretrained(tmp_path / family)
        grown.save(tmp_path / family)
        with torch.no_grad():
            torch.save(lm(input_ids=ids).logits, tmp_path / family / "logits.pt")
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "for place in sys.argv[2:]:\n"
        "    lm, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)\n"
        "    logits = lm(input_ids=tokenizer(sys.argv[1], return_tensors='pt').input_ids).logits\n"
        "    print(torch.equal(logits, torch.load(f'{place}/logits.pt')), len(tokenizer) == lm.config.vocab_size)"
    )
    places = [str(tmp_path / family) for family in FAMILIES]
    done = subprocess.run([sys.executable, "-c", code, CHINESE[0], *places], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 6, done.stderr


def test_more_lines_than_there_are_are_all_of_them_and_fewer_are_drawn_without_keeping_them() -> None:
    from babeltune.data.lines import drawn

    numbers = [str(number) for number in range(100)]
    assert list(drawn(lambda: numbers, None, 0)) == list(drawn(lambda: numbers, 500, 0)) == numbers
    some = list(drawn(lambda: numbers, 10, 0))
    assert len(some) == 10
    assert some == sorted(some, key=int) == list(drawn(lambda: numbers, 10, 0)) != list(drawn(lambda: numbers, 10, 1))


def test_a_learned_tokenizer_json_is_left_as_it_was() -> None:
    parts = json.loads(byte_level(Path()).backend_tokenizer.to_str())
    kept = json.dumps(parts)
    grown = continuing.with_pieces(parts, ["xy"], [("x", "y")])
    assert json.dumps(parts) == kept
    assert grown["model"]["vocab"]["xy"] == continuing.size(parts)
