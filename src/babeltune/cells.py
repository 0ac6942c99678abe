"""Cells: a config together with the identity it has, the folder it lives in, and the cells it stands on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babeltune import checks, foreign, identity
from babeltune import config as configs
from babeltune.data import sources, templates, toyworld
from babeltune.data.cleaning import naming
from babeltune.errors import ConfigError, DataError, ModelError, nearest, problem
from babeltune.evaluation import metrics
from babeltune.evaluation.judging import naming as judges
from babeltune.options import EvaluationConfig, ExtendVocabularyStage, ModelConfig, PrepareStage, RunConfig, SourceConfig
from babeltune.results import read_evaluation, read_json
from babeltune.suites import BenchmarkSuite, RowsSuite, ToySuite

MERGEABLE = ("none", "lora", "rslora", "dora", "adalora", "ia3", "embeddings")
"""Adapters that are a change of the base's weights: other cells may stand on a cell with one."""


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
    problems = [*_unknown_words(config), *_too_long(config), *_unmergeable(config)]
    if problems:
        raise ConfigError("\n".join(problems))


def _unknown_words(config: RunConfig) -> Iterator[str]:
    template = config.template.name
    known = [*templates.TEMPLATES, "chat"]
    if template not in known:
        yield problem("template.name", repr(template), f"one of {', '.join(known)}", f"template={nearest(template, known, 1)}")
    yield from filter(None, map(metrics.refused, config.evaluation.metrics))
    asked = {f"data.sources.{name}.toy.language": one.toy.language for name, one in config.data.sources.items() if one.toy}
    spoken = list(toyworld.LANGUAGES)
    if isinstance(config.evaluation, ToySuite):
        asked |= {f"evaluation.languages[{place}]": language for place, language in enumerate(config.evaluation.languages)}
    for where, language in asked.items():
        if language is not None and language not in spoken:
            yield problem(where, repr(language), f"one of {', '.join(spoken)}", nearest(language, spoken))


def _unmergeable(config: RunConfig) -> Iterator[str]:
    """A base that another cell made has to be one model: what that cell trained is merged."""
    parent = parent_config(config)
    if parent is not None:
        trains = bool(parent.data.sources) and not isinstance(parent.stage, ExtendVocabularyStage)
        kind = parent.adapter.kind if trains else "none"
    elif (path := Path(config.model.from_cell or "") / "identity.json").is_file():
        kind = read_json(path)["parts"].get("adapter", {"kind": "none"})["kind"]
    else:
        return
    if kind not in MERGEABLE:
        expected = f"a cell whose adapter becomes part of its base ({', '.join(MERGEABLE)})"
        yield problem("model.from_cell", f"a cell with adapter={kind}", expected, "adapter=lora there")


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
    if keys is None and (path := config_file(config.model)) is not None:
        keys = read_json(path)
    found = next((keys[name] for name in ("max_position_embeddings", "n_positions") if name in keys), None) if keys else None
    return found if isinstance(found, int) else None


def config_file(model: ModelConfig) -> Path | None:
    """The transformers config of a model's folder; of a cell whose adapter is not merged yet, that of its base."""
    if model.from_cell is None:
        folders = [model.path]
    else:
        cell = Path(model.from_cell)
        record = cell / "adapter" / "adapter_config.json"
        folders = [str(cell / "model"), str(cell / "base")]
        folders += [read_json(record)["base_model_name_or_path"]] if record.is_file() else []
    files = (Path(folder) / "config.json" for folder in folders if folder)
    return next((file for file in files if file.is_file()), None)


