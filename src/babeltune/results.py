"""A cell's folder: what is in it, who holds it, and how it is written so that half a result never exists.

config.yaml      what was asked, frozen
identity.json    what the cell's hash is made of
ledger.json      what really went in
metrics.jsonl    every logged number, line by line: the truth that W&B mirrors
checkpoints/     where training can go on from
adapter/         what was trained (`model/` when every weight was)
base/            the random weights that an adapter stands on, where the cell's model was fresh
model/           base and adapter merged, once another cell stands on this one; how far it is from them in `merged.json`
trained.json     written last by training: facts about it
evaluations/ID/  replies.jsonl, losses.json, scores.json and asked.json, one folder for each way of judging; with a judge also
                 verdicts.jsonl and judged.json, what asking it took; replies.part.jsonl is there while the model is asked
result.json      everything a table needs
train.log        what the libraries had to say
job.json         which job of a cluster has the cell, and told.json, how far that says it is; see `babeltune.clusters`
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from babeltune.errors import HeldError, OutputError, problem
from babeltune.judges import ReferenceJudge
from babeltune.options import RunConfig
from babeltune.records import MixLedger, Reply, Score, Verdict
from babeltune.suites import RowsSuite

log = logging.getLogger(__name__)

ASKED = ("evaluation", "template", "decoding", "judge")
"""The groups that say how a cell was judged. `asked.json` has them as they were for one evaluation."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished cell is known to have done. `result.json` is this, as written."""

    cell: str
    """The folder's name."""
    identity: str
    evaluation: str
    config: Mapping[str, Any]
    scores: Mapping[str, Score]
    """By name; the first is the one tables show."""
    ledger: Mapping[str, Any]
    training: Mapping[str, Any]
    """Steps, tokens, seconds, parameters, first and last loss."""
    labels: tuple[str, ...] = ()
    """What a reader must know before comparing: small scale, stand-ins."""
    versions: Mapping[str, str] = field(default_factory=dict)
    tracking: Mapping[str, Any] = field(default_factory=dict)
    """Where the run is mirrored."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One way in which a cell was judged."""

    id: str
    """The name of its folder."""
    asked: Mapping[str, Any]
    """The groups of `ASKED` in its config."""
    scores: Mapping[str, Score]


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, finds the old bytes or the new ones and nothing between.

    Raises OutputError when the disk is full or the folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(path)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def beside(path: Path) -> Path:
    """A name next to a file's or folder's own that no other process has: on a cluster two may have one number."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish_folder(write: Callable[[str], object], folder: Path) -> None:
    """Fill a folder under another name, then give it its own: it is there complete or not at all. One that is there stays."""
    with writing(folder):
        temporary = beside(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            write(str(temporary))
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one sentence."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: OSError) -> OutputError:
    """The sentence for a write that the system refused."""
    reasons = {
        errno.ENOSPC: ("a full disk", "freeing space, or paths.outputs on another disk"),
        errno.EDQUOT: ("a used-up disk quota", "freeing space, or paths.outputs on another disk"),
        errno.EROFS: ("a read-only file system", "paths.outputs=FOLDER you can write to"),
        errno.EACCES: ("no permission to write", "paths.outputs=FOLDER you can write to"),
        errno.EPERM: ("no permission to write", "paths.outputs=FOLDER you can write to"),
        errno.ENOTDIR: ("a file where a folder is needed", "paths.outputs=FOLDER"),
        errno.EEXIST: ("a file where a folder is needed", "paths.outputs=FOLDER"),
    }
    got, hint = reasons.get(error.errno or 0, (error.strerror or str(error), "paths.outputs=FOLDER you can write to"))
    return OutputError(problem(str(path), got, "a folder that results can be written to", hint))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """What a file of ours holds. Raises OutputError when it is not there or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> OutputError:
    """The sentence for a file that babeltune did not write like that."""
    got = "no such file" if isinstance(error, FileNotFoundError) else f"a damaged file ({type(error).__name__}: {error})"
    return OutputError(problem(str(path), got, "a file that babeltune wrote", f"deleting {path.parent} and running the cell again"))


def write_replies(path: Path, replies: list[Reply]) -> None:
    write_text(path, "".join(json.dumps(asdict(reply), ensure_ascii=False) + "\n" for reply in replies))


