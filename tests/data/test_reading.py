"""Rows from files of every kind: right, or refused with their place."""

import codecs
import gzip
import json
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from babeltune.data import reading, sources
from babeltune.errors import ConfigError, DataError
from babeltune.options import Format, SourceConfig
from babeltune.records import Dropped, Row

LINES = {
    "zh": [
        {"instruction": "请把“早上好”翻译成英文。", "input": "", "output": "Good morning. 😊"},
        {"instruction": "分类：猫、狗、玫瑰。", "input": "猫，狗，玫瑰", "output": "动物：猫、狗；植物：玫瑰。"},
        {"instruction": "3＋4等于多少？", "input": "", "output": "等于7。"},
    ],
    "vi": [
        {
            "instruction": "Đưa ra ba mẹo để giữ sức khỏe.",
            "input": "",
            "output": "1. Ăn uống cân bằng.\n2. Ngủ đủ giấc 💤",
        },
        {"instruction": "Viết lại câu sau.", "input": "Tôi thích a\u0306n phở.", "output": "Phở là món tôi thích."},
        {"instruction": "Thủ đô của Việt Nam?", "input": "", "output": "Hà Nội."},
    ],
    "en": [
        {"instruction": "Name a primary colour.", "input": "", "output": "Red ❤️\u200d🔥"},
        {"instruction": "When was it?", "input": "the café opened", "output": "2023-04-01"},
        {"instruction": "Quote U+2028.", "input": "", "output": "a\u2028b\u0085c"},
    ],
}
GOOD = {"instruction": "Hi", "output": "Xin chào"}
PACK = {"": lambda raw: raw, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def source(**options):
    return SourceConfig(**({"name": "mine", "language": "zh"} | options))


@pytest.fixture
def write(tmp_path):
    """Put bytes into the source's folder."""

    def write(name, content):
        path = tmp_path / "mine" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        return path

    return write


def jsonl(rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read(tmp_path, **options):
    return list(sources.rows(source(**options), tmp_path))


def fields(rows):
    return [dict(row.fields) for row in rows]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("language", LINES)
def test_lines_come_out_as_they_were_written(tmp_path, write, language, packing):
    path = write(f"data.jsonl{packing}", PACK[packing](jsonl(LINES[language])))
    rows = read(tmp_path)
    assert fields(rows) == LINES[language]
    assert [row.place for row in rows] == [f"{path}:1", f"{path}:2", f"{path}:3"]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("language", LINES)
def test_an_array_gives_the_same_rows_with_their_lines(tmp_path, write, language, packing):
    text = json.dumps(LINES[language], ensure_ascii=False, indent=1)
    path = write(f"data.json{packing}", PACK[packing](text.encode()))
    rows = read(tmp_path)
    assert fields(rows) == LINES[language]
    assert [row.place for row in rows] == [f"{path}:2", f"{path}:7", f"{path}:12"]


def test_parquet_gives_the_same_rows(tmp_path, write):
    import pyarrow
    from pyarrow import parquet

    path = write("data.parquet", b"")
    parquet.write_table(pyarrow.Table.from_pylist(LINES["vi"]), path)
    rows = read(tmp_path)
    assert fields(rows) == LINES["vi"]
    assert rows[2].place == f"{path}:3"


def test_a_broken_parquet_file_is_refused(tmp_path, write):
    path = write("data.parquet", b"PAR1 and no more")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}:1: got ")
    assert str(caught.value).endswith("; expected a whole parquet file; try fetching the file again")


FAULTS = {
    "cut last line": (b'{"instruction": "a", "outp', "cut last line", "Unterminated string starting at at column 22"),
    "cut in the middle": (
        b'{"instruction": "a", "outp\n',
        "invalid JSON",
        "Unterminated string starting at at column 22",
    ),
    "gb18030": ('{"output": "你好"}\n'.encode("gb18030"), "wrong encoding", "byte 0xc4 at byte 13 is not utf-8"),
    "invalid utf-8": (b'{"output": "\xff"}\n', "wrong encoding", "byte 0xff at byte 13 is not utf-8"),
    "NUL": (b'{"output": "a\0b"}\n', "NUL character", "at column 14"),
    "escaped NUL": (rb'{"output": "a\u0000b"}' + b"\n", "NUL character", "in 'a\\x00b'"),
    "lone surrogate": (rb'{"turns": [{"value": "ok \ud83d"}]}' + b"\n", "lone surrogate", "in 'ok \\ud83d'"),
    "duplicate key": (b'{"output": "a", "output": "b"}\n', "duplicate key", "'output'"),
    "duplicate key inside": (b'{"turns": [{"from": "a", "from": "b"}]}\n', "duplicate key", "'from'"),
    "not an object": (b'"text"\n', "not an object", "a JSON str"),
    "array in jsonl": (b'[{"a": 1}]\n', "not an object", "a JSON list; a file that is one array is named .json"),
    "two objects": (b'{"a": "1"}{"a": "2"}\n', "invalid JSON", "more text after the object at column 11"),
    "huge number": (b'{"a": ' + b"9" * 5000 + b"}\n", "invalid JSON", None),
    "nested too deeply": (b'{"a": ' + b"[" * 100_000 + b"\n", "invalid JSON", "nested too deeply"),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_line_costs_itself_alone_and_is_named(tmp_path, write, fault, packing):
    broken, reason, detail = FAULTS[fault]
    after = jsonl([GOOD]) if broken.endswith(b"\n") else b""
    path = write(f"data.jsonl{packing}", PACK[packing](jsonl([GOOD]) + broken + after))
    first, bad, *rest = read(tmp_path)
    assert isinstance(bad, Dropped)
    assert bad.is_bad
    assert (bad.place, bad.reason) == (f"{path}:2", reason)
    assert detail is None or bad.detail == detail
    assert fields([first, *rest]) == [GOOD] * (2 if after else 1)


def test_blank_lines_marks_and_line_ends_of_windows_change_nothing(tmp_path, write):
    text = "\ufeff" + '{"output": "一"}\r\n\r\n   \n{"output": "hai"}\r\n\ufeff{"output": "3"}'
    path = write("data.jsonl", text.encode())
    rows = read(tmp_path)
    assert [(row.place, row.fields["output"]) for row in rows] == [
        (f"{path}:1", "一"),
        (f"{path}:4", "hai"),
        (f"{path}:5", "3"),
    ]


def test_strings_stay_strings_however_late_a_type_flips(tmp_path, write):
    rows = [{"output": "2023-04-01T00:00:00Z"}] * 15_000 + [
        {"output": 7},
        {"output": "3.0", "more": None},
        {"output": "007"},
    ]
    write("data.jsonl", jsonl(rows))
    assert fields(read(tmp_path)) == rows


def test_an_empty_file_has_no_rows(tmp_path, write):
    write("data.jsonl", b"")
    assert read(tmp_path) == []


def test_half_an_escaped_pair_is_told_from_a_whole_one(tmp_path, write):
    write("data.jsonl", rb'{"output": "\ud83d\ude00 \\u0000"}')
    assert fields(read(tmp_path)) == [{"output": "😀 \\u0000"}]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le", "utf-32", "cp1258"])
def test_a_declared_encoding_is_read(tmp_path, write, encoding):
    rows = [{"output": "Hà Nội" if encoding == "cp1258" else "ਊ上਀海，phở 😀"}] * 3
    rows[0] = {"output": "Viêt Nam"}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if encoding == "cp1258":
        text = text.replace("ộ", "ô\u0323").replace("à", "à")
        rows = [json.loads(line) for line in text.splitlines()]
    write("data.jsonl", text.encode(encoding))
    assert fields(read(tmp_path, encoding=encoding)) == rows


def test_utf_16_is_not_guessed(tmp_path, write):
    path = write("data.jsonl", jsonl([GOOD]).decode().encode("utf-16"))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{path}:1: got the byte order mark of utf-16; expected text in utf-8; "
        "try setting the source's `encoding` to what the file is written in (gb18030, utf-16, ...)"
    )


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "big5", "cp1258"])
@pytest.mark.parametrize("name", ["book.txt", "rows.jsonl", "rows.json"])
def test_utf_8_is_not_read_as_anything_else(tmp_path, write, name, encoding):
    text = "上古之人，其知道者，法于阴阳，和于术数。" if encoding != "cp1258" else "Thủ đô của Việt Nam là Hà Nội, ở miền Bắc."
    row = json.dumps({"text": text}, ensure_ascii=False)
    path = write(name, {"book.txt": text, "rows.jsonl": f"{row}\n", "rows.json": f"[{row}]"}[name].encode())
    with pytest.raises(DataError) as caught:
        read(tmp_path, encoding=codecs.lookup(encoding).name, format=Format.text)
    name = codecs.lookup(encoding).name
    assert str(caught.value) == (
        f"{path}:1: got text in utf-8; expected text in {name}, as the source says; try setting the source's `encoding` to utf-8"
    )


