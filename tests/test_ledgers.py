"""What a run that only prepares prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import train

ROWS = [
    {"instruction": "怎么泡茶？", "input": "", "output": "（1）烧水\n（2）放茶叶"},
    {"instruction": "二加二等于几？", "input": "", "output": "四。"},
    {"instruction": "二加二等于几？", "input": "", "output": "四。"},
]


@pytest.mark.slow
def test_preparing_prints_the_ledger_and_each_step_and_trains_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "alpaca4_zh"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n", encoding="utf-8")
    steps = ("+cleaning.numbering={kind:numbering}", "+cleaning.exact={kind:exact}", "stage.samples=1")
    paths = (f"paths.data={tmp_path}/data", f"paths.outputs={tmp_path}/outputs")
    out, _ = train("stage=prepare", "data=zh_alpaca4", "logger=none", *steps, *paths)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    at = lines.index("source language asked found dropped held out usable taken tokens share to learn")
    assert lines[at - 2] == "zh_alpaca4: zh(alpaca-4)"
    assert lines[at + 2].startswith("alpaca4_zh zh all 3 1 0 2 2 ")
    assert "dropped: duplicate 1" in lines
    assert "stand-in: alpaca4_zh: 3 rows where its card says 48,818" in lines
    assert "numbering the mix 3 1 3" in lines
    assert "exact the mix 3 0 2 duplicate 1" in lines
    assert f"exact, duplicate (of {folder}/rows.jsonl:2): {folder}/rows.jsonl:3" in lines
    assert not list((tmp_path / "outputs").rglob("*.safetensors"))
