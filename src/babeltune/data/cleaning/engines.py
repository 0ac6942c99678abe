"""Row steps on many machines: each file of a source goes through them on its own, on any executor of datatrove.

    python -m babeltune.data.cleaning.engines FOLDER --tasks 64 --workers 8 data=sharegpt_zh cleaning=[markdown,language,personal]

writes `FOLDER/<source>/00000.jsonl` and so on, one for each file that the source has, in its order. The folder is a data set like
any other: `paths.data=FOLDER data.sources.sharegpt_zh.format=alpaca data.sources.sharegpt_zh.files=[] cleaning=[exact,near]`
takes it through the steps that compare rows. What is cleaned already is not cleaned again, whichever machine it was on.

A source's own `cleaning` goes first, as in a run. Take it out of the source before the folder is read, or it is done twice.
Which prompts are held out is decided by the cleaned text here, where a run that cleans by itself looks at both.
"""

from __future__ import annotations

import argparse
import functools
import glob
import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from babeltune.config import compose
from babeltune.data import filters, preparing, sources
from babeltune.data.cleaning import naming, pipeline
from babeltune.errors import BabelTuneError, ConfigError, DataError, problem
from babeltune.options import Format, RunConfig, SourceConfig
from babeltune.records import Conversation
from babeltune.steps import COMPARING, StepConfig


@dataclass(frozen=True)
class Shards:
    """A step of a datatrove pipeline that reads, cleans and writes: task `rank` of `world_size` has every such file.

    >>> LocalPipelineExecutor([Shards(source, root, steps, out)], tasks=64, workers=8).run()
    >>> SlurmPipelineExecutor([Shards(source, root, steps, out)], tasks=64, time="4:00:00", partition="cpu").run()
    """

    source: SourceConfig
    root: Path
    """The folder of `paths.data`. All machines see it, and `out`."""
    steps: Mapping[str, StepConfig]
    out: Path
    max_bad_fraction: float = 0.01

    def __post_init__(self) -> None:
        comparing = [name for name, step in self.steps.items() if step.kind in COMPARING]
        if comparing:
            got, hint = (
                f"{', '.join(comparing)}, which compare rows with all others",
                f"cleaning=[{','.join(comparing)}] in the run",
            )
            raise ConfigError(problem("cleaning", got, "steps that look at one row", hint))

    def __call__(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Called by the executor, and in its way a generator: of nothing, since the rows go to disk."""
        for number, path in enumerate(files(self.source, self.root)):
            if number % world_size == rank:
                self.clean(number, path)
        yield from ()

    def clean(self, number: int, path: Path) -> None:
        """One file, whole or not at all."""
        target = self.out / self.source.name / f"{number:05d}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        one = replace(self.source, files=[glob.escape(path.name)])
        cache = self.out / ".cache"
        key = {
            "bytes": sources.digest(one, self.root),
            "reading": [one.format.value, one.language, one.encoding, sorted(one.rename.items())],
            "max_bad_fraction": self.max_bad_fraction,
            "steps": naming.key({**self.source.cleaning, **self.steps}, cache),
        }
        read = functools.partial(preparing.rows, one, self.root, self.max_bad_fraction)
        done = pipeline.clean({**self.source.cleaning, **self.steps}, {one.name: read}, key, cache, _tokenizer, one.name)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
            for row in done.read(one.name):
                kept = filters.keep(row) if isinstance(row, Conversation) else row
                if isinstance(kept, Conversation):
                    file.write(json.dumps(fields(kept), ensure_ascii=False) + "\n")
        temporary.replace(target)


def files(source: SourceConfig, root: Path) -> list[Path]:
    """The files of a source, in the order in which they are read. Raises DataError when there are none."""
    found = sources.locate(source, root)
    if not found:
        where, hint = f"data.sources.{source.name}", "putting them there, or cleaning the source in the run"
        raise DataError(problem(where, f"no data files in {root / source.name}", "files to share out", hint))
    return found


def written(source: SourceConfig) -> SourceConfig:
    """The source as it is after cleaning: in the one format that can say everything a conversation has."""
    form = Format.text if source.format is Format.text else Format.alpaca
    return replace(source, format=form, files=[], encoding="utf-8", rename={}, cleaning={})


def fields(conversation: Conversation) -> dict[str, Any]:
    """A sound conversation as an alpaca row with earlier turns in `history`, or a document."""
    first, *_ = messages = conversation.messages
    if first.role == "text":
        return {"text": first.text, "lang": conversation.language}
    turns = messages[1:] if first.role == "system" else messages
    *before, question, answer = turns
    history = [
        [one.text + (f"\n{one.input}" if one.input else ""), two.text] for one, two in zip(before[::2], before[1::2], strict=True)
    ]
    row: dict[str, Any] = {
        "instruction": question.text,
        "input": question.input,
        "output": answer.text,
        "lang": conversation.language,
    }
    return row | ({"system": first.text} if first.role == "system" else {}) | ({"history": history} if history else {})


def run(config: RunConfig, out: Path, tasks: int, workers: int) -> None:
    """Every source of a mix, on this machine. Raises ConfigError when datatrove is not installed."""
    try:
        from datatrove.executor import LocalPipelineExecutor
    except ImportError as error:
        raise ConfigError(problem("datatrove", "no such package", "datatrove 0.10", "pip install '.[scale]'")) from error
    for source in config.data.sources.values():
        step = Shards(source, Path(config.paths.data).absolute(), config.cleaning, out.absolute(), config.data.max_bad_fraction)
        logs = str(out / ".cache" / "logs" / source.name)
        LocalPipelineExecutor([step], tasks=tasks, workers=workers, logging_dir=logs, skip_completed=False).run()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the cleaned files")
    parser.add_argument("--tasks", type=int, default=1, help="parts that a source's files are dealt to")
    parser.add_argument("--workers", type=int, default=1, help="parts worked on at a time")
    parser.add_argument("overrides", nargs="*", help="data=..., cleaning=[...], as for a run")
    options = parser.parse_intermixed_args(arguments)
    try:
        run(compose(options.overrides), options.out, options.tasks, options.workers)
    except BabelTuneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _tokenizer(place: str | None) -> Any:
    """Steps that count tokens name their tokenizer here: there is no run whose own it could be."""
    if place is None:
        where, got = "tokenizer of a cleaning step", "null, the run's own"
        raise ConfigError(problem(where, got, "a folder or hub id: on shards there is no run", "cleaning.split.tokenizer=FOLDER"))
    return preparing.tokenizer_of(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
