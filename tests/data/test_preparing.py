"""What of a mix's text is learned."""

from __future__ import annotations

from pathlib import Path

from babeltune.config import compose
from babeltune.data.preparing import prepare, writing
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.records import MixLedger

TEXTS = ["请把这句话翻译成英文。", "Thủ đô của Việt Nam là Hà Nội.", "The capital of France is Paris."]


def ledger(folder: Path, *overrides: str) -> MixLedger:
    config = compose(["data=toy_vi", "template=vi_chat", "data.max_rows=50", *overrides])
    return prepare(config, writing(config, train_tokenizer(TEXTS, 320)), folder).ledger


def test_the_loss_is_on_the_answers_or_on_everything_but_the_first_token(tmp_path: Path) -> None:
    answers, everything = ledger(tmp_path), ledger(tmp_path, "data.loss_on=everything")
    assert everything.num_tokens == answers.num_tokens
    assert 0 < answers.num_target_tokens < answers.num_tokens / 2
    assert everything.num_target_tokens == everything.num_tokens - 50


def test_a_text_that_is_learned_whole_is_cut_where_it_is_too_long(tmp_path: Path) -> None:
    cut = ledger(tmp_path, "data.loss_on=everything", "data.max_tokens=16")
    assert cut.num_tokens == 50 * 16
    assert cut.num_target_tokens == 50 * 15
