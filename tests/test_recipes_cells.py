"""The papers' cells: every fine-tune there is, and no more; each sound at every scale, on the cells that it stands on."""

from __future__ import annotations

import functools
import json

import pytest
import yaml

from babeltune import cells
from babeltune.config import CONF, compose, dump
from babeltune.options import RunConfig
from tests.recipes import KINDS
from tests.sweeps import PAPERS, architecture, sweep_cells

FINE_TUNES = {"belle": 8, "cookbook": 37, "vi": 4, "flacuna": 1, "medchatzh": 2}  # spec 7
UNTUNED = {  # the bases that the papers' tables have beside what they made of them
    "cookbook_bases": {"llama_7b", "bloom_7b1", "moss_base", "vicuna_7b", "bloomz_7b1", "bloomz_7b1_mt", "moss_sft", "chatglm_6b"},
    "cookbook_datasets": {"bloom_7b1"},
    "flacuna": {"vicuna_13b_v11"},
    "flacuna_writing": {"vicuna_13b_v11"},
    "vi_chatbot": {"bloomz_7b1_mt", "vi_gptj_6b"},
}


@functools.cache
def paper(*overrides: str) -> RunConfig:
    return compose([*overrides, "scale=paper"])


@functools.cache
def quick(*overrides: str) -> RunConfig:
    return compose([*overrides, "scale=quick"])


def known_by(config: RunConfig) -> str:
    """What tells one fine-tune of the papers from another: model, data, adapter, template and recipe."""
    tree = dump(config)
    data = {key: tree["data"][key] for key in ("name", "take", "max_tokens", "loss_on", "layout")}
    parts = [tree["model"], data, tree["adapter"], tree["precision"], tree["stage"], tree["template"], tree["optimizer"]]
    return json.dumps(parts, sort_keys=True)


def test_the_sweeps_are_the_papers_fine_tunes_and_no_more() -> None:
    found: dict[str, set[str]] = {name: set() for name in FINE_TUNES}
    for name in PAPERS:
        for cell in sweep_cells(name):
            config = paper(*cell)
            if config.data.sources:
                found[name.split("_")[0]].add(known_by(config))
    assert {name: len(cells) for name, cells in found.items()} == FINE_TUNES
    assert len(set().union(*found.values())) == 52


def test_belles_sweep_is_all_of_its_table() -> None:
    whole = {known_by(paper(*cell)) for cell in sweep_cells("belle")}
    parts = {known_by(paper(*cell)) for name in PAPERS if name.startswith("belle_") for cell in sweep_cells(name)}
    assert len(whole) == 8
    assert whole == parts


def test_untuned_bases_are_in_the_sweeps_of_the_tables_that_have_them() -> None:
    found: dict[str, set[str]] = {}
    for name in PAPERS:
        for cell in sweep_cells(name):
            if not paper(*cell).data.sources:
                found.setdefault(name, set()).add(paper(*cell).model.name)
    assert found == UNTUNED


def test_questions_are_put_in_the_papers_words() -> None:
    cot = [paper(*cell) for cell in sweep_cells("cookbook_cot")]
    asked = [(config.data.name, config.evaluation.prompt) for config in cot]
    suffix = "{question}先思考，再决定"  # spec T10
    assert asked == [("zh_alpaca4", "{question}"), ("zh_alpaca4_cot", "{question}"), ("zh_alpaca4_cot", suffix)]
    assert len({known_by(config) for config in cot}) == 2, "asking otherwise trains nothing"
    writing = {paper(*cell).evaluation.prompt for cell in sweep_cells("flacuna_writing")}
    assert writing == {"{question}.\n\n{input}\nOutput:"}  # spec T5


def test_every_kind_of_the_papers_cells_is_run() -> None:
    tuned = {cell for name in PAPERS for cell in sweep_cells(name) if paper(*cell).data.sources}
    pretrained = {("experiment=medchatzh_books",), ("experiment=belle_pretrain",)}
    assert {kind(quick(*cell)) for cell in tuned | pretrained} == set(KINDS)
    for known, cell in KINDS.items():
        assert kind(quick(*(f"{key}={value}" for key, value in cell.items()))) == known


def kind(config: RunConfig) -> tuple[str, str, str]:
    return architecture(config), config.adapter.kind, config.stage.kind


def test_a_small_model_has_the_targets_of_the_model_whose_place_it_takes() -> None:
    from babeltune.modeling.loading import fresh_model
    from babeltune.modeling.places import linear_modules

    there: dict[str, set[str]] = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        small = card.get("standin", card["name"] if "fresh" in card else None)
        if small is None:
            continue
        if small not in there:
            fresh = paper(f"model={small.removesuffix('_fresh')}_fresh").model.fresh
            there[small] = set(linear_modules(fresh_model(fresh, 300, seed=0)))
        assert set(card["lora_targets"]) <= there[small], path.stem
        if "standin" in card:
            config = quick(f"model={path.stem}").model
            assert (config.name, config.lora_targets, config.path) == (card["name"], card["lora_targets"], None)


@pytest.mark.parametrize("name", PAPERS)
def test_every_cell_of_the_papers_is_sound_at_both_sizes(name: str) -> None:
    for cell in sweep_cells(name):
        cells.check(paper(*cell))
        small = quick(*cell)
        cells.check(small)
        assert small.model.path is None, "a laptop downloads no 7B model"
        assert small.model.name == paper(*cell).model.name


def test_a_stage_of_a_paper_stands_on_the_stage_before_it() -> None:
    mix = paper("experiment=medchatzh")
    books = cells.parent_config(mix)
    assert books is not None
    assert (books.data.name, books.stage.kind, books.model.name) == ("tcm_books", "pretrain", "baichuan_7b")
    general = cells.parent_config(paper("experiment=medchatzh_sequential"))
    assert general is not None
    assert known_by(general) == known_by(paper("experiment=medchatzh_general"))


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_a_stage_stands_on_the_stage_before_it_at_its_own_scale(scale: str) -> None:
    config: RunConfig | None = compose(["experiment=medchatzh_sequential", f"scale={scale}"])
    chain = []
    while config is not None:
        chain.append((config.model.name, config.data.name, config.scale.name))
        config = cells.parent_config(config)
    assert chain == [
        ("baichuan_7b_general", "medchat_medical", scale),
        ("baichuan_7b_cpt", "medchat_general", scale),
        ("baichuan_7b", "tcm_books", scale),
        ("tiny_fresh", "toy_documents", "smoke" if scale == "smoke" else "paper"),
    ]
