"""Where rows are found, and by what a change of them is noticed."""

import json
import os
import subprocess
import sys

import pytest

from babeltune.data import sources
from babeltune.errors import DataError
from babeltune.options import SourceConfig, ToyConfig

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


def test_files_are_found_sorted_and_notes_are_not_data(tmp_path, write):
    for name in (
        "b.jsonl",
        "a.txt",
        "META.json",
        "STATS.json",
        ".hidden.jsonl",
        "README.md",
        "c.parquet",
        "d.json.zst",
    ):
        write(name, b"")
    found = sources.locate(source(), tmp_path)
    assert [path.name for path in found] == ["a.txt", "b.jsonl", "c.parquet", "d.json.zst"]


def test_files_narrow_what_is_read_and_each_has_to_match(tmp_path, write):
    for name in ("a.jsonl", "b1.jsonl", "b2.jsonl"):
        write(name, b"")
    found = sources.locate(source(files=["b*.jsonl", "b1.jsonl"]), tmp_path)
    assert [path.name for path in found] == ["b1.jsonl", "b2.jsonl"]
    with pytest.raises(DataError) as caught:
        sources.locate(source(files=["a.jsonl", "c.jsonl"]), tmp_path)
    assert str(caught.value) == (
        f"data.sources.mine.files: got 'c.jsonl', which matches no data file in {tmp_path / 'mine'}; expected names or "
        "patterns of *.jsonl, *.json, *.txt (each also .gz or .zst) or *.parquet; try a.jsonl, b1.jsonl, b2.jsonl"
    )


def test_a_source_that_is_nowhere_names_both_places_and_both_ways_out(tmp_path):
    assert sources.locate(source(), tmp_path) is None
    with pytest.raises(DataError) as caught:
        sources.rows(source(), tmp_path)
    assert str(caught.value) == (
        f"data.sources.mine: got no data files in {tmp_path}/mine, and no hub_id to fetch it by; expected rows in "
        "one of the two places; try putting *.jsonl, *.json, *.txt (each also .gz or .zst) or *.parquet into "
        f"{tmp_path}/mine (paths.data=FOLDER names another root), or giving data.sources.mine.hub_id (and revision) "
        "a data set that can be reached"
    )


def test_a_folder_stands_in_for_the_hub_and_leaves_no_cache(tmp_path, monkeypatch):
    import datasets

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "train.jsonl").write_bytes(jsonl(LINES["vi"]))
    rows = read(tmp_path, hub_id=str(hub))
    assert fields(rows) == LINES["vi"]
    assert rows[2].place == f"{hub}:3"
    (hub / "train.jsonl").write_bytes(jsonl(LINES["zh"]))
    assert fields(read(tmp_path, hub_id=str(hub))) == LINES["zh"], "a row that was changed must not come from a cache"
    assert not list(cache.rglob("*.arrow"))


def test_files_of_the_hub_narrow_what_is_read_there_and_not_in_the_folder(tmp_path, monkeypatch, write):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub = tmp_path / "hub"
    hub.mkdir()
    for language in ("vi", "zh"):
        (hub / f"{language}.jsonl").write_bytes(jsonl(LINES[language]))
    assert fields(read(tmp_path, hub_id=str(hub), hub_files=["zh.jsonl"])) == LINES["zh"]
    write("en.jsonl", jsonl(LINES["en"]))
    assert fields(read(tmp_path, hub_id=str(hub), hub_files=["zh.jsonl"])) == LINES["en"]


def test_what_the_hub_says_becomes_a_sentence(tmp_path, monkeypatch):
    import datasets

    def offline(*args, **kwargs):
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError) as caught:
        read(tmp_path, hub_id="someone/alpaca-vi")
    assert str(caught.value).startswith(
        f"data.sources.mine: got no data files in {tmp_path}/mine, and someone/alpaca-vi on the hub could not be read "
        "(ConnectionError: Couldn't reach the hub); expected rows in one of the two places; try putting "
    )
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize(("documents", "language"), [(False, None), (False, "vi"), (True, None), (True, "vi")])
def test_a_generated_source_has_its_rows(tmp_path, documents, language):
    toy = ToyConfig(rows=12, documents=documents, language=language)
    rows = read(tmp_path, toy=toy)
    assert len(rows) == 12
    assert rows[11].place == "toy/mine:12"
    assert ("text" in rows[0].fields) == documents
    assert language is None or not documents or {row.fields["language"] for row in rows} == {"vi"}


