"""Where rows come from: files below `paths.data`, the hub, or the product's own generator."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path

from babeltune.data import reading
from babeltune.errors import ConfigError, DataError, problem
from babeltune.options import SourceConfig, ToyConfig
from babeltune.records import Dropped, Row

log = logging.getLogger(__name__)

KINDS = "*.jsonl, *.json, *.txt (each also .gz or .zst) or *.parquet"

_NOT_DATA = ("META.json", "STATS.json")
DIGESTS = "digests.json"
"""Name of the file that remembers the hashes of big files."""
_BIG_FILE_BYTES = 2**20


def rows(source: SourceConfig, root: Path) -> Iterator[Row | Dropped]:
    """Every row of a source in its own order, one at a time; what cannot be read is a `Dropped` with its place.

    Raises `DataError` at once when there is nothing to read, and on the way when a file as a whole cannot be read on.
    """
    if source.toy is not None:
        return _toy_rows(source, source.toy)
    files = locate(source, root)
    if files:
        encoding = _encoding(source)
        return (row for file in files for row in reading.read(file, encoding))
    if source.hub_id is None:
        raise _not_found(source, root, "no hub_id to fetch it by")
    return _hub_rows(source, source.hub_id, root)


def locate(source: SourceConfig, root: Path) -> list[Path] | None:
    """The data files of `<root>/<name>/`, sorted; None when the folder is not there or holds none.

    Each pattern of `source.files` has to match: half of a data set must not pass for the whole.
    """
    folder = root / source.name
    if not folder.is_dir():
        return None
    there = _data_files(folder.iterdir())
    if not source.files:
        return there or None
    matches = [_data_files(folder.glob(pattern)) for pattern in source.files]
    for pattern, found in zip(source.files, matches, strict=True):
        if not found:
            raise DataError(
                problem(
                    f"data.sources.{source.name}.files",
                    f"{pattern!r}, which matches no data file in {folder}",
                    f"names or patterns of {KINDS}",
                    ", ".join(path.name for path in there[:5]) or "leaving `files` empty and adding data files",
                )
            )
    return sorted({path for found in matches for path in found})


def present(wanted: Mapping[str, SourceConfig], root: Path) -> dict[str, SourceConfig]:
    """Those of a suite's sources that can be had. One without a hub id and without its folder is left out, and the log says so."""
    there = {}
    for name, source in wanted.items():
        if source.toy is not None or source.hub_id is not None or locate(source, root):
            there[name] = source
        else:
            log.info("%s is not below %s and has no hub id: it is left out of the evaluation", name, root)
    return there


_toys: dict[tuple[object, ...], str] = {}
"""Digests of generated sources: each is as much work as generating it."""


def digest(source: SourceConfig, root: Path, cache: Path | None = None) -> str:
    """A hash of the bytes that `rows` reads, so that a cell knows when its data changed. No row is parsed.

    The hub counts as its id and revision: the commit that the revision stands for.
    `cache` is a JSON file that remembers the hashes of big files by path, size and time of change.
    """
    if source.toy is not None:
        known = (source.name, source.language, *astuple(source.toy))
        if known not in _toys:
            _toys[known] = _digest_rows(_toy_rows(source, source.toy))
        return _toys[known]
    files = locate(source, root)
    if not files and source.hub_id is not None and Path(source.hub_id).is_dir():
        files = _data_files(Path(source.hub_id).rglob("*"))
    if files:
        hashes = _hash_files(files, cache)
        return _hash("files", *(part for path in files for part in (reading.kind(path) or "", hashes[str(path)])))
    if source.hub_id is None:
        raise _not_found(source, root, "no hub_id to fetch it by")
    return _hash("hub", source.hub_id, _commit(source, source.hub_id, root), *source.hub_files)


def digest_files(files: list[Path], cache: Path | None = None) -> str:
    """A hash of names and bytes, for a folder whose file names matter: a model's."""
    hashes = _hash_files(files, cache)
    return _hash("folder", *(part for path in files for part in (path.name, hashes[str(path)])))


