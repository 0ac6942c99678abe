"""The page on mixes says what is so, and a ledger tells what was asked and what was got."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from babeltune.config import CONF, compose
from babeltune.data.preparing import prepare, writing
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import RunConfig
from babeltune.records import MixLedger

PAGE = (CONF.parent / "docs" / "mixes.md").read_text(encoding="utf-8")
WAYS = re.findall(r"^\| .* \| `(.*)` \|$", PAGE, re.MULTILINE)
COMMANDS = re.findall(r"^    python train.py (.*)$", PAGE, re.MULTILINE)
TEXTS = ["请把这句话翻译成英文。", "Thủ đô của Việt Nam là Hà Nội.", "The capital of France is Paris."]


def composed(way: str, *overrides: str) -> RunConfig:
    """The toy mix with what a line of the page's table says."""
    wanted = yaml.safe_load(way)
    said = [f"++data.{key}={json.dumps(value).replace(chr(34), '')}" for key, value in wanted.items()]
    return compose(["data=toy_all", "data.max_rows=null", *said, *overrides])


def ledger(config: RunConfig, folder: Path) -> MixLedger:
    return prepare(config, writing(config, train_tokenizer(TEXTS, 320)), folder).ledger


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_page_has_an_example_of_every_way() -> None:
    said = [yaml.safe_load(way) for way in WAYS]
    ways = {key for one in said for key in one} | {key for one in said for take in one.get("take", {}).values() for key in take}
    assert ways == {"take", "count", "fraction", "weight", "tokens", "temperature", "temperature_over", "quota", "max_rows"}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_the_page_composes_and_its_ledger_says_what_was_asked_and_got(way: str, cache: Path) -> None:
    config = composed(way, "data.sources.toy_vi.toy.rows=700")
    rows = {row.source: row for row in ledger(config, cache).rows}
    assert sum(row.token_share for row in rows.values()) == pytest.approx(1)
    for name, row in rows.items():
        take: dict[str, Any] = yaml.safe_load(way).get("take", {}).get(name, {})
        asked = [f"{key} {value}" for key, value in take.items()]
        if "temperature" in way:
            asked = ["temperature 2" + (" over languages" if "language" in way else "")]
        assert row.asked == (asked[0] if asked else "all")
        assert row.taken == take.get("count", row.taken)
        assert row.taken == pytest.approx(take.get("fraction", row.taken / row.usable) * row.usable, abs=0.5)
        assert row.token_share == pytest.approx(take.get("tokens", row.token_share), abs=0.001)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_composes(command: str) -> None:
    words = [word for word in shlex.split(command) if word != "-m"]
    compose([word.split(",")[0] if word.startswith("data.temperature=") else word for word in words])


def test_what_max_tokens_costs_is_in_the_ledger(cache: Path) -> None:
    long, short = (ledger(composed("{}", f"data.max_tokens={size}"), cache).rows for size in (1000, 256))
    assert [row.cut_answers for row in long] == [0, 0, 0]
    assert all(0 < row.cut_answers < row.found for row in short)
    assert sum(row.tokens for row in short) < sum(row.tokens for row in long)


def test_a_drop_counts_under_its_conversations_language(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    rows = [
        {"prompt": "một?", "response": "hai", "lang": "vi"},
        {"prompt": "一？", "response": "二", "lang": "zh"},
        {"prompt": "một?", "response": " ", "lang": "vi"},
        {"prompt": "一？", "lang": "zh"},
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    source = "+data.sources={mine:{name:mine,language:zh,format:prompt_response}}"
    paths = [f"paths.data={tmp_path}/data", "data.max_bad_fraction=0.5", "data.heldout_fraction=0"]
    found = ledger(compose(["data=none", "evaluation=none", source, *paths]), tmp_path)
    assert {row.language: dict(row.dropped) for row in found.rows} == {"vi": {"empty answer": 1}, "zh": {"missing field": 1}}
    assert {row.language: row.found for row in found.rows} == {"vi": 2, "zh": 2}
