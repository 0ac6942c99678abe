"""Conversations through a pipeline, from a mix's config to its ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.data.cleaning.kinds import Outcome
from babeltune.data.cleaning.pipeline import AGAIN
from babeltune.data.cleaning.spool import Spool
from babeltune.data.filters import prompt_hash
from babeltune.data.preparing import Streams, cleaned, prepare, writing
from babeltune.errors import ConfigError
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import RunConfig
from babeltune.records import Conversation, Dropped, Message, MixLedger

TOKENIZER = train_tokenizer(["请把这句话翻译成英文。", "Hai cộng hai bằng bốn."], 320)
NUMBERED = {"instruction": "怎么泡茶？", "input": "", "output": "（1）烧水\n（2）放茶叶"}
NUMBERING = "+cleaning.numbering={kind:numbering}"
ROWS = {
    "alpaca4_zh": [
        NUMBERED,
        {"instruction": "二加二等于几？", "input": "", "output": "四。"},
        {"instruction": "二加二等于几？", "input": "", "output": "四。"},
        {"instruction": "天空为什么是蓝的？", "input": "", "output": ""},
    ],
    "alpaca35_zh": [
        {"instruction": "二加二等于几？ ", "input": "", "output": "四。"},
        {"instruction": "水的沸点？", "input": "", "output": "一百度。"},
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for source, rows in ROWS.items():
        write(tmp_path, source, rows)
    return tmp_path


def write(root: Path, source: str, rows: Sequence[dict[str, str]]) -> None:
    folder = root / "data" / source
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config(root: Path, *overrides: str) -> RunConfig:
    paths = (f"paths.data={root}/data", f"paths.outputs={root}/outputs")
    return compose([*paths, "data.heldout_fraction=0", "scale=paper", "evaluation=none", *overrides])


def streams(root: Path, *overrides: str) -> Streams:
    asked = config(root, *overrides)
    return cleaned(asked, writing(asked, TOKENIZER), root / "cache")


def ledger(root: Path, *overrides: str) -> MixLedger:
    asked = config(root, *overrides)
    return prepare(asked, writing(asked, TOKENIZER), root / "cache").ledger


def answers(outcomes: Sequence[Outcome]) -> list[str]:
    return [one.messages[-1].text for one in outcomes if isinstance(one, Conversation)]


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    return [one.reason for one in outcomes if isinstance(one, Dropped)]


def test_steps_work_one_after_the_other_and_each_says_what_it_did(root: Path) -> None:
    found = ledger(root, "data=zh_alpaca4", NUMBERING, "+cleaning.exact={kind:exact}", "stage=prepare", "stage.samples=3")
    numbering, exact = found.cleaning
    assert (numbering.name, numbering.seen, numbering.changed, numbering.kept) == ("numbering", 3, 1, 3)
    assert (exact.seen, exact.kept, exact.dropped) == (3, 2, {"duplicate": 1})
    (sample,) = numbering.samples["changed"]
    assert sample.before.endswith("（1）烧水\n（2）放茶叶")
    assert (sample.after or "").endswith("1. 烧水\n2. 放茶叶")
    (row,) = found.rows
    assert (row.found, row.taken, row.dropped) == (4, 2, {"duplicate": 1, "empty answer": 1})


def test_samples_are_left_out_unless_they_are_asked_for(root: Path) -> None:
    (step,) = ledger(root, "data=zh_alpaca4", "cleaning=[exact]").cleaning
    assert step.samples == {}


def test_a_step_of_the_whole_mix_compares_its_sources_and_the_first_keeps_the_row(root: Path) -> None:
    both = streams(root, "data=zh_alpaca354", "cleaning=[exact]").of
    first, second = list(both)
    assert answers(list(both[first].read())).count("四。") == 1
    assert answers(list(both[second].read())).count("四。") == 0


def test_a_sources_own_steps_see_that_source_alone(root: Path) -> None:
    own = "+data.sources.alpaca4_zh.cleaning.once={kind:exact}"
    both = streams(root, "data=zh_alpaca354", own)
    kept = [text for stream in both.of.values() for text in answers(list(stream.read()))]
    assert kept.count("四。") == 2
    assert [report.source for report in both.reports] == ["alpaca4_zh"]


def test_what_is_cleaned_is_kept_and_a_second_mix_finds_it(root: Path) -> None:
    cache = root / "cache" / "cleaned"
    streams(root, "data=zh_alpaca4", NUMBERING)
    made = sorted(path.name for path in cache.iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    streams(root, "data=zh_alpaca354", NUMBERING)
    assert set(made) < {path.name for path in cache.iterdir()}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_prompt_that_cleaning_changes_is_held_out_as_it_was(root: Path) -> None:
    asked = "请给 lan@thu.vn 写一封信。"
    write(root, "alpaca4_zh", [{"instruction": asked, "input": "", "output": "好的，信写好了。"}])
    (row,) = streams(root, "data=zh_alpaca4", "+cleaning.personal={kind:personal}").of["alpaca4_zh"].read()
    assert isinstance(row, Conversation)
    assert "thu.vn" not in row.messages[0].text
    assert row.prompt == prompt_hash(Conversation((Message("user", asked),), "s", "zh", "f:1"))


def test_steps_belong_to_a_cells_identity_and_their_names_and_speed_do_not(root: Path) -> None:
    plain = cell_of(config(root, "data=zh_alpaca4")).identity
    exact = cell_of(config(root, "data=zh_alpaca4", "cleaning=[exact]")).identity
    renamed = cell_of(config(root, "data=zh_alpaca4", "+cleaning.other={kind:exact}")).identity
    by_prompt = cell_of(config(root, "data=zh_alpaca4", "+cleaning.exact={kind:exact,prompt_only:true}")).identity
    own = cell_of(config(root, "data=zh_alpaca4", "+data.sources.alpaca4_zh.cleaning.exact={kind:exact}")).identity
    assert exact == renamed
    assert len({plain, exact, by_prompt, own}) == 4


def test_a_file_that_a_step_names_counts_by_its_bytes(root: Path) -> None:
    def identity() -> str:
        step = f"+cleaning.vi={{kind:translate,backend:file,target:vi,file:'{root}/vi.jsonl'}}"
        return cell_of(config(root, "data=zh_alpaca4", step)).identity

    (root / "vi.jsonl").write_text('{"text": "四。", "translation": "Bốn."}\n', encoding="utf-8")
    before = identity()
    (root / "vi.jsonl").write_text('{"text": "四。", "translation": "Bốn!"}\n', encoding="utf-8")
    assert identity() != before


def test_rows_that_a_step_could_not_do_for_now_are_done_by_the_next_run(root: Path) -> None:
    step = f"+cleaning.vi={{kind:translate,backend:file,target:vi,max_failed:1,file:'{root}/vi.jsonl'}}"
    (root / "vi.jsonl").write_text('{"text": "四。", "translation": "Bốn."}\n', encoding="utf-8")
    found = streams(root, "data=zh_alpaca4", step).of["alpaca4_zh"]
    (folder,) = (root / "cache" / "cleaned").iterdir()
    stamp = folder.stat().st_ino
    streams(root, "data=zh_alpaca4", step)
    assert folder.stat().st_ino == stamp
    (folder / AGAIN).touch()
    again = streams(root, "data=zh_alpaca4", step).of["alpaca4_zh"]
    assert folder.stat().st_ino != stamp
    assert not (folder / AGAIN).exists()
    assert list(again.read()) == list(found.read())


def test_a_spool_gives_back_what_was_put_in(tmp_path: Path) -> None:
    talk = Conversation((Message("user", "a\ud800\u2028b", "输入"), Message("assistant", "câu\r\n")), "s", "vi", "f:1", prompt=7)
    gone = Dropped("f:2", "near duplicate", "of f:1", language="zh")
    with Spool(tmp_path / "spool.zst") as spool:
        spool.append(talk)
        spool.append(gone)
    assert list(spool) == [talk, gone]
    assert len(spool) == 2


REFUSED = {
    "{kind:nera}": ".kind: got 'nera'; expected one of exact, near, semantic, perplexity, reward, language, markdown, turns, "
    "split, personal, numbering, short_answers, words, translate; try cleaning.x.kind=near",
    "{kind:near,threshold:1.5}": ".threshold: got 1.5; expected a share from 0 to 1; try cleaning.x.threshold=0.8",
    "{kind:near,treshold:1}": ".treshold: got an unknown key; expected a key of cleaning.x; try cleaning.x.threshold",
    "{kind:perplexity}": ".model: got nothing; expected a folder or hub id of a model; try cleaning.x.model=FOLDER",
    "{kind:personal,action:masc}": ".action: got 'masc'; expected one of mask, remove_reply, drop; try cleaning.x.action=mask",
    "{kind:language,keep:[Chinese]}": ".keep: got 'Chinese'; expected short tags of languages: zh, vi, en; "
    "try cleaning.x.keep=[zh,en]",
}


@pytest.mark.parametrize("step", REFUSED)
def test_a_step_that_cannot_be_is_refused_in_one_sentence(step: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose([f"+cleaning.x={step}"])
    assert str(refusal.value) == f"cleaning.x{REFUSED[step]}"