def test_a_digest_knows_bytes_and_order_and_nothing_else(tmp_path, write):
    write("a.jsonl", b"1\n")
    write("b.jsonl", b"2\n")
    first = sources.digest(source(), tmp_path)
    os.utime(tmp_path / "mine" / "a.jsonl", (1, 1))
    assert sources.digest(source(title="other", language="en"), tmp_path) == first
    (tmp_path / "mine" / "b.jsonl").rename(tmp_path / "mine" / "c.jsonl")
    assert sources.digest(source(), tmp_path) == first, "the name of a file is not its content"
    (tmp_path / "mine" / "c.jsonl").rename(tmp_path / "mine" / "0.jsonl")
    assert sources.digest(source(), tmp_path) != first
    write("a.jsonl", b"3\n")
    assert sources.digest(source(files=["a.jsonl"]), tmp_path) != first


def test_a_digest_changes_with_every_byte(tmp_path, write):
    digests = set()
    for byte in range(256):
        write("a.jsonl", bytes([byte]))
        digests.add(sources.digest(source(), tmp_path))
    assert len(digests) == 256


def test_hashes_of_big_files_are_remembered_until_the_file_changes(tmp_path, write, monkeypatch):
    cache = tmp_path / "cache" / "digests.json"
    path = write("data.jsonl", b"x" * 2**20)
    first = sources.digest(source(), tmp_path, cache)
    assert list(json.loads(cache.read_text())) == [f"{path}:{2**20}:{path.stat().st_mtime_ns}"]
    with monkeypatch.context() as patch:
        patch.setattr(sources.hashlib, "file_digest", None)
        assert sources.digest(source(), tmp_path, cache) == first
    write("data.jsonl", b"y" * 2**20)
    assert sources.digest(source(), tmp_path, cache) != first
    cache.write_text("{broken")
    assert sources.digest(source(), tmp_path, cache) != first


def test_a_digest_of_generated_rows_follows_the_rows(tmp_path):
    toy = ToyConfig(rows=5, language="zh")
    assert sources.digest(source(toy=toy), tmp_path) == sources.digest(source(toy=toy, name="other"), tmp_path)
    assert sources.digest(source(toy=toy), tmp_path) != sources.digest(source(toy=ToyConfig(rows=6, language="zh")), tmp_path)


def test_a_digest_of_the_hub_follows_its_commit(tmp_path, monkeypatch):
    import huggingface_hub

    pinned = sources.digest(source(hub_id="a/b", revision="0" * 40), tmp_path)
    assert pinned != sources.digest(source(hub_id="a/b", revision="1" * 40), tmp_path)
    assert pinned != sources.digest(source(hub_id="a/b", revision="0" * 40, hub_files=["a.json"]), tmp_path)

    def info(self, hub_id, revision, timeout):
        return huggingface_hub.hf_api.DatasetInfo(
            id=hub_id, sha="0" * 40, tags=[], downloads=0, likes=0, private=False, disabled=False
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    assert sources.digest(source(hub_id="a/b"), tmp_path) == pinned


def test_a_data_set_that_is_neither_here_nor_reachable_is_refused_at_once(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", None)
    with pytest.raises(DataError) as caught:
        sources.digest(source(hub_id="a/b"), tmp_path)
    assert f"got no data files in {tmp_path / 'mine'}, and a/b on the hub could not be reached (TypeError)" in str(caught.value)
    assert len(sources.digest(source(hub_id="a/b", revision="0" * 40), tmp_path)) == 64


def test_the_text_half_of_data_imports_neither_torch_nor_its_friends():
    names = ("sources", "reading", "formats", "filters", "mixing", "templates")
    code = f"import sys; {'; '.join(f'import babeltune.data.{name}' for name in names)}; " + (
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'zstandard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
