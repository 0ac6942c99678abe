"""Half a result never exists, a cell has one holder, and a damaged file is a sentence."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import results
from babeltune.errors import OutputError
from babeltune.records import Reply
from babeltune.results import find_results, read_replies, read_result, write_json, write_replies, write_text
from tests.finished import finish, score

ITEMS = {"a": 100.0, "b": 0.0}


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = finish(["data=toy_zh"], [score("toy/exact_match", ITEMS)], tmp_path, labels=("scale=quick",))
    result = read_result(folder)
    assert result is not None
    assert result.scores["toy/exact_match"] == score("toy/exact_match", ITEMS)
    assert result.labels == ("scale=quick",)
    assert result.cell == folder.name
    assert results.read_evaluation(folder, result.evaluation) == result.scores


def test_replies_read_back_with_every_line_break_there_is(tmp_path: Path) -> None:
    replies = [Reply("a", "một\u2028hai\x85ba\r\nbốn", "stop", 3), Reply("b", "", "length", 0)]
    write_replies(tmp_path / "replies.jsonl", replies)
    assert read_replies(tmp_path / "replies.jsonl") == replies


@pytest.mark.parametrize("text", ["", "{", '{"foo": 1}', "[]", '{"scores": {"a": {"x": 1}}, "labels": []}', '{"scores": 3}'])
def test_a_damaged_result_is_a_sentence_and_no_row(tmp_path: Path, text: str) -> None:
    folder = finish(["data=toy_zh"], [score("toy/exact_match", ITEMS)], tmp_path)
    (folder / "result.json").write_text(text)
    with pytest.raises(OutputError, match=r"result.json: got a damaged file \(.*; try deleting .* and running the cell again"):
        read_result(folder)
    assert list(find_results(tmp_path)) == []


def test_what_is_no_result_is_passed_over(tmp_path: Path) -> None:
    finish(["data=toy_zh"], [score("toy/exact_match", ITEMS)], tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "grids").mkdir()
    assert [result.config["data"]["name"] for result in find_results(tmp_path)] == ["toy_zh"]
    assert list(find_results(tmp_path / "nowhere")) == []


def test_a_write_that_the_system_cuts_short_leaves_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(
            OutputError, match=r"result\.json: got File too large; expected a folder that results can be written to"
        ):
            write_text(path, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "got a full disk; expected .*; try freeing space, or paths.outputs on another disk"),
        (errno.EDQUOT, "got a used-up disk quota"),
        (errno.EROFS, "got a read-only file system; expected .*; try paths.outputs=FOLDER you can write to"),
        (errno.EACCES, "got no permission to write"),
    ],
)
def test_a_refused_write_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    write_text(tmp_path / "result.json", "old")

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=words):
        write_text(tmp_path / "result.json", "new")
    assert (tmp_path / "result.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    for path in (tmp_path / "outputs" / "x.json", tmp_path / "outputs" / "cell" / "x.json"):
        with pytest.raises(OutputError, match="got a file where a folder is needed"):
            write_json(path, {})


def test_a_writer_that_is_killed_leaves_the_old_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    code = f"""
import os, signal
from pathlib import Path
from babeltune import results
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
results.write_text(Path({str(tmp_path / "a.txt")!r}), "new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"


HOLD = """
import sys, time
from pathlib import Path
from babeltune import results
with results.lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_cell_has_one_holder_and_is_free_when_that_one_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError) as caught, results.lock(tmp_path):
            pass
        assert f"got a cell that process {holder.pid} on " in str(caught.value)
        assert str(caught.value).endswith("expected a free cell; try again when it has ended")
        holder.kill()
        holder.wait()
    with results.lock(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
    with results.lock(tmp_path):
        pass


def test_a_published_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(place: str) -> None:
        Path(place).mkdir()
        (Path(place) / "half").write_text("x")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OutputError, match="got a full disk"):
        results.publish_folder(write, tmp_path / "adapter")
    assert os.listdir(tmp_path) == []
