"""Cells: a config together with the identity it has, the folder it lives in, and the cells it stands on."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune import config as configs
from babeltune import identity
from babeltune.data import sources, templates, toyworld
from babeltune.errors import ConfigError, DataError, ModelError, nearest, problem
from babeltune.evaluation.metrics import METRICS
from babeltune.options import ModelConfig, RunConfig, SourceConfig
from babeltune.results import read_evaluation, read_json


@dataclass(frozen=True, slots=True)
class Cell:
    """One run that can be asked for by name, found on disk, and taken up where it stopped."""

    config: RunConfig
    identity: str
    evaluation: str
    folder: Path
    parts: Mapping[str, Any]
    """What the identity is made of."""
    parent: Path | None
    """Folder of the cell its base model comes from."""

    @property
    def is_trained(self) -> bool:
        return (self.folder / "trained.json").exists()

    @property
    def is_done(self) -> bool:
        return (self.folder / "result.json").exists() and read_evaluation(self.folder, self.evaluation) is not None


def check(config: RunConfig) -> None:
    """Refuse what only the parts of the product know to be wrong: words of theirs, and lengths beyond the model's.

    Raises one ConfigError with every problem.
    """
    problems = [*_unknown_words(config), *_too_long(config)]
    if problems:
        raise ConfigError("\n".join(problems))


def _unknown_words(config: RunConfig) -> Iterator[str]:
    template = config.template.name
    known = [*templates.TEMPLATES, "chat"]
    if template not in known:
        yield problem("template.name", repr(template), f"one of {', '.join(known)}", f"template={nearest(template, known, 1)}")
    for metric in config.evaluation.metrics:
        if metric not in METRICS:
            words = f"some of {', '.join(METRICS)}"
            yield problem("evaluation.metrics", repr(metric), words, f"evaluation.metrics=[{nearest(metric, METRICS, 1)}]")
    asked = {f"data.sources.{name}.toy.language": one.toy.language for name, one in config.data.sources.items() if one.toy}
    spoken = list(toyworld.LANGUAGES)
    if config.evaluation.kind == "toy":
        asked |= {f"evaluation.languages[{place}]": language for place, language in enumerate(config.evaluation.languages)}
    for where, language in asked.items():
        if language is not None and language not in spoken:
            yield problem(where, repr(language), f"one of {', '.join(spoken)}", nearest(language, spoken))


def _too_long(config: RunConfig) -> Iterator[str]:
    context = _context(config)
    if context is None:
        return
    for where, tokens in {
        "data.max_tokens": config.data.max_tokens,
        "decoding.max_new_tokens": config.decoding.max_new_tokens + 1 if config.evaluation.kind != "none" else 0,
    }.items():
        if tokens > context:
            room = f"at most the {context} tokens that {config.model.name} reads at once"
            yield problem(where, tokens if where == "data.max_tokens" else tokens - 1, room, f"{where}={context // 2}")


def _context(config: RunConfig) -> int | None:
    """The tokens a model reads at once, where that is known without a download."""
    parent = parent_config(config)
    if parent is not None:
        return _context(parent)
    keys = config.model.fresh
    place = Path(config.model.path or config.model.from_cell or "") / ("model" if config.model.from_cell else "") / "config.json"
    if keys is None and place.is_file():
        keys = read_json(place)
    found = next((keys[name] for name in ("max_position_embeddings", "n_positions") if name in keys), None) if keys else None
    return found if isinstance(found, int) else None


def cell_of(config: RunConfig) -> Cell:
    """The cell a config means. Reads data files to hash them; trains nothing."""
    check(config)
    root, cache = Path(config.paths.data), cache_folder(config)
    data = {name: _digest(json.dumps(configs.dump(source)), root, cache) for name, source in config.data.sources.items()}
    asked = {name: _asked(source, root, cache) for name, source in sources.present(config.evaluation.sources, root).items()}
    name = config.template.name
    template = name if name == "chat" else templates.digest(templates.choose(name))
    base, parent = _base(config)
    parts = identity.training_parts(config, data=data, template=template, base=base)
    own = identity.digest(parts)
    return Cell(
        config=config,
        identity=own,
        evaluation=identity.evaluation_id(config, data=asked, template=template),
        folder=identity.folder(config, own),
        parts=parts,
        parent=parent,
    )


def _asked(source: SourceConfig, root: Path, cache: Path) -> str:
    """The digest of a source that a suite takes its questions from. Whoever has not got it may leave it out."""
    try:
        return _digest(json.dumps(configs.dump(source)), root, cache)
    except DataError as error:
        words = str(error).removeprefix(f"data.sources.{source.name}: ").split("; ")[0]
        where = f"evaluation.sources.{source.name}"
        raise DataError(f"{where}: {words}; expected the questions of the suite; try ~{where} to leave it out") from error


def with_parents(configs_: Iterable[RunConfig]) -> list[Cell]:
    """Cells in an order in which each can be run: what a cell stands on comes before it, and nothing comes twice."""
    cells: dict[tuple[Path, str], Cell] = {}
    for config in configs_:
        for cell in [*_ancestors(config), cell_of(config)]:
            cells.setdefault((cell.folder, cell.evaluation), cell)
    return list(cells.values())


def cache_folder(config: RunConfig) -> Path:
    """Where tokenised sources and digests are kept between runs."""
    return Path(config.paths.outputs) / ".cache"


def parent_config(config: RunConfig) -> RunConfig | None:
    """The config of the cell that the base model comes from, or None when it comes from a path or is fresh."""
    named = config.model.from_cell
    if named is None or Path(named).is_dir():
        return None
    if "=" not in named:
        raise ConfigError(
            problem("model.from_cell", repr(named), "the folder of a cell, or overrides that name one", "experiment=tiny")
        )
    return dataclasses.replace(_composed(named), paths=config.paths, logger=config.logger)


@functools.cache
def _composed(named: str) -> RunConfig:
    return configs.compose(named.split())


@functools.cache
def _digest(source: str, root: Path, cache: Path) -> str:
    """Remembered within a process: the cells of a grid share their sources."""
    return sources.digest(configs.build_source(json.loads(source)), root, cache=cache / sources.DIGESTS)


def _ancestors(config: RunConfig) -> list[Cell]:
    parent = parent_config(config)
    return [] if parent is None else [*_ancestors(parent), cell_of(parent)]


def _base(config: RunConfig) -> tuple[str, Path | None]:
    """The base model's part of the identity, and the folder of the cell it comes from."""
    model = config.model
    if model.from_cell is not None:
        parent = parent_config(config)
        if parent is not None:
            cell = cell_of(parent)
            return _with_tokenizer(cell.identity, config), cell.folder
        record = Path(model.from_cell) / "identity.json"
        if not record.exists():
            raise ModelError(problem(str(record), "no such file", "the folder of a cell", "model.from_cell=outputs/CELL"))
        return _with_tokenizer(str(read_json(record)["identity"]), config), Path(model.from_cell)
    if model.fresh is not None:
        return identity.digest({"fresh": model.fresh, **_tokenizer(config)}), None
    assert model.path is not None
    return identity.digest({"path": _weights(model, cache_folder(config)), **_tokenizer(config)}), None


def _with_tokenizer(base: str, config: RunConfig) -> str:
    other = _tokenizer(config)
    return identity.digest({"cell": base, **other}) if other else base


def _tokenizer(config: RunConfig) -> dict[str, Any]:
    model = config.model
    if model.tokenizer == "train":
        return {"tokenizer": "train", "vocabulary": model.vocabulary}
    if model.tokenizer is not None and Path(model.tokenizer).is_dir():
        return {"tokenizer": sources.digest_files(_files(Path(model.tokenizer)), cache_folder(config) / sources.DIGESTS)}
    return {} if model.tokenizer is None else {"tokenizer": model.tokenizer}


def _weights(model: ModelConfig, cache: Path) -> str:
    """A local folder is known by its bytes, a hub model by its name and revision."""
    assert model.path is not None
    path = Path(model.path)
    if path.is_dir():
        return sources.digest_files(_files(path), cache / sources.DIGESTS)
    return f"{model.path}@{model.revision or 'main'}"


def _files(folder: Path) -> list[Path]:
    kinds = {".json", ".safetensors", ".model", ".txt", ".jinja"}
    return sorted(path for path in folder.iterdir() if path.suffix in kinds)
