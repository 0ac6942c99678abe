"""Row steps on datatrove give what the built-in pipeline gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from babeltune.config import compose
from babeltune.data import preparing
from babeltune.data.cleaning import engines, pipeline
from babeltune.data.cleaning.engines import Shards, fields, written
from babeltune.data.filters import keep
from babeltune.errors import ConfigError, DataError
from babeltune.options import Format, SourceConfig
from babeltune.records import Conversation, Message
from babeltune.steps import ExactStep, NumberingStep, PersonalStep

STEPS = {"numbering": NumberingStep(), "personal": PersonalStep(), "again": PersonalStep(action="drop")}
SOURCE = SourceConfig(name="talk", language="vi", format=Format.messages)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "talk"
    folder.mkdir(parents=True)
    for part in ("a", "b", "c[1]"):
        with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(20):
                answer = ["① Uống nước。\n② 喝水。", "Gọi 0912 345 678 nhé.", "", f"Trả lời {part}{number}"][number % 4]
                turns = [
                    ("system", "Bạn là bác sĩ."),
                    ("user", f"Hỏi {part}{number}"),
                    ("assistant", "Vâng, hỏi đi."),
                    ("user", "Tiếp."),
                ]
                turns = [*turns[number % 2 :], ("assistant", answer)]
                messages = [{"role": role, "content": text} for role, text in turns]
                file.write(json.dumps({"messages": messages, "lang": "vi" if number % 3 else "zh"}, ensure_ascii=False) + "\n")
    return tmp_path / "data"


def built_in(root: Path, cache: Path) -> Iterator[tuple[object, ...]]:
    done = pipeline.clean(STEPS, {"talk": lambda: preparing.rows(SOURCE, root, 0.01)}, {}, cache, lambda name: None)
    for row in done.read("talk"):
        kept = keep(row) if isinstance(row, Conversation) else row
        if isinstance(kept, Conversation):
            yield kept.messages, kept.language


def read(root: Path) -> list[tuple[object, ...]]:
    rows = preparing.conversations(written(SOURCE), root, 0.0)
    return [(row.messages, row.language) for row in rows if isinstance(row, Conversation)]


def test_datatrove_gives_what_the_built_in_pipeline_gives_in_the_same_order(root: Path, tmp_path: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor

    expected = list(built_in(root, tmp_path / "cache"))
    assert len(expected) == 45  # 60, less those with an empty answer
    step = Shards(SOURCE, root, STEPS, tmp_path / "out")
    LocalPipelineExecutor([step], tasks=2, workers=1, logging_dir=str(tmp_path / "logs")).run()
    assert read(tmp_path / "out") == expected


def test_any_number_of_tasks_writes_the_same_files(root: Path, tmp_path: Path) -> None:
    list(Shards(SOURCE, root, STEPS, tmp_path / "part")(None, 1, 2))
    assert [path.name for path in (tmp_path / "part" / "talk").iterdir()] == ["00001.jsonl"]
    for tasks in (1, 2, 5):
        for rank in range(tasks):
            assert list(Shards(SOURCE, root, STEPS, tmp_path / str(tasks))(None, rank, tasks)) == []
    for path in sorted((tmp_path / "1" / "talk").iterdir()):
        assert (
            path.read_bytes()
            == (tmp_path / "2" / "talk" / path.name).read_bytes()
            == (tmp_path / "5" / "talk" / path.name).read_bytes()
        )
    assert len(list((tmp_path / "5" / "talk").iterdir())) == 3


def test_the_command_cleans_a_mix_of_the_configs(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "alpaca_vi"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "Hỏi?", "response": "(1) Một\n（2）Hai"}) + "\n", encoding="utf-8")
    asked = ["data=vi_alpaca", "cleaning=[numbering]", f"paths.data={tmp_path}/data"]
    assert engines.main([str(tmp_path / "out"), "--tasks", "1", *asked]) == 0
    cleaned = (tmp_path / "out" / "alpaca_vi" / "00000.jsonl").read_text(encoding="utf-8")
    assert json.loads(cleaned) == {"instruction": "Hỏi?", "input": "", "output": "1. Một\n2. Hai", "lang": "vi"}
    compose([*asked[:2], f"paths.data={tmp_path}/out", "data.sources.alpaca_vi.format=alpaca", "data.sources.alpaca_vi.files=[]"])


def test_a_row_with_an_input_and_a_document_come_back_as_they_were(tmp_path: Path) -> None:
    both = (
        Conversation((Message("user", "Dịch:", input="你好"), Message("assistant", "Xin chào")), "talk", "vi", "x:1"),
        Conversation((Message("text", "上工治未病。"),), "talk", "zh", "x:1"),
    )
    for number, conversation in enumerate(both):
        source = written(SOURCE if number == 0 else SourceConfig(name="talk", language="zh", format=Format.text))
        folder = tmp_path / str(number) / "talk"
        folder.mkdir(parents=True)
        (folder / "00000.jsonl").write_text(json.dumps(fields(conversation)) + "\n", encoding="utf-8")
        (back,) = preparing.conversations(source, tmp_path / str(number), 0.0)
        assert isinstance(back, Conversation)
        assert (back.messages, back.language) == (conversation.messages, conversation.language)


def test_steps_that_compare_rows_are_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"^cleaning: got twins, which compare rows with all others; expected steps that look at one"
    ):
        Shards(SOURCE, root, {"twins": ExactStep()}, tmp_path / "out")
    assert engines.main([str(tmp_path / "out"), "data=vi_alpaca", "cleaning=[exact]"]) == 2
    assert "try cleaning=[exact] in the run" in capsys.readouterr().err


def test_a_source_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data.sources.talk: got no data files in .*talk; expected files to share out; try "):
        list(Shards(SOURCE, tmp_path, STEPS, tmp_path / "out")())
