"""What the ways of preparing report alike: time and memory between the imports and the last row, and what came out."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.clock import peak_rss


def timed(prepare: Callable[[], dict[str, Any]]) -> None:
    """Run it once and write seconds, memory and its facts where `bench/preparing.py` looks. CPU time counts its processes too."""
    wall, cpu = time.perf_counter(), _cpu()
    facts = prepare()
    facts |= {"wall": time.perf_counter() - wall, "cpu": _cpu() - cpu, "peak_rss": peak_rss()}
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(facts), encoding="utf-8")


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