def test_a_few_characters_that_are_utf_8_by_chance_are_read_as_declared(tmp_path, write):
    assert "模摩魔".encode("gb18030").decode("utf-8")
    path = write("book.txt", "模摩魔".encode("gb18030"))
    assert read(tmp_path, encoding="gb18030", format=Format.text) == [Row(f"{path}:1", {"text": "模摩魔"})]


def test_another_encoding_than_the_declared_one_is_never_tried(tmp_path, write):
    path = write("book.txt", ("上古之人。" * 3).encode("gb18030")[:-1] + b"\xff")
    with pytest.raises(DataError) as caught:
        read(tmp_path, encoding="gb18030", format=Format.text)
    assert str(caught.value) == (
        f"{path}:1: got byte 0xa1 at byte offset 28; expected text in gb18030; "
        "try setting the source's `encoding` to what the file is written in (gb18030, utf-16, ...)"
    )


def test_an_encoding_that_is_none_is_refused(tmp_path, write):
    write("data.jsonl", jsonl([GOOD]))
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, encoding="gb18O30")
    assert str(caught.value) == ("data.sources.mine.encoding: got 'gb18O30'; expected a text encoding; try utf-8 or gb18030")


def test_a_document_is_one_row_with_newlines(tmp_path, write):
    path = write("book.txt.gz", gzip.compress("论曰：\r\n上工治未病。".encode("gb18030")))
    assert read(tmp_path, encoding="gb18030", format=Format.text) == [Row(f"{path}:1", {"text": "论曰：\n上工治未病。"})]


