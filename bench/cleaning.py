"""Time and memory of cleaning, against the number of rows.

    python bench/cleaning.py --rows 1000000

Writes that many conversations of some 300 characters in Chinese, Vietnamese and English into a temporary folder, one in twenty the
same as an earlier one, one in twenty nearly the same, one in fifty with an address or a telephone number, and takes them through a
real pipeline: exact, near, language, personal. A quarter as many go first, each size in a process of its own. Speeds
are over the processor's time, so that what else the machine does counts less. `anonymous` is the most memory that the process owned
at a time; `peak` counts pages of files as well, which the system takes back when it needs room.
`--processes N` times the steps that look at one row in N processes, chunks of rows in order.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LANGUAGES = ("zh", "vi", "en")
WORDS = {
    "zh": "我们 学习 语言 需要 时间 和 耐心 医生 建议 每天 喝水 运动 对 健康 有 好处 请 说明 原因 因为 的 是 了",
    "vi": "chúng ta học ngôn ngữ cần thời gian và kiên nhẫn bác sĩ khuyên uống nước mỗi ngày tốt cho sức khỏe vì của là ở",
    "en": "we learn a language with time and patience the doctor says that water every day is good for health of in",
}
UNITS = {"zh": 150, "vi": 66, "en": 58}
"""Words of a conversation: some 300 characters."""
PERSONAL = ("mail minh.tran@viettel.vn", "call 13812345678", "gọi 0912 345 678", "电话 13987654321")
STEPS = ("exact", "near", "language", "personal")
CHUNK = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--processes", type=int, default=0, help="time the row steps in so many processes")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.steps)))
        return
    if options.processes:
        print(in_processes(options.rows, options.steps, options.processes))
        return
    for rows in (options.rows // 4, options.rows):
        print(table(rows, in_a_process(rows, options.steps)), flush=True)


def in_a_process(rows: int, steps: Sequence[str]) -> dict[str, Any]:
    """One size, in a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data" / "big" / "rows.jsonl", rows)
        command = [sys.executable, __file__, "--measure", folder, "--steps", *steps]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def write(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True)
    draw = random.Random(0)
    recent: list[tuple[str, list[str]]] = []
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            language, words = _words(draw, recent)
            recent.append((language, words))
            if len(recent) > 10_000:
                del recent[:5_000]
            joint = "" if language == "zh" else " "
            fields = {"instruction": joint.join(words[:12]), "output": joint.join(words[12:]), "lang": language}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _words(draw: random.Random, recent: list[tuple[str, list[str]]]) -> tuple[str, list[str]]:
    kind = draw.random()
    if recent and kind < 0.1:
        language, words = draw.choice(recent)
        words = list(words)
        if kind < 0.05:
            words[draw.randrange(len(words))] = "x"
        return language, words
    language = draw.choice(LANGUAGES)
    known = WORDS[language].split()
    words = [draw.choice(known) if draw.random() < 0.6 else _rare(draw, language) for _ in range(UNITS[language])]
    if draw.random() < 0.02:
        words[20] = f" {draw.choice(PERSONAL)} "
    return language, words


def _rare(draw: random.Random, language: str) -> str:
    """A word that few texts have."""
    if language == "zh":
        return chr(draw.randrange(0x4E00, 0x8000)) + chr(draw.randrange(0x4E00, 0x8000))
    ends = ("ương", "iên", "ạch", "ồng", "ử", "ấn") if language == "vi" else ("ing", "ation", "ent", "ous", "ly", "er")
    return "".join(draw.choice("bcdghklmnprstv") + draw.choice("aeiou") for _ in range(draw.randint(1, 2))) + draw.choice(ends)