def cell_of(config: RunConfig) -> Cell:
    """The cell a config means. Reads data files to hash them; trains nothing."""
    check(config)
    root, cache = Path(config.paths.data), cache_folder(config)
    data = {name: _cleaned_digest(source, root, cache) for name, source in config.data.sources.items()}
    suite = {} if isinstance(config.stage, PrepareStage) else _suite(config.evaluation, root)
    asked = {name: _asked(source, root, cache) for name, source in suite.items()}
    name = config.template.name
    template = name if name == "chat" else templates.digest(templates.choose(name))
    base, parent = _base(config)
    cleaning = naming.key(config.cleaning, cache)
    pieces = _pieces(config)
    against = {name: _digest(json.dumps(configs.dump(one)), root, cache) for name, one in config.data.contamination.against.items()}
    apart = identity.apart_parts(config, suite=asked, against=against)
    parts = identity.training_parts(config, data=data, cleaning=cleaning, template=template, base=base, pieces=pieces, apart=apart)
    own = identity.digest(parts)
    judge = judges.parts(config.judge, config.evaluation.name, cache)
    return Cell(
        config=config,
        identity=own,
        evaluation=identity.evaluation_id(config, data=asked, template=template, against=against, judge=judge),
        folder=identity.folder(config, own),
        parts=parts,
        parent=parent,
    )


def _suite(evaluation: EvaluationConfig, root: Path) -> Mapping[str, SourceConfig]:
    """The sources that a suite takes its items from: of a benchmark or of rows all of them, of others those that are there."""
    return evaluation.sources if isinstance(evaluation, BenchmarkSuite | RowsSuite) else sources.present(evaluation.sources, root)


def at_hand(config: RunConfig) -> dict[str, SourceConfig]:
    """Those of a suite's sources that lie here: what a mix that is only prepared is compared with."""
    root = Path(config.paths.data)
    return {name: one for name, one in config.evaluation.sources.items() if one.toy is not None or sources.locate(one, root)}


def _pieces(config: RunConfig) -> str | None:
    """The digest of the file that a vocabulary is extended from, where one is given."""
    path = getattr(config.stage, "pieces", None)
    if path is None:
        return None
    if not Path(path).is_file():
        raise ModelError(problem("stage.pieces", f"{path}, which is no file", "a SentencePiece model", "stage.pieces=FILE.model"))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _cleaned_digest(source: SourceConfig, root: Path, cache: Path) -> str:
    """Of a source's bytes and of what is done to them."""
    own = _digest(json.dumps(configs.dump(source)), root, cache)
    return identity.digest({"bytes": own, "cleaning": naming.key(source.cleaning, cache)}) if source.cleaning else own


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
    """The config of the cell that the base model comes from, or None when it comes from a path or is fresh.

    It is trained on the devices of the cell that asks for it, unless the words that name it say where, or it cannot be.
    """
    named = config.model.from_cell
    if named is None or _is_folder(named):
        return None
    if "=" not in named:
        raise ConfigError(
            problem("model.from_cell", repr(named), "the folder of a cell, or overrides that name one", "experiment=tiny")
        )
    parent = dataclasses.replace(_composed(named), paths=config.paths, logger=config.logger)
    if any(word.startswith("trainer") for word in named.split()):
        return parent
    micro_tokens = max(config.trainer.micro_tokens, parent.data.max_tokens)
    shared = dataclasses.replace(parent, trainer=dataclasses.replace(config.trainer, micro_tokens=micro_tokens))
    return parent if any(checks.check(shared)) else shared


def _is_folder(named: str) -> bool:
    try:
        return Path(named).is_dir()
    except OSError:  # many words are too long for a name
        return False


@functools.cache
def _composed(named: str) -> RunConfig:
    return configs.compose(named.split())


@functools.cache
def _digest(source: str, root: Path, cache: Path) -> str:
    """Remembered within a process: the cells of a grid share their sources."""
    return sources.digest(configs.build_source(json.loads(source)), root, cache=cache / sources.DIGESTS)


def _ancestors(config: RunConfig) -> list[Cell]:
    parent = None if isinstance(config.stage, PrepareStage) else parent_config(config)
    return [] if parent is None else [*_ancestors(parent), cell_of(parent)]


def _base(config: RunConfig) -> tuple[str, Path | None]:
    """The base model's part of the identity, and the folder of the cell it comes from."""
    model = config.model
    if model.answers is not None:
        return identity.digest({"answers": foreign.answers(model.answers)}), None
    if model.adapter is not None:
        added = foreign.adapter(model)
        base, parent = _bare(config)
        return identity.digest({"base": base, "adapter": added}), parent
    return _bare(config)


def _bare(config: RunConfig) -> tuple[str, Path | None]:
    """The same without an adapter over it."""
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
