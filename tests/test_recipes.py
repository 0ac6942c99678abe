"""The papers' recipes: every value as printed."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import yaml

from babeltune import cells
from babeltune.config import CONF, compose, dump
from babeltune.data.templates import TEMPLATES
from babeltune.options import RunConfig

BELLE = {  # spec B2 full parameters, B3 the rest, B5 betas, B6 format, B10 decoding
    "adapter.kind": "none",
    "precision.kind": "bf16",
    "stage.kind": "tune",
    "template.name": "belle",
    "data.max_tokens": 2048,
    "data.loss_on": "answers",
    "optimizer.learning_rate": 5e-6,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": None,
    "optimizer.warmup_fraction": 0.03,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 3.0,
    "optimizer.max_steps": None,
    "optimizer.global_batch": 32,
    "optimizer.clip": 1.0,
    "decoding.sample": True,
    "decoding.temperature": 0.001,
    "decoding.max_new_tokens": 1024,
}
VI = {  # spec V3 adapter, V5 base, V6 optimizer, V7 schedule, V8 length, V9 loss, J19 decoding
    "adapter.kind": "lora",
    "adapter.rank": 8,
    "adapter.alpha": 16.0,
    "adapter.dropout": 0.05,
    "adapter.targets": [],
    "precision.kind": "int8",
    "stage.kind": "tune",
    "data.max_tokens": 512,
    "data.loss_on": "everything",
    "optimizer.learning_rate": 3e-4,
    "optimizer.schedule": "linear",
    "optimizer.warmup_steps": 100,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 2.0,
    "optimizer.max_steps": None,
    "optimizer.global_batch": 128,
    "decoding.sample": True,
    "decoding.temperature": 0.5,
    "decoding.top_k": 20,
    "decoding.repetition_penalty": 1.2,
    "decoding.max_new_tokens": 256,
}
BLOOMZ = {"model.path": "bigscience/bloomz-7b1-mt", "model.lora_targets": ["query_key_value"]}  # spec V1, V3
GPTJ = {"model.path": "VietAI/gpt-j-6B-vietnamese-news", "model.lora_targets": ["q_proj", "v_proj"]}  # spec V1, V3
CHAT = {"data.name": "vi_chat", "template.name": "vi_chat"}  # spec T1
DOCTOR = {"data.name": "vi_doctor", "template.name": "vi_doctor"}  # spec T2
FLACUNA = {  # spec F1 base, F2 adapter, F3 precision, F4-F7 steps, F8 length, F10 split, F12 loss, F13 decoding
    "model.path": "lmsys/vicuna-13b-v1.1",
    "model.lora_targets": ["q_proj", "v_proj"],
    "data.name": "flan_mini",
    "adapter.kind": "lora",
    "adapter.rank": 8,
    "adapter.alpha": 16.0,
    "adapter.dropout": 0.05,
    "precision.kind": "int8",
    "template.name": "vicuna",
    "data.max_tokens": 1280,
    "data.heldout_fraction": 0.005,
    "data.loss_on": "answers",
    "optimizer.learning_rate": 2e-5,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 3000,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 1.0,
    "optimizer.global_batch": 128,
    "optimizer.clip": 1.0,
    "decoding.sample": True,
    "decoding.temperature": 0.75,
    "decoding.top_k": 8,
    "decoding.min_new_tokens": 100,
    "decoding.max_new_tokens": 500,
}
BOOKS = {  # spec M1 base, M2 stage, M4 optimizer
    "model.path": "fireballoon/baichuan-llama-7b",
    "data.name": "tcm_books",
    "adapter.kind": "none",
    "precision.kind": "bf16",
    "stage.kind": "pretrain",
    "template.name": "plain",
    "evaluation.kind": "none",
    "data.max_tokens": 2048,
    "optimizer.learning_rate": 2e-5,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": None,
    "optimizer.warmup_fraction": 0.05,
    "optimizer.weight_decay": 1e-5,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 1.0,
    "optimizer.global_batch": 32,
}
MEDCHATZH = {  # spec M3 stage, finding 14 schedule, M4 optimizer, M6 epochs, M7 format, M8 decoding
    "model.from_cell": "experiment=medchatzh_books scale=paper",
    "adapter.kind": "none",
    "precision.kind": "bf16",
    "stage.kind": "tune",
    "template.name": "belle",
    "data.max_tokens": 1024,
    "data.loss_on": "answers",
    "optimizer.learning_rate": 2e-4,
    "optimizer.schedule": "linear",
    "optimizer.warmup_steps": None,
    "optimizer.warmup_fraction": 0.05,
    "optimizer.weight_decay": 1e-5,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 1.0,
    "optimizer.global_batch": 64,
    "decoding.sample": False,
    "decoding.repetition_penalty": 1.2,
    "decoding.min_new_tokens": 5,
    "decoding.max_new_tokens": 512,
}
VOCABULARY = {  # spec X1 pieces and coverage, X2 scores, X4 new rows
    "model.path": "huggyllama/llama-7b",
    "data.name": "zh_text",
    "stage.kind": "extend_vocabulary",
    "stage.size": 50_000,
    "stage.coverage": 0.9995,
    "stage.scores": "keep",
    "stage.new_rows": "random",
    "template.name": "plain",
    "evaluation.kind": "none",
}
EMBEDDINGS = {  # spec X4 what is trained, X8 the rest
    "model.from_cell": "experiment=belle_vocabulary scale=paper",
    "data.name": "zh_text",
    "adapter.kind": "embeddings",
    "precision.kind": "bf16",
    "stage.kind": "pretrain",
    "template.name": "plain",
    "evaluation.kind": "none",
    "data.max_tokens": 512,
    "optimizer.learning_rate": 2e-4,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": None,
    "optimizer.warmup_fraction": 0.05,
    "optimizer.weight_decay": 0.01,
    "optimizer.epochs": 1.0,
}
COOKBOOK = {  # spec C2 adapter, C3 the rest, C10 template, J17 decoding
    "model.path": "bigscience/bloom-7b1",
    "model.lora_targets": ["query_key_value"],
    "data.name": "zh_alpaca4",
    "adapter.kind": "lora",
    "adapter.rank": 32,
    "adapter.alpha": 32.0,
    "adapter.dropout": 0.1,
    "precision.kind": "int8",
    "template.name": "alpaca",
    "data.max_tokens": 512,
    "data.loss_on": "answers",
    "data.layout": "padded",
    "optimizer.learning_rate": 3e-4,
    "optimizer.schedule": "linear",
    "optimizer.warmup_steps": None,
    "optimizer.warmup_fraction": 0.0333,
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epochs": 3.0,
    "optimizer.global_batch": 128,
    "decoding.sample": False,
}
VALUES: dict[str, dict[str, Any]] = {
    "belle": BELLE | {"model.path": "BelleGroup/BELLE-LLaMA-EXT-7B"},
    "belle_vocabulary": VOCABULARY,
    "belle_pretrain": EMBEDDINGS,
    "vi_chatbot": VI,
    "bloomz_chat": VI | BLOOMZ | CHAT,
    "bloomz_doctor": VI | BLOOMZ | DOCTOR,
    "gptj_chat": VI | GPTJ | CHAT,
    "gptj_doctor": VI | GPTJ | DOCTOR,
    "flacuna": FLACUNA,
    "flacuna_released": FLACUNA | {"optimizer.warmup_steps": None, "optimizer.warmup_fraction": 0.0001},  # spec F6
    "medchatzh_books": BOOKS,
    "medchatzh": MEDCHATZH | {"data.name": "medchat_mix"},
    "medchatzh_general": MEDCHATZH | {"data.name": "medchat_general"},
    "medchatzh_sequential": MEDCHATZH  # spec M3, M6
    | {
        "model.from_cell": "experiment=medchatzh_general scale=paper",
        "data.name": "medchat_medical",
        "optimizer.learning_rate": 1e-4,
        "optimizer.global_batch": 640,
    },
    "cookbook": COOKBOOK,
}
ADAPTERS: dict[str, dict[str, Any]] = {  # spec C5
    "adalora": {
        "initial_rank": 12,
        "first_steps": 200,
        "last_steps": 1000,
        "interval": 10,
        "beta1": 0.85,
        "beta2": 0.85,
    },
    "lora_r32": {"rank": 32, "alpha": 32.0, "dropout": 0.1},
    "prompt": {"tokens": 20},
    "p_tuning": {"tokens": 20, "hidden": 128},
    "prefix": {"tokens": 20, "hidden": 128},
    "sadapter_p": {"size": 32},
    "sadapter_h": {"size": 32},
    "padapter": {"size": 32},
    "sadapter_p_256": {"size": 256},
    "sadapter_h_256": {"size": 256},
    "padapter_256": {"size": 256},
}
FLAN_MINI = {  # spec D11, FLACUNA Table 1
    "flan2021": 388_000,
    "p3": 320_000,
    "niv2": 200_000,
    "flan_cot": 100_000,
    "code_search_net": 100_000,
    "code_contests": 50_000,
    "apps": 50_000,
    "alpaca4_en": 52_000,
    "code_alpaca": 20_000,
    "sharegpt_flan": 60_000,
}


@functools.cache
def paper(*overrides: str) -> RunConfig:
    return compose([*overrides, "scale=paper"])


def values(config: RunConfig, keys: Any) -> dict[str, Any]:
    tree = dump(config)
    return {key: functools.reduce(lambda part, name: part[name], key.split("."), tree) for key in keys}


@pytest.mark.parametrize("recipe", VALUES)
def test_a_recipe_has_the_papers_values(recipe: str) -> None:
    assert values(paper(f"experiment={recipe}"), VALUES[recipe]) == VALUES[recipe]


def test_every_recipe_has_its_values_written_down() -> None:
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} - {"tiny"} == set(VALUES)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_method_of_the_cookbook_has_its_papers_values(adapter: str) -> None:
    keys = {f"adapter.{key}": value for key, value in ADAPTERS[adapter].items()}
    assert values(paper("experiment=cookbook", f"adapter={adapter}"), keys) == keys


def test_flan_mini_has_the_counts_of_its_table() -> None:
    data = paper("experiment=flacuna").data
    assert {name: take.count for name, take in data.take.items()} == FLAN_MINI
    assert list(data.sources) == list(FLAN_MINI)
    assert sum(FLAN_MINI.values()) == 1_340_000


@pytest.mark.parametrize("experiment", VALUES)
def test_every_recipe_is_sound_at_both_sizes(experiment: str) -> None:
    for scale in ("smoke", "quick", "paper"):
        cells.check(compose([f"experiment={experiment}", f"scale={scale}"]))


def test_only_the_vietnamese_recipe_learns_the_prompts_too() -> None:
    learned = {recipe for recipe in VALUES if paper(f"experiment={recipe}").data.loss_on.value == "everything"}
    assert learned == {"vi_chatbot", "bloomz_chat", "bloomz_doctor", "gptj_chat", "gptj_doctor"}


def test_every_template_has_its_option() -> None:
    assert {path.stem for path in (CONF / "template").glob("*.yaml")} == {*TEMPLATES, "chat"}


def test_every_real_source_says_how_many_rows_it_has() -> None:
    for path in (CONF / "source").glob("*.yaml"):
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert "toy" in card or card["expected_rows"] > 0, path
        assert card["name"] == path.stem
        assert not card.get("hub_files") or card["hub_id"], "files of no hub"
        if card.get("files"):
            assert card["name"].startswith("eval_"), "of a training source, `files` would have to match in everybody's folder"
            assert card["note"], "which files of the hub they are"