def test_a_document_in_another_encoding_is_refused_with_its_offset(tmp_path, write):
    path = write("book.txt", b"one\ntwo " + "论".encode("gb18030"))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{path}:2: got byte 0xc2 at byte offset 8; expected text in utf-8; "
        "try setting the source's `encoding` to what the file is written in (gb18030, utf-16, ...)"
    )


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ('[{"a": "b"},\n {"a": "c"', 2, "Expecting ',' delimiter at column 11"),
        ('[{"a": "b"},\n]', 2, "Expecting value at column 1"),
        ('[{"a": "b"}\n {"a": "c"}]', 2, "neither , nor ] after an element"),
        ('[{"a": "b"}]\n]', 1, "more text after the closing ]"),
        ("[", 1, "Expecting value at column 2"),
    ],
)
def test_a_broken_array_is_refused_where_it_breaks(tmp_path, write, text, line, got):
    path = write("data.json", text.encode())
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{path}:{line}: got {got}; expected one JSON array of objects; "
        "try repairing the file or writing one object a line as .jsonl"
    )


def test_an_element_of_an_array_that_is_no_row_costs_itself_alone(tmp_path, write):
    path = write("data.json", b'[{"a": "1"},\n"text",\n{"a": "1", "a": "2"},\n{"a": "2"}]')
    rows = read(tmp_path)
    assert [(row.place, row.reason) for row in rows[1:3]] == [
        (f"{path}:2", "not an object"),
        (f"{path}:3", "duplicate key"),
    ]
    assert fields([rows[0], rows[3]]) == [{"a": "1"}, {"a": "2"}]


def test_json_lines_in_a_json_file_are_read_as_lines(tmp_path, write):
    write("data.json", b"\n" + jsonl(LINES["en"]))
    assert fields(read(tmp_path)) == LINES["en"]


@pytest.mark.parametrize(("name", "cut"), [("data.jsonl.gz", 40), ("data.jsonl.zst", 40), ("data.jsonl.zst", 12)])
def test_a_cut_compressed_file_is_refused(tmp_path, write, name, cut):
    content = jsonl([GOOD | {"n": n} for n in range(5000)])
    write(name, PACK[name[len("data.jsonl") :]](content)[:-cut])
    with pytest.raises(DataError, match=r"data\.jsonl\.\w+:\d+: got .* expected a whole, readable file"):
        read(tmp_path)


def test_a_file_that_only_claims_to_be_compressed_is_refused(tmp_path, write):
    write("data.jsonl.zst", b"plain text\n")
    with pytest.raises(DataError, match=r"data\.jsonl\.zst:1: got .* expected a whole, readable file"):
        read(tmp_path)


def test_frames_and_members_that_follow_one_another_are_all_read(tmp_path, write):
    for packing in (".gz", ".zst"):
        write(f"data.jsonl{packing}", PACK[packing](jsonl([GOOD])) + PACK[packing](jsonl([GOOD])))
    assert fields(read(tmp_path)) == [GOOD] * 4


def test_a_line_of_100_megabytes_is_refused_without_being_held(tmp_path, write):
    path = write("data.jsonl", jsonl([GOOD]) + b'{"output": "' + b"x" * 100_000_000 + b'"}\n' + jsonl([GOOD]))
    tracemalloc.start()
    rows = read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows[1] == Dropped(f"{path}:2", "line too long", "more than 16,777,216 bytes", is_bad=True)
    assert fields([rows[0], rows[2]]) == [GOOD, GOOD]
    assert peak < 64 * 2**20


def test_memory_does_not_grow_with_the_rows(tmp_path, write):
    write("data.jsonl", jsonl([{"output": "x" * 1000}] * 20_000))
    tracemalloc.start()
    assert sum(1 for _ in sources.rows(source(), tmp_path)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_json_can_say_comes_back(tmp_path_factory, rows, is_ascii):
    root = tmp_path_factory.mktemp("any")
    (root / "mine").mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in rows)
    (root / "mine" / "a.jsonl").write_text(lines, "utf-8", newline="")
    (root / "mine" / "b.json").write_text(json.dumps(rows, ensure_ascii=is_ascii, indent=2), "utf-8", newline="")
    assert fields(read(root)) == rows + rows


def test_the_limit_on_a_line_counts_the_line_itself(tmp_path, write, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 20)
    write("data.jsonl", b'{"a": "1234567890"}\n{"a": "12345678901"}\n{"a": "1"}\n')
    rows = read(tmp_path)
    assert [isinstance(row, Row) for row in rows] == [True, False, True]
