"""What the benchmarks share: running a command and measuring it from outside, describing the machine, tables, results on disk."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench"
OUTPUTS = ROOT / "outputs" / "bench"
RESULTS = BENCH / "results"
MB = 2**20

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command took, its children that it waited for included."""

    code: int
    wall: float
    cpu: float
    peak_rss: int
    """Of the largest of its processes, in bytes."""
    said: str
    """The end of what it printed."""


def measure(command: Sequence[str], env: Mapping[str, str], log: Path, limit: float = 3600.0) -> Usage:
    """Run a command in a process group of its own, with `env` added to this process's. Killed after `limit` seconds."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **env}, cwd=ROOT, start_new_session=True
        )
    timer = threading.Timer(limit, _kill, (process.pid,))
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(
        code=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024,
        said=log.read_text(encoding="utf-8", errors="replace")[-3000:],
    )


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def last_words(said: str) -> str:
    """The line of a failed command's output that most likely says why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "error")) or "Error:" in line or "Error(" in line]
    return (errors or lines or ["it said nothing"])[-1][:240]


def machine() -> dict[str, Any]:
    """Where and when: processor, cores, memory, versions, commit."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    flags = set(fields.get("flags", "").split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": fields.get("model name", platform.processor()),
        "flags": sorted(flags),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "commit": commit(),
    }


def commit() -> str:
    """The commit, with a `+` where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "--", "src", "train.py"], capture_output=True, text=True)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that an environment has."""
    code = (
        "import sys, json, importlib.metadata as m\n"
        "have = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))"
    )
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def cell(values: Sequence[float], form: str = "{:,.1f}") -> str:
    """`median (min–max)`; the median alone where there is one value."""
    found = spread(values)
    middle = form.format(found["median"])
    return middle if len(values) == 1 else f"{middle} ({form.format(found['min'])}–{form.format(found['max'])})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column left, the others right."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if not place else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * width if not place else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def held(name: str, value: float, bar: float, *, at_least: bool) -> str:
    """A line that says whether a bar holds."""
    holds = value >= bar if at_least else value <= bar
    sign = "≥" if at_least else "≤"
    return f"{'holds' if holds else 'FALLS SHORT'}: {name}: {value:.4g} (bar {sign} {bar:g})"


def write(name: str, facts: Mapping[str, Any], text: str) -> Path:
    """Keep a benchmark's results as JSON and as the Markdown it printed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return path


def say(text: str) -> None:
    """Progress, apart from results."""
    print(text, file=sys.stderr, flush=True)
