"""A process that trains does not load what its libraries only look for, and has it all the same when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from babeltune import lean

LOADED = """
import json, sys
from babeltune import lean
lean.import_libraries(quantises=False)
import babeltune.runner, peft, transformers.models.llama.modeling_llama
print(json.dumps([name for name in ("scipy", "matplotlib", "bitsandbytes", "pandas", "sklearn") if sys.modules.get(name)]))
"""
AFTERWARDS = """
import importlib.metadata
import scipy.stats, matplotlib.pyplot
print(importlib.metadata.version("scipy") == scipy.__version__)
"""


NEEDY = """
import sys
from pathlib import Path
from babeltune import lean
Path(sys.argv[1], "needy.py").write_text("import scipy.special")
sys.path.insert(0, sys.argv[1])
lean.LIBRARIES = ("json", "needy")
lean.import_libraries(quantises=False)
print("needy" in sys.modules, "scipy" in sys.modules)
"""


def said(code: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_process_that_trains_loads_neither_charts_nor_signals_nor_quantisation() -> None:
    assert json.loads(said(LOADED)[-1]) == []


def test_a_process_that_trains_is_started_with_the_allocators_setting_unless_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert lean.environment(3).items() >= {"OMP_NUM_THREADS": "3", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}.items()
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    assert lean.environment(3)["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1"


def test_what_was_hidden_is_there_afterwards() -> None:
    assert said(LOADED + AFTERWARDS)[-1] == "True"


def test_what_cannot_be_imported_without_them_is_imported_with_them(tmp_path: Path) -> None:
    assert said(NEEDY, str(tmp_path)) == ["True True"]