def read_replies(path: Path) -> list[Reply]:
    try:
        return [read_reply(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(path, error) from error


def read_reply(line: str | bytes) -> Reply:
    """One line of a file of replies. Raises ValueError, TypeError or KeyError when it is none."""
    row = json.loads(line)
    return Reply(**(row | {"logprobs": tuple(row["logprobs"])}))


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    write_text(path, "".join(json.dumps(asdict(verdict), ensure_ascii=False) + "\n" for verdict in verdicts))


def read_verdicts(path: Path) -> list[Verdict]:
    try:
        return [Verdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path, error) from error


def write_ledger(path: Path, ledger: MixLedger) -> None:
    write_json(path, asdict(ledger))


def write_result(folder: Path, result: RunResult) -> None:
    write_json(folder / "result.json", asdict(result))


def read_result(folder: Path) -> RunResult | None:
    """The result in a cell's folder, or None when there is none yet."""
    path = folder / "result.json"
    if not path.exists():
        return None
    tree = read_json(path)
    try:
        return RunResult(**(tree | {"scores": _scores(tree["scores"]), "labels": tuple(tree["labels"])}))
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path, error) from error


def evaluation_folder(folder: Path, evaluation: str) -> Path:
    """Where a cell keeps what belongs to one way of judging it."""
    return folder / "evaluations" / evaluation[:8]


def read_evaluation(folder: Path, evaluation: str) -> dict[str, Score] | None:
    """The scores of one way of judging, or None when the cell was not judged so yet."""
    path = evaluation_folder(folder, evaluation) / "scores.json"
    if not path.exists():
        return None
    try:
        return _scores(read_json(path))
    except (TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Every way in which a cell was judged, in the order of their names. What is damaged is left out, and the log says so."""
    found = []
    for path in sorted(folder.glob("evaluations/*/scores.json")):
        try:
            scores = read_evaluation(folder, path.parent.name)
            asked = read_json(path.with_name("asked.json"))
        except OutputError as error:
            log.warning("left out: %s", error)
            continue
        if scores:
            found.append(Evaluation(path.parent.name, asked, scores))
    return found


def read_contamination(folder: Path, evaluation: str) -> dict[str, Any] | None:
    """What of the evaluation was found in the training data, or None when it was not looked for."""
    path = evaluation_folder(folder, evaluation) / "contamination.json"
    return dict(read_json(path)) if path.exists() else None


def read_judged(folder: Path, evaluation: str) -> dict[str, Any] | None:
    """What asking a judge took and how much it scored, or None where none was asked."""
    path = evaluation_folder(folder, evaluation) / "judged.json"
    return dict(read_json(path)) if path.exists() else None


def _scores(tree: Mapping[str, Any]) -> dict[str, Score]:
    return {name: Score(**score) for name, score in tree.items()}


def labels(config: RunConfig, standins: Sequence[str]) -> tuple[str, ...]:
    """What a reader must know before comparing a cell with a paper. `standins` are the ledger's."""
    said = []
    if config.scale.name != "paper":
        said.append(f"scale={config.scale.name}")
    if config.scale.standins and config.model.standin:
        said.append(f"{config.model.standin} in place of {config.model.name}")
    if isinstance(config.evaluation, RowsSuite):
        said += [config.evaluation.standin] if config.evaluation.standin else []
        if config.evaluation.judged_by and isinstance(config.judge, ReferenceJudge):
            said.append(f"{config.evaluation.name} without the judge of the paper")
    return (*said, *standins)


def versions() -> dict[str, str]:
    """What computed the numbers."""
    names = ("babeltune", "torch", "lightning", "transformers", "peft", "datasets", "sacrebleu")
    return {name: importlib.metadata.version(name) for name in names}


def find_results(outputs: Path) -> Iterator[RunResult]:
    """Every finished cell below a folder, in the order of their names. What is damaged is left out, and the log says so."""
    for path in sorted(outputs.glob("*/result.json")):
        try:
            result = read_result(path.parent)
        except OutputError as error:
            log.warning("left out: %s", error)
            continue
        if result is not None:
            yield result


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a cell for this process. The system lets go of it when the process ends, however it ends.

    Raises HeldError, naming the holder, when another process has it.
    """
    path = folder / ".lock"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 4096).decode(errors="replace").strip() or "another process"
            raise HeldError(
                problem(str(folder), f"a cell that {holder} is working on", "a free cell", "again when it has ended")
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}".encode(), 0)
        yield
    finally:
        os.close(handle)
