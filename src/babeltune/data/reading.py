"""Data files, row by row: JSON Lines, JSON arrays, parquet and text, plain or compressed.

The lines are read here and not by a data frame library: a broken row costs that row and names its `path:line`, and
strings stay strings.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from babeltune.errors import DataError, problem
from babeltune.records import Dropped, Row

T = TypeVar("T")

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no row of text, and holding it would cost memory."""

_BOM = "\ufeff"
_ESCAPES = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SPACE = re.compile(r"[ \t\r\n]*")


def kind(path: Path) -> str | None:
    """How a file is written, by its name: `jsonl`, `json`, `txt`, `parquet`; None for what is not data."""
    if path.suffix == ".parquet":
        return "parquet"
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    suffix = Path(name).suffix.removeprefix(".")
    return suffix if suffix in ("jsonl", "json", "txt") else None


def read(path: Path, encoding: str) -> Iterator[Row | Dropped]:
    """The rows of one file. A line that cannot be read is `Dropped`; a file that cannot be read on is a `DataError`."""
    match kind(path):
        case "parquet":
            return _parquet(path)
        case "txt":
            return _document(path, encoding)
        case "json" if _starts_an_array(path, encoding):
            return _array(path, encoding)
        case _:
            return _json_lines(path, encoding)


def _json_lines(path: Path, encoding: str) -> Iterator[Row | Dropped]:
    """JSON Lines. A `.json` file that is no array is read so too: many on the hub are."""
    json_reader = _Json()
    for number, line in _lines(path, encoding):
        row = _json_line(json_reader, f"{path}:{number}", line, "utf-8" if _is_wide(encoding) else encoding)
        if row is not None:
            yield row


def _json_line(json_reader: _Json, place: str, line: bytes | None, encoding: str) -> Row | Dropped | None:
    """None for a blank line."""
    if line is None:
        return _bad(place, "line too long", f"more than {MAX_LINE_BYTES:,} bytes")
    try:
        text = line.decode(encoding).removeprefix(_BOM).strip()
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} is not {encoding}"
        return _bad(place, "wrong encoding", detail)
    if "\0" in text:
        return _bad(place, "NUL character", f"at column {text.index(chr(0)) + 1}")
    try:
        return json_reader.line(place, text) if text else None
    except (ValueError, RecursionError) as error:
        return _bad(place, "invalid JSON" if line.endswith(b"\n") else "cut last line", _words(error))


def _array(path: Path, encoding: str) -> Iterator[Row | Dropped]:
    """One JSON array of objects. The file is held in memory while its rows are read."""
    text = _whole(path, encoding)
    json_reader, line, counted = _Json(), 1, 0
    at = _skip(text, text.index("[") + 1)
    goes_on = text[at : at + 1] != "]"
    while goes_on:
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, end = json_reader.element(f"{path}:{line}", text, at)
        except (ValueError, RecursionError) as error:
            _refuse_array(f"{path}:{getattr(error, 'lineno', line)}", _words(error))
        yield row
        at = _skip(text, end)
        goes_on = text[at : at + 1] == ","
        at = _skip(text, at + 1) if goes_on else at
    line += text.count("\n", counted, at)
    if text[at : at + 1] != "]":
        _refuse_array(f"{path}:{line}", "neither , nor ] after an element")
    if text[at + 1 :].strip():
        _refuse_array(f"{path}:{line}", "more text after the closing ]")


def _refuse_array(place: str, got: str) -> NoReturn:
    hint = "repairing the file or writing one object a line as .jsonl"
    raise DataError(problem(place, got, "one JSON array of objects", hint))


def _starts_an_array(path: Path, encoding: str) -> bool:
    with _open(path, encoding) as stream:
        head = _try(f"{path}:1", lambda: stream.read(4096))
    return head.decode(encoding, "ignore").lstrip(_BOM + " \t\r\n").startswith("[")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _document(path: Path, encoding: str) -> Iterator[Row | Dropped]:
    """The whole file is one document; its line ends become newlines."""
    text = _whole(path, encoding).replace("\r\n", "\n")
    before, nul, _ = text.partition("\0")
    if nul:
        yield _bad(f"{path}:{before.count(chr(10)) + 1}", "NUL character", "in a text document")
    else:
        yield Row(f"{path}:1", {"text": text})


def _whole(path: Path, encoding: str) -> str:
    with _open(path, encoding) as stream:
        content = _try(f"{path}:1", stream.read)
    try:
        return content.decode(encoding).removeprefix(_BOM)
    except UnicodeDecodeError as error:
        place = f"{path}:{content.count(bytes([10]), 0, error.start) + 1}"
        _refuse_encoding(place, f"byte 0x{content[error.start]:02x} at byte offset {error.start}", encoding, error)


def _parquet(path: Path) -> Iterator[Row | Dropped]:
    """The line of a place is the row's number."""
    import pyarrow.parquet as parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=256):
                for fields in batch.to_pylist():
                    number += 1
                    yield checked(f"{path}:{number}", fields)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            problem(f"{path}:{number + 1}", _words(error), "a whole parquet file", "fetching the file again")
        ) from error