def measure(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Seconds in each step, of all, and memory."""
    from babeltune.data.cleaning import making, pipeline
    from babeltune.data.preparing import rows
    from babeltune.options import SourceConfig
    from babeltune.steps import STEPS as KINDS

    seconds: dict[str, float] = defaultdict(float)
    pipeline.making = SimpleNamespace(  # type: ignore[attr-defined, assignment]
        row_step=functools.partial(timed_row, making.row_step, seconds),
        corpus_step=functools.partial(timed_corpus, making.corpus_step, seconds),
    )
    watch = Watch()
    source = SourceConfig(name="big", language="en")
    start = time.perf_counter()
    read = functools.partial(rows, source, folder / "data", 0.0)
    steps = {name: KINDS[name]() for name in names}
    done = pipeline.clean(steps, {"big": read}, {"bench": 1}, folder / "cache", lambda name: None)
    whole = time.perf_counter() - start
    reports = [{"name": one.name, "seen": one.seen, "dropped": dict(one.dropped), "facts": dict(one.facts)} for one in done.reports]
    return {
        "seconds": dict(seconds),
        "whole": whole,
        "processor": time.process_time(),
        "anonymous": watch.most(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps": reports,
    }


def timed_row(make: Callable[..., Any], seconds: dict[str, float], step: Any, place: Any) -> Any:
    made = make(step, place)

    def timed(conversation: Any) -> Any:
        start = time.process_time()
        outcome = made(conversation)
        seconds[step.kind] += time.process_time() - start
        return outcome

    return None if made is None else timed


def timed_corpus(make: Callable[..., Any], seconds: dict[str, float], step: Any, place: Any) -> Any:
    made = make(step, place)

    def timed(corpus: Any) -> Iterator[Any]:
        outcomes = made(corpus)
        while True:
            start = time.process_time()
            outcome = next(outcomes, None)
            seconds[step.kind] += time.process_time() - start
            if outcome is None:
                return
            yield outcome

    return timed


class Watch:
    """The most anonymous memory of this process, looked at ten times a second, in MiB."""

    def __init__(self) -> None:
        self._most = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def most(self) -> int:
        self._end.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._end.wait(0.1):
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self._most = max(self._most, anonymous // 1024)


def in_processes(rows: int, names: Sequence[str], count: int) -> str:
    """Rows a second of the row steps alone, in one process and in several, without reading."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data" / "rows.jsonl"
        write(path, rows)
        lines = path.read_text(encoding="utf-8").splitlines()
    chunks = list(itertools.batched(lines, CHUNK)) if hasattr(itertools, "batched") else _batched(lines)
    row_names = [name for name in names if name in ("language", "personal")]
    _start(row_names)
    start = time.perf_counter()
    one = [_chunk(chunk) for chunk in chunks]
    alone = time.perf_counter() - start
    with multiprocessing.get_context("spawn").Pool(count, _start, (row_names,)) as pool:
        pool.map(_chunk, chunks[:count])
        start = time.perf_counter()
        many = list(pool.imap(_chunk, chunks))
        together = time.perf_counter() - start
    assert one == many, "chunks come back in order and the same"
    return f"{', '.join(row_names)}: {rows / alone:,.0f} rows/s in one process, {rows / together:,.0f} in {count}"


def _batched(lines: list[str]) -> list[list[str]]:
    return [lines[start : start + CHUNK] for start in range(0, len(lines), CHUNK)]


_STEPS: list[Any] = []


def _start(names: list[str]) -> None:
    from babeltune.data.cleaning import making
    from babeltune.data.cleaning.kinds import Place
    from babeltune.steps import STEPS as KINDS

    room = Path(tempfile.gettempdir())
    _STEPS[:] = [making.row_step(KINDS[name](), Place(room, room, lambda name: None)) for name in names]


def _chunk(lines: Sequence[str]) -> list[str]:
    from babeltune.data.cleaning.spool import plain
    from babeltune.records import Conversation, Message

    out = []
    for line in lines:
        fields = json.loads(line)
        messages = (Message("user", fields["instruction"]), Message("assistant", fields["output"]))
        outcomes: list[Any] = [Conversation(messages, "big", fields["lang"], "x:1")]
        for step in _STEPS:
            outcomes = [after for one in outcomes for after in (step(one) if isinstance(one, Conversation) else [one])]
        out += [json.dumps(plain(one), ensure_ascii=False) for one in outcomes]
    return out


def table(rows: int, measured: dict[str, Any]) -> str:
    took = f"{measured['whole']:.0f} s, {measured['processor']:.0f} of the processor"
    lines = [f"{rows:,} rows: {took}, {measured['anonymous']} MiB anonymous, {measured['peak']} MiB peak"]
    for step in measured["steps"]:
        seconds = measured["seconds"].get(step["name"], 0.0)
        speed = f"{step['seen'] / seconds:>9,.0f} rows/s" if seconds else ""
        lines.append(f"  {step['name']:<10} {seconds:>7.1f} s {speed}  dropped {step['dropped']} {step['facts']}")
    rest = measured["processor"] - sum(measured["seconds"].values())
    lines.append(f"  {'reading and writing':<10} {rest:.1f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