def _data_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.name not in _NOT_DATA and not path.name.startswith(".") and reading.kind(path) and path.is_file()
    )


def _encoding(source: SourceConfig) -> str:
    try:
        return codecs.lookup(source.encoding).name
    except LookupError as error:
        where = f"data.sources.{source.name}.encoding"
        raise ConfigError(problem(where, repr(source.encoding), "a text encoding", "utf-8 or gb18030")) from error


def _toy_rows(source: SourceConfig, toy: ToyConfig) -> Iterator[Row]:
    from babeltune.data import toyworld

    if toy.documents and toy.language is not None:
        generated = toyworld.documents(toy.rows, seed=toy.seed, languages=(toy.language,))
    elif toy.documents:
        generated = toyworld.documents(toy.rows, seed=toy.seed)
    else:
        language = toy.language or source.language
        generated = toyworld.instructions(language, toy.rows, wrong_fraction=toy.wrong_fraction, seed=toy.seed)
    return (Row(f"toy/{source.name}:{number}", fields) for number, fields in enumerate(generated, start=1))


def _hub_rows(source: SourceConfig, hub_id: str, root: Path) -> Iterator[Row | Dropped]:
    """Rows streamed by the `datasets` library: nothing is mapped and nothing is kept, so no stale cache can answer."""
    import datasets

    number = 0
    try:
        stream = datasets.load_dataset(
            hub_id, revision=source.revision, data_files=source.hub_files or source.files or None, split="train", streaming=True
        )
        for fields in stream:
            number += 1
            yield reading.checked(f"{hub_id}:{number}", fields)
    except Exception as error:  # the library raises some forty kinds, the network's among them
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        place = f" after row {number}" if number else ""
        raise _not_found(source, root, f"{hub_id} on the hub could not be read{place} ({words})") from error


def _not_found(source: SourceConfig, root: Path, hub: str) -> DataError:
    folder = root / source.name
    return DataError(
        problem(
            f"data.sources.{source.name}",
            f"no data files in {folder}, and {hub}",
            "rows in one of the two places",
            f"putting {KINDS} into {folder} (paths.data=FOLDER names another root), "
            f"or giving data.sources.{source.name}.hub_id (and revision) a data set that can be reached",
        )
    )


def _commit(source: SourceConfig, hub_id: str, root: Path) -> str:
    """The commit that a hub data set stands at. Without it a cell could not say what it was trained on."""
    if source.revision is not None and len(source.revision) == 40:
        return source.revision
    try:
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(hub_id, revision=source.revision, timeout=10).sha)
    except Exception as error:  # the library's and the network's many kinds
        raise _not_found(source, root, f"{hub_id} on the hub could not be reached ({type(error).__name__})") from error


def _digest_rows(rows: Iterable[Row]) -> str:
    return _hash("toy", *(json.dumps(row.fields, ensure_ascii=False, sort_keys=True) for row in rows))


def _hash(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode()
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()


def _hash_files(files: list[Path], cache: Path | None) -> dict[str, str]:
    """Path to the sha256 of the file's bytes."""
    known = _read_cache(cache)
    hashes, fresh = {}, {}
    for path in files:
        stat = path.stat()
        key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        if key not in known:
            with path.open("rb") as stream:
                known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            if stat.st_size >= _BIG_FILE_BYTES:
                fresh[key] = known[key]
        hashes[str(path)] = known[key]
    if cache is not None and fresh:
        _write_cache(cache, fresh)
    return hashes


def _read_cache(cache: Path | None) -> dict[str, str]:
    """Whatever is wrong with the cache, it is only a cache."""
    try:
        known = json.loads(cache.read_text("utf-8")) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path, fresh: dict[str, str]) -> None:
    """Whole or not at all; of two processes that write at once, one's entries are hashed again."""
    temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(_read_cache(cache) | fresh, indent=0), "utf-8")
        temporary.replace(cache)
    except OSError as error:
        log.warning("%s cannot be written (%s): hashes of big files are not remembered", cache, error)
