"""A chain of cells: a base's vocabulary is extended, its embeddings pretrained, and what comes of that is tuned and judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from babeltune import cells, runner, vocabularies
from babeltune.config import compose
from babeltune.data import lines, preparing
from babeltune.errors import ConfigError
from babeltune.modeling.loading import fresh_model, load_tokenizer
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import RunConfig
from babeltune.results import RunResult, read_result
from tests.training import jobs

DOCUMENTS = ("data=toy_documents", "data.sources.toy_documents.toy.rows=60", "template=plain", "data.max_tokens=400")
USUAL = ("scale=paper", "logger=none", "evaluation=none", "optimizer.max_steps=3")
JUDGED = ("evaluation=toy_zh", "evaluation.max_items=3", "decoding.max_new_tokens=4")


def extension(outputs: Path, *more: str) -> list[str]:
    own = ["stage=extend_vocabulary", "stage.size=200", "model.from_cell=null", f"model.path={outputs / 'base'}"]
    return [*USUAL, *DOCUMENTS, *own, "template=alpaca", f"paths.outputs={outputs}", *more]


@pytest.fixture(scope="module", params=["tied", "untied"])
def outputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a base that knows English and has weights in bfloat16."""
    random = torch.get_rng_state()
    outputs = tmp_path_factory.mktemp("outputs")
    tokenizer = train_tokenizer(["What is the capital of the country? The capital is in the north."] * 3, 300)
    keys = jobs.LLAMA | {"tie_word_embeddings": request.param == "tied"}
    for part in (tokenizer, fresh_model(keys, len(tokenizer), seed=0).bfloat16()):
        part.save_pretrained(outputs / "base")
    yield outputs
    torch.set_rng_state(random)


