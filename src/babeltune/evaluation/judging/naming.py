"""What a judge's verdicts depend on, for the identity of an evaluation: its options, and the bytes of its files. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from babeltune.config import dump
from babeltune.data import sources
from babeltune.errors import ConfigError, problem
from babeltune.identity import judge_parts
from babeltune.judges import EndpointJudge, RecordedJudge, RewardJudge
from babeltune.options import JudgeConfig
from babeltune.results import read_json

MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".spm")


def parts(judge: JudgeConfig, suite: str, cache: Path) -> dict[str, Any]:
    """A plain value that is the same exactly when the same is asked. `cache` remembers hashes of big files.

    Raises ConfigError for a file that is not there, or a cell that was not judged on the suite.
    """
    options = judge_parts(dump(judge))
    match judge:
        case EndpointJudge():
            files = {"against": judge.against and against(judge.against, suite), "prompts": judge.prompts}
            named = {name: _file(f"judge.{name}", Path(path).expanduser()) for name, path in files.items() if path}
        case RewardJudge():
            named = {"model": _model(judge.model, cache)}
        case RecordedJudge():
            named = {"file": _file("judge.file", Path(judge.file).expanduser())}
        case _:
            named = {}
    return options | named


def against(path: str, suite: str) -> Path:
    """The file of replies that `judge.against` means: itself, that of an evaluation's folder, or a cell's only one on the suite."""
    folder = Path(path).expanduser()
    if folder.is_file():
        return folder
    found = [folder / "replies.jsonl"] if (folder / "replies.jsonl").is_file() else []
    if not found:
        asked = [one for one in sorted(folder.glob("evaluations/*/asked.json")) if one.with_name("replies.jsonl").is_file()]
        found = [one.with_name("replies.jsonl") for one in asked if read_json(one)["evaluation"].get("name") == suite]
    if len(found) != 1:
        names = ", ".join(one.parent.name for one in found)
        got = f"{path}, judged on {suite} in several ways ({names})" if found else f"{path}, which has no replies to {suite}"
        hint = f"judge.against={found[0].parent}" if found else f"running that cell with evaluation={suite} first"
        raise ConfigError(problem("judge.against", got, "one set of replies: a cell, its evaluation, or a file", hint))
    return found[0]


def _file(where: str, path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        got = f"{path}, which cannot be read ({error.strerror or error})"
        raise ConfigError(problem(where, got, "a file of JSON Lines", f"{where}=FILE")) from error


def _model(path: str, cache: Path) -> str:
    """A folder by its bytes, a hub id as it is, with its revision beside it."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return path
    files = sorted(file for file in folder.iterdir() if file.suffix in MODEL_FILES)
    return sources.digest_files(files, cache / sources.DIGESTS)