def checked(place: str, fields: dict[str, Any]) -> Row | Dropped:
    """A row, unless a string in it holds what is no character."""
    for text in _strings(fields):
        if "\0" in text:
            return _bad(place, "NUL character", f"in {text[:40]!r}")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return _bad(place, "lone surrogate", f"in {text[max(0, error.start - 20) : error.start + 1]!r}")
    return Row(place, fields)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


class _Json:
    """JSON that also notices a key written twice, of which the standard library silently keeps the last."""

    def __init__(self) -> None:
        self._repeated: list[str] = []
        self._decode = json.JSONDecoder(object_pairs_hook=self._object).raw_decode

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            self._repeated += [key for key in fields if keys.count(key) > 1]
        return fields

    def line(self, place: str, text: str) -> Row | Dropped:
        """The only element of `text`; ValueError when that is no JSON."""
        row, end = self.element(place, text, 0)
        if end < len(text):
            raise ValueError(f"more text after the object at column {end + 1}")
        return row

    def element(self, place: str, text: str, at: int) -> tuple[Row | Dropped, int]:
        """The element that starts at `at`, and where it ends."""
        self._repeated.clear()
        value, end = self._decode(text, at)
        if not isinstance(value, dict):
            hint = "; a file that is one array is named .json" if text[at] == "[" else ""
            return _bad(place, "not an object", f"a JSON {type(value).__name__}{hint}"), end
        if self._repeated:
            return _bad(place, "duplicate key", repr(self._repeated[0])), end
        if _ESCAPES.search(text, at, end):
            return checked(place, value), end
        return Row(place, value), end


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, bytes | None]]:
    """Number and bytes of each line, None for one that is too long to hold. UTF-16 and UTF-32 come out as UTF-8."""
    with _open(path, encoding) as stream:
        source = io.BufferedReader(_Chunks(_recoded(stream, encoding))) if _is_wide(encoding) else stream
        number = 1
        while line := _try(f"{path}:{number}", lambda: source.readline(MAX_LINE_BYTES + 1)):
            is_long = len(line) > MAX_LINE_BYTES
            yield number, None if is_long else line
            while is_long and line and not line.endswith(b"\n"):
                line = _try(f"{path}:{number}", lambda: source.readline(MAX_LINE_BYTES))
            number += 1


def _is_wide(encoding: str) -> bool:
    """Whether a newline is more than one byte."""
    return encoding.startswith(("utf-16", "utf-32"))


def _open(path: Path, encoding: str) -> BinaryIO:
    """The file's bytes, decompressed."""
    stream = _try(str(path), lambda: _decompressed(path))
    try:
        start = _try(f"{path}:1", lambda: stream.peek(2**13))
        if encoding == "utf-8" and start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            _refuse_encoding(f"{path}:1", "the byte order mark of utf-16", encoding, None)
        if not encoding.startswith("utf") and _is_utf8(start):
            expected = f"text in {encoding}, as the source says"
            raise DataError(problem(f"{path}:1", "text in utf-8", expected, "setting the source's `encoding` to utf-8"))
    except DataError:
        stream.close()
        raise
    return stream


def _is_utf8(start: bytes) -> bool:
    """Whether a file's beginning is utf-8 beyond doubt. Other encodings read it too, as other characters.

    Two characters of GBK may pass for utf-8 by chance; sixteen bytes of any other encoding do not.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return len(text.encode()) - sum(map(str.isascii, text)) >= 16


def _decompressed(path: Path) -> io.BufferedReader:
    match path.suffix:
        case ".gz":
            return io.BufferedReader(gzip.open(path, "rb"))
        case ".zst":
            return io.BufferedReader(_Chunks(_zstandard(path)))
        case _:
            return path.open("rb")


class _Chunks(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            try:
                self._left = next(self._chunks)
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def _zstandard(path: Path) -> Iterator[bytes]:
    """The library's own reader ends quietly where a file was cut."""
    import zstandard

    new = zstandard.ZstdDecompressor().decompressobj
    frame, chunk, is_within = new(), b"", False
    with path.open("rb") as stream:
        while chunk := chunk or stream.read(2**16):
            try:
                yield frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            is_within, chunk = not frame.eof, frame.unused_data
            frame = frame if is_within else new()
    if is_within:
        raise EOFError("the compressed file ends before its end mark")


def _recoded(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    pieces = iter(lambda: stream.read(2**16), b"")
    return (text.encode() for text in codecs.iterdecode(pieces, encoding))


def _try(place: str, action: Callable[[], T]) -> T:
    """Run an action on a file's bytes; what the operating system or a decompressor says becomes a sentence."""
    try:
        return action()
    except UnicodeDecodeError as error:
        _refuse_encoding(place, _words(error), error.encoding, error)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(problem(place, _words(error), "a whole, readable file", "fetching the file again")) from error


def _refuse_encoding(place: str, got: str, encoding: str, cause: Exception | None) -> NoReturn:
    hint = "setting the source's `encoding` to what the file is written in (gb18030, utf-16, ...)"
    raise DataError(problem(place, got, f"text in {encoding}", hint)) from cause


def _bad(place: str, reason: str, detail: str) -> Dropped:
    return Dropped(place, reason, detail, is_bad=True)


def _words(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return " ".join(str(error).split()) or type(error).__name__