@pytest.fixture(scope="module")
def chain(outputs: Path) -> list[RunResult]:
    """The results of the three cells, each standing on the one before."""
    extended = runner.run(compose(extension(outputs)))
    below = f"model.from_cell={outputs / extended.cell}"
    stage = ["stage=pretrain", "adapter=embeddings", f"paths.outputs={outputs}", below]
    pretrained = runner.run(compose([*USUAL, *DOCUMENTS, *stage]))
    below = f"model.from_cell={outputs / pretrained.cell}"
    own = ["data=toy_zh", "data.max_rows=20", "data.max_tokens=224", f"paths.outputs={outputs}", below]
    words = [word for word in USUAL if word != "evaluation=none"]
    return [extended, pretrained, runner.run(compose([*words, *own, *JUDGED]))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_base_is_in_the_extended_model_to_the_last_bit(outputs: Path, chain: list[RunResult]) -> None:
    old, new = weights(outputs / "base"), weights(outputs / chain[0].cell / "model")
    assert old.keys() == new.keys()
    facts = chain[0].training["vocabulary"]
    for name, tensor in old.items():
        assert new[name].dtype == torch.bfloat16
        assert torch.equal(new[name][: len(tensor)], tensor)
        grows = "embed_tokens" in name or "lm_head" in name
        assert len(new[name]) == (facts["size"] if grows else len(tensor))


def test_each_identity_holds_the_one_below(outputs: Path, chain: list[RunResult]) -> None:
    read = [json.loads((outputs / result.cell / "identity.json").read_text()) for result in chain]
    assert read[1]["parts"]["base"] == read[0]["identity"]
    assert read[2]["parts"]["base"] == read[1]["identity"]


def test_an_adapter_names_the_folder_of_the_model_below_it(outputs: Path, chain: list[RunResult]) -> None:
    pretrained = json.loads((outputs / chain[1].cell / "adapter" / "adapter.json").read_text())
    assert pretrained["base_model_name_or_path"] == str((outputs / chain[0].cell / "model").resolve())
    tuned = json.loads((outputs / chain[2].cell / "adapter" / "adapter_config.json").read_text())
    assert tuned["base_model_name_or_path"] == str((outputs / chain[1].cell / "model").resolve())


def test_embeddings_that_were_pretrained_are_those_of_the_model_that_is_tuned(outputs: Path, chain: list[RunResult]) -> None:
    trained = load_file(outputs / chain[1].cell / "adapter" / "adapter.safetensors")
    below, whole = weights(outputs / chain[0].cell / "model"), weights(outputs / chain[1].cell / "model")
    assert any("embed_tokens" in name for name in trained)
    for name, tensor in whole.items():
        expected = trained.get(name, below[name].float())
        assert torch.equal(tensor.float(), expected.float())
    assert any(not torch.equal(tensor, below[name].float()) for name, tensor in trained.items())


def test_lora_over_an_extended_base_loads_with_plain_peft(outputs: Path, chain: list[RunResult]) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = outputs / chain[2].cell / "adapter"
    tuned = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == chain[0].training["vocabulary"]["size"] == tuned.get_input_embeddings().weight.shape[0]
    base = AutoModelForCausalLM.from_pretrained(outputs / chain[1].cell / "model").eval()
    ids = torch.tensor([[len(tokenizer) - 1, 5, len(tokenizer) - 2]])
    with torch.no_grad():
        assert not torch.equal(tuned(input_ids=ids).logits, base(input_ids=ids).logits)
    assert chain[2].scores


def test_an_extended_cell_is_judged_like_any_other_and_trains_nothing_again(outputs: Path, chain: list[RunResult]) -> None:
    model = outputs / chain[0].cell / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    judged = runner.run(compose([*extension(outputs), *JUDGED]))
    assert judged.cell == chain[0].cell
    assert model.stat().st_mtime_ns == before
    assert all(score.n == 3 for score in judged.scores.values())
    assert judged.training["vocabulary"] == chain[0].training["vocabulary"]


def test_what_it_brings_is_in_the_result_and_printed(outputs: Path, chain: list[RunResult]) -> None:
    result = read_result(outputs / chain[0].cell)
    assert result is not None
    facts = result.training["vocabulary"]
    assert set(facts["languages"]) == {"zh", "vi", "en"}
    assert facts["languages"]["zh"]["measured_on"] == "rows learned from", "generated sources hold out nothing"
    before, after = facts["languages"]["zh"]["tokens_per_line"]
    assert after < before
    said = vocabularies.text(result)
    assert f"{facts['old_size']:,} → {facts['size']:,} pieces" in said
    assert f"{before:.1f}" in said
    assert f"{facts['learned']:,} pieces learned, {facts['overlapping']:,} of them there already, {facts['added']:,} added" in said


def identity(outputs: Path, *more: str) -> str:
    return cells.cell_of(compose(extension(outputs, *more))).identity


def test_what_changes_the_vocabulary_changes_the_identity_and_nothing_else_does(tmp_path: Path) -> None:
    outputs = tmp_path
    for part in (train_tokenizer(["a b c"], 300), fresh_model(jobs.LLAMA, 300, seed=0)):
        part.save_pretrained(outputs / "base")
    first = identity(outputs)
    changing = ["size=100", "coverage=0.9", "max_lines=5", "new_rows=mean", "scores=keep"]
    assert len({first, *(identity(outputs, f"stage.{word}") for word in changing), identity(outputs, "seed=1")}) == 7
    for word in ("adapter=none", "optimizer.epochs=9"):
        assert identity(outputs, word) == first
    assert cells.cell_of(compose(extension(outputs))).folder.name.startswith("toy_documents-tiny-extend_vocabulary-s0-")
    one, two = tmp_path / "one.model", tmp_path / "two.model"
    for path in (one, two):
        path.write_bytes(b"the same")
    given = identity(outputs, f"stage.pieces={one}")
    assert given == identity(outputs, f"stage.pieces={two}", "stage.size=7", "stage.max_lines=7") != first
    two.write_bytes(b"others")
    assert identity(outputs, f"stage.pieces={two}") != given


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stage.size=0"], "stage.size: got 0; expected a number above zero; try stage.size=1000"),
        (["stage.coverage=1.5"], "stage.coverage: got 1.5; expected a share above 0, at most 1; try stage.coverage=0.9995"),
        (
            ["data=none"],
            "stage=extend_vocabulary with data=none: got no text; expected a mix to learn pieces from; try data=tcm_books",
        ),
        (
            ["trainer=ddp_cpu"],
            "stage=extend_vocabulary with trainer=ddp_cpu: got 2 processes to learn one vocabulary; expected one; try trainer=cpu",
        ),
        (
            ["model=tiny_fresh"],
            "stage=extend_vocabulary with model.tokenizer=train: got pieces to add to pieces of the same text; "
            "expected a base with a tokenizer of its own; try model=tiny",
        ),
    ],
)
def test_what_cannot_be_extended_is_refused_before_anything_runs(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["stage=extend_vocabulary", "scale=paper", *words])
    assert str(caught.value) == sentence


def rows(root: Path, count: int) -> RunConfig:
    texts = [{"text": f"第{number}行。\n\n第{number}行的第二句。"} for number in range(count)]
    folder = root / "zh_text"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts), encoding="utf-8")
    own = ["stage=extend_vocabulary", "data=zh_text", "template=plain", "data.heldout_fraction=0.2", "data.max_rows=30"]
    place = ["model.from_cell=null", f"model.path={root / 'base'}"]
    return compose(["scale=paper", "logger=none", *own, *place, f"paths.data={root}", f"paths.outputs={root / 'out'}"])


def test_lines_to_measure_on_are_none_of_those_learned_from(tmp_path: Path) -> None:
    train_tokenizer(["第一行的第二句。"], 300).save_pretrained(tmp_path / "base")
    fresh_model(jobs.LLAMA, 300, seed=0).save_pretrained(tmp_path / "base")
    config = rows(tmp_path, 100)
    way = preparing.writing(config, load_tokenizer(config.model, None))
    text = lines.read(config, way, tmp_path / "cache")
    learned = list(text.learned_from())
    assert len(learned) == 60, "thirty documents of two lines, blank ones left out"
    heldout, left, again = text.samples(5000)
    assert [sample.group for sample in (heldout, left, again)] == list(lines.GROUPS)
    assert set(again.lines) == set(learned)
    assert not set(heldout.lines) & set(learned)
    assert not set(left.lines) & {*learned, *heldout.lines}
    assert len(heldout.lines) + len(left.lines) + 60 == 200
    few = text.samples(7)[0]
    assert len(few.lines) == 7
    assert set(few.lines) < set(heldout.lines)
    assert few.lines == text.samples(7)[0].lines
