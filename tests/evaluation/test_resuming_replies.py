"""A run that is killed while it asks goes on with what is left, to the same replies and scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.evaluation.generating import generate
from babeltune.evaluation.keeping import Kept, Running
from babeltune.grid import Group, _hear
from babeltune.options import PathsConfig, RunConfig
from babeltune.progress import Standing, state_of
from babeltune.records import Item, Message, Reply
from babeltune.results import evaluation_folder, read_replies
from babeltune.runner import run
from tests.commands import wait_for
from tests.modeling import tiny

ITEMS = [Item(f"i{n}", (Message("user", "你好 " * (n % 4 + 1) + str(n)),), "r", "t", "zh") for n in range(11)]


class Killed(BaseException):
    """Stands for the end of the process."""


def _asked(settings: RunConfig, kept: Kept | None, die_after: int | None = None) -> tuple[list[Reply], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    def tell(event: str, **facts: Any) -> None:
        events.append(facts)
        if die_after is not None and len(events) > die_after:
            raise Killed

    own = tiny.tokenizer()
    return generate(tiny.model("llama"), own, ITEMS, settings, tiny.writing(settings, own), tell, kept), events


def _config(batch: int, **decoding: Any) -> RunConfig:
    made = tiny.config(**{"max_new_tokens": 6, **decoding})
    return replace(made, evaluation=replace(made.evaluation, batch=batch))


@pytest.mark.parametrize("decoding", [{}, {"sample": True, "temperature": 0.7}, {"sample": True, "beams": 2}])
def test_only_batches_that_lack_a_reply_are_asked_and_the_replies_are_those_of_one_run(
    decoding: dict[str, Any], tmp_path: Path
) -> None:
    whole, _ = _asked(_config(3, **decoding), None)
    with pytest.raises(Killed):
        _asked(_config(3, **decoding), Kept(tmp_path / "part"), die_after=2)
    there = Kept(tmp_path / "part").replies
    assert 0 < len(there) < len(ITEMS)
    replies, events = _asked(_config(3, **decoding), Kept(tmp_path / "part"))
    assert replies == whole
    assert events[0]["done"] == len(there)
    size = 1 if decoding.get("beams") else 3
    assert len(events) == 1 + -(-(len(ITEMS) - len(there)) // size)


def test_another_batch_size_after_the_interruption_changes_no_reply(tmp_path: Path) -> None:
    whole, _ = _asked(_config(4), None)
    with pytest.raises(Killed):
        _asked(_config(4), Kept(tmp_path / "part"), die_after=1)
    assert _asked(_config(3), Kept(tmp_path / "part"))[0] == whole


@pytest.mark.parametrize("rest", [b'{"item": "c", "te', b'{"item": "c"}\n', b"\xff\n"])
def test_half_a_line_at_the_end_is_cut_off_and_written_again(rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "part"
    one, two, three = (Reply(name, f"{name}\u2028\r\n值", "stop", 1, (-0.5,)) for name in "abc")
    Kept(path).add([one, two])
    path.write_bytes(path.read_bytes() + rest)
    kept = Kept(path)
    assert kept.replies.keys() == {"a", "b"}
    kept.add([three])
    again = Kept(path)
    assert list(again.replies.values()) == [one, two, three]
    again.end()
    again.end()
    assert not path.exists()


def test_the_running_line_has_items_a_second_and_the_time_left_of_what_this_run_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    kept = Kept(tmp_path / "part")
    kept.add([Reply(f"i{n}", "", "stop", 0) for n in range(5)])
    standing = Standing(cell_of(_config(1)), state="running")
    group = Group([], None, lasts=True, standing=standing)  # type: ignore[arg-type]
    running = Running(
        ITEMS, [[n] for n in range(11)], kept, lambda event, **facts: _hear(group, {"event": event, **facts}, [group])
    )
    assert [place for places in running.missing() for place in places] == [5, 6, 7, 8, 9, 10]
    assert state_of(standing) == "answering █████░░░░░ 5/11"
    for n in (5, 6, 7):
        now[0] += 2
        running.add([Reply(f"i{n}", "", "stop", 0)])
    assert state_of(standing) == "answering ███████░░░ 8/11  6 s left  0.5 items/s"


WORDS = ["data=none", "evaluation=toy_zh", "evaluation.max_items=24", "evaluation.batch=1", "decoding.max_new_tokens=48"]
WORDS += ["decoding.min_new_tokens=48", "logger=none"]


@pytest.mark.slow
def test_a_process_killed_while_it_asks_goes_on_to_the_result_of_one_that_was_not(tmp_path: Path) -> None:
    base = tiny.save("llama", tmp_path / "base")
    model = [f"model.path={base}", "model.from_cell=null", "model.name=small"]
    config = compose([*WORDS, *model])
    whole, broken = (replace(config, paths=PathsConfig(outputs=str(tmp_path / name))) for name in ("whole", "broken"))
    judged = evaluation_folder(cell_of(broken).folder, cell_of(broken).evaluation)
    part = judged / "replies.part.jsonl"
    words = [*WORDS, *model, f"paths.outputs={tmp_path / 'broken'}"]
    code = f"from babeltune.config import compose\nfrom babeltune.runner import run\nrun(compose({words!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: part.exists() and part.read_bytes().count(b"\n") >= 3)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    there = part.read_bytes().count(b"\n")
    assert 3 <= there < 24
    assert not (judged / "replies.jsonl").exists()

    told: list[dict[str, Any]] = []
    result = run(broken, lambda event, **facts: told.append(facts))
    answering = [facts["done"] for facts in told if facts["phase"] == "answering"]
    assert answering == list(range(there, 25))
    assert result.scores == run(whole).scores
    other = evaluation_folder(cell_of(whole).folder, cell_of(whole).evaluation)
    assert read_replies(judged / "replies.jsonl") == read_replies(other / "replies.jsonl")
    assert json.loads((judged / "losses.json").read_text()) == json.loads((other / "losses.json").read_text())
    assert not part.exists()
