"""What the library refuses, in which words; and that a config keeps its values on the way to a worker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import babeltune
from babeltune import cells
from babeltune.config import build, compose, dump
from babeltune.errors import ConfigError

SHAPE = r"^.+: got .+; expected .+; try .+$"


def refusal(*overrides: str) -> str:
    """What the library says to these overrides."""
    with pytest.raises(ConfigError) as caught:
        cells.check(compose(list(overrides)))
    assert all(re.match(SHAPE, line) for line in str(caught.value).splitlines()), caught.value
    return str(caught.value)


SENTENCES = {
    "data=zh_alpacca4": "data: got 'zh_alpacca4'; expected one of the",
    "precision=int9": "precision: got 'int9'; expected one of the 4 options in conf/precision; try precision=int8",
    "sweeps=demmo": "sweeps: got 'demmo'; expected one of the",
    "dta=toy_zh": "dta: got an unknown key; expected a config group or key; try data",
    "data=3": "data: got '3'; expected one of the",
    "data=null": "data: got 'null'; expected one of the",
    "+data=toy_zh": "+data=toy_zh: got a + for what is there; expected data=OPTION; try data=toy_zh",
    "adapter.rnak=3": "adapter.rnak: got an unknown key; expected a key of adapter; try adapter.rank",
    "+adapter.rnak=3": "adapter.rnak: got an unknown key; expected a key of adapter; try adapter.rank",
    "++adapter.rnak=3": "adapter.rnak: got an unknown key; expected a key of adapter; try adapter.rank",
    "+adapter.deep.er=3": "adapter.deep: got an unknown key; expected a key of adapter; try ",
    "+group.key=3": "group: got an unknown key; expected a config group or key; try ",
    "++data.sources.toy_zh.limit=3": "data.sources.toy_zh.limit: got an unknown key; expected a key of data.sources.toy_zh; try ",
    "data.take.toy_zh.count=3": "try '+data.take={toy_zh:{count:3}}'",
    "data.quota.zh=3": "try '+data.quota={zh:3}'",
    "hydra.nope=3": "hydra.nope: got an unknown key; expected one of Hydra's own; try python train.py --cfg hydra",
    "trainer@there=ddp": "trainer@there=ddp: got a group at another place; expected trainer=OPTION; try trainer=ddp",
    "~seed": "seed: got nothing; expected a value; try seed=0",
    "~adapter": "adapter: got nothing; expected an option of conf/adapter; try adapter=lora",
    "~data": "data: got nothing; expected an option of conf/data; try data=toy_zh",
    "~optimizer.betas": "try leaving ~optimizer.betas out or optimizer.betas=[0.9,0.999]",
    "~nope": "nope: got an unknown key",
    "adapter.rank=abc": "adapter.rank: got 'abc'; expected a whole number; try adapter.rank=8",
    "adapter.rank=8.5": "adapter.rank: got '8.5'; expected a whole number; try adapter.rank=8",
    "adapter.rank=null": "adapter.rank: got 'null'; expected a whole number; try adapter.rank=8",
    "adapter.rank=": "adapter.rank: got ''; expected a whole number; try adapter.rank=8",
    "seed=1.5": "seed: got '1.5'; expected a whole number; try seed=0",
    "seed=true": "seed: got 'true'; expected a whole number; try seed=0",
    "optimizer.betas=3": "optimizer.betas: got '3'; expected a list; try optimizer.betas=[0.9,0.999]",
    "optimizer.clip=x": "optimizer.clip: got 'x'; expected a number or null; try optimizer.clip=1.0",
    "data.layout=pakced": "data.layout: got 'pakced'; expected one of packed, padded; try data.layout=packed",
    "model.fresh.hidden_size=3": "model.fresh.hidden_size: got '3'; expected a model that is fresh; try model=tiny_fresh",
    "paths=here": "paths: got 'here'; expected keys with values; try ",
    "data": "command line: got 'data'; expected group=option or key=value; try data=toy_zh",
    "seed": "command line: got 'seed'; expected group=option or key=value; try seed=0",
    "=3": "command line: got '=3'; expected group=option or key=value; try data=toy_zh or adapter.rank=8",
    "adapter.rank=[1": "command line: got 'adapter.rank=[1'; expected group=option or key=value, with signs and spaces quoted",
    "data=toy_zh,toy_en": "data: got 'toy_zh,toy_en'; expected one value; try python train.py -m data=toy_zh,toy_en for a grid",
    "seed=${nope}": "seed: got Interpolation key 'nope' not found; expected an interpolation of a key that is there",
    "seed=-1": "seed: got -1; expected 0 or more; try seed=0",
    "adapter.rank=0": "adapter.rank: got 0; expected a number above zero; try adapter.rank=1",
    "adapter.dropout=1": "adapter.dropout: got 1.0; expected a share from 0 up to, not including, 1; try adapter.dropout=0.01",
    "optimizer.learning_rate=-1": "optimizer.learning_rate: got -1.0; expected a number above zero",
    "optimizer.learning_rate=nan": "optimizer.learning_rate: got nan; expected a number above zero",
    "optimizer.weight_decay=-1": "optimizer.weight_decay: got -1.0; expected 0 or more",
    "optimizer.betas=[0.9]": "optimizer.betas: got [0.9]; expected two numbers from 0 up to, not including, 1",
    "optimizer.betas=[0.9,1]": "optimizer.betas: got [0.9, 1.0]; expected two numbers",
    "optimizer.warmup_steps=9 optimizer.max_steps=9": "optimizer.warmup_steps: got 9; expected fewer than optimizer.max_steps=9",
    "grid.name=a/b": "grid.name: got 'a/b'; expected a file name",
    "grid.workers=0": "grid.workers: got 0; expected a number above zero",
    "logger.kind=mlflow": "logger.kind: got 'mlflow'; expected one of wandb, none; try logger.kind=",
    "judge.kind=gpt": "; try judge=reference",
    "evaluation.kind=toys": "; try evaluation=toy",
    "evaluation.metrics=[chrff]": "; try evaluation.metrics=[chrf]",
    "evaluation.metrics=[]": "evaluation.metrics: got []; expected at least one metric",
    "evaluation.languages=[zh,fr]": "evaluation.languages[1]: got 'fr'; expected one of zh, vi, en; try",
    "template.name=bele": "template.name: got 'bele'; expected one of",
    "+data.quota={fr:3}": "data.quota.fr: got 'fr'; expected a language of the mix (zh); try",
    "+data.quota.zh=-3": "data.quota.zh: got -3; expected 0 or more rows; try",
    "+data.take={toy_en:{count:3}}": "data.take.toy_en: got 'toy_en'; expected a source of the mix; try toy_zh",
    "+data.take={toy_zh:{count:3,weight:1}}": "data.take.toy_zh: got count and weight; "
    "expected one of count, fraction, weight and tokens; try leaving one",
    "+data.take={toy_zh:{tokens:0.5}}": "data.take: got token shares of every source that sum to 0.5; expected a sum of 1; try",
    "data.temperature=0.5": "data.temperature: got 0.5; expected 1 (plain concatenation) or more; try data.temperature=2",
    "data.temperature_over=languages": "data.temperature_over: got 'languages'; expected one of source, language; try ",
    "data.max_passes=0": "data.max_passes: got 0.0; expected 1 (nothing is repeated) or more; try data.max_passes=4",
    "data.temperature=2 +data.take={toy_zh:{count:3}}": "data.temperature and data.take: got 2 and toy_zh; expected one of them",
    "+data.take={toy_zh:{weight:-1}}": "data.take.toy_zh.weight: got -1.0; expected a number above zero",
    "decoding.top_p=1.5 decoding.sample=true": "decoding.top_p: got 1.5; expected a share above 0 and up to 1; try",
    "decoding.temperature=0.5": "decoding.temperature: got a value, which has no effect without sampling; expected null; try",
    "decoding.min_new_tokens=99": "decoding.min_new_tokens: got 99; expected at most decoding.max_new_tokens=24",
    "decoding.max_new_tokens=4096": "decoding.max_new_tokens: got 4096; expected at most the 2048 tokens that tiny reads at once",
    "data.max_tokens=4096": "data.max_tokens: got 4096; expected at most the 2048 tokens that tiny reads at once",
}


@pytest.mark.parametrize("override", SENTENCES)
def test_one_wrong_override_is_refused_in_one_sentence(override: str) -> None:
    said = refusal(*override.split()) if "=" in override else refusal(override)
    assert SENTENCES[override] in said
    assert len(said.splitlines()) == 1
    assert "full_key" not in said


TOGETHER = {
    "precision=int8 adapter=none": "precision=int8 with adapter=none: got quantised weights to train; "
    "expected an adapter over a quantised base; try adapter=lora or precision=bf16",
    "precision=nf4 adapter=none": "precision=nf4 with adapter=none: got quantised weights to train",
    "precision=int8 model=tiny_fresh": "precision=int8 with model.fresh: got random weights to quantise",
    "precision=int8 trainer=fsdp": "precision=int8 with trainer=fsdp: got 8-bit weights to shard; expected weights that shard; "
    "try precision=bf16 or trainer=ddp",
    "precision=int8 trainer=fsdp_cpu": "precision=int8 with trainer=fsdp_cpu: got 8-bit weights to shard",
    "trainer=deepspeed trainer.accelerator=cpu": "trainer.strategy=deepspeed with trainer.accelerator=cpu: got a CPU; "
    "expected a GPU for each process; try trainer=fsdp_cpu, or trainer.accelerator=gpu",
    "trainer=cpu trainer.nodes=2": "trainer.nodes: got 2; expected 1 with trainer=cpu; try trainer=ddp_cpu trainer.nodes=2",
    "trainer=ddp_cpu trainer.nodes=4 optimizer.global_batch=7": "optimizer.global_batch: got 7; "
    "expected an example for each of 8 devices; try optimizer.global_batch=8",
    "trainer=cpu trainer.devices=2": "trainer.devices: got 2; expected 1 with trainer=cpu; try trainer=ddp_cpu trainer.devices=2",
    "trainer=gpu trainer.devices=2": "trainer.devices: got 2; expected 1 with trainer=gpu; try trainer=ddp trainer.devices=2",
    "trainer=ddp_cpu optimizer.global_batch=1": "optimizer.global_batch: got 1; expected an example for each of 2 devices; "
    "try optimizer.global_batch=2",
    "stage=pretrain": "template=alpaca with stage=pretrain: got texts of another kind; expected template=plain; "
    "try template=plain or stage=tune",
    "template=plain": "template=plain with stage=tune: got documents, which have no answers to learn; expected template=alpaca",
    "model.path=somewhere": "model: got path and from_cell; expected one of path, from_cell, fresh and answers; "
    "try model.path=null, model.from_cell=null",
    "model.from_cell=null": "model: got no weights; expected one of path, from_cell, fresh and answers; try model=tiny",
    "model.tokenizer=train": "model.tokenizer: got train; expected a fresh model and a mix to learn it from",
    "model=tiny_fresh model.tokenizer=null": "model.tokenizer: got None; expected a tokenizer for a fresh model",
    "model.lora_targets=[]": "adapter.targets: got []; expected names of linear modules; try adapter.targets=[q_proj,v_proj]",
    "evaluation=heldout data.heldout_fraction=0": "data.heldout_fraction: got 0; expected a share for evaluation.kind=heldout",
    "evaluation=heldout evaluation.kind=toy": "evaluation.kind: got 'toy' over the options of another kind; "
    "expected its own keys: languages; try evaluation=toy in place of evaluation.kind=toy",
    "evaluation=toy evaluation.languages=[]": "evaluation.languages: got []; expected at least one language",
    "evaluation=heldout ~evaluation.sources.alpaca4_zh ~evaluation.sources.alpaca35_en ~evaluation.sources.alpaca_vi": (
        "evaluation.sources: got {}; expected at least one source"
    ),
}


@pytest.mark.parametrize("overrides", TOGETHER)
def test_choices_that_cannot_go_together_are_refused_with_what_to_choose(overrides: str) -> None:
    said = refusal(*overrides.split())
    assert TOGETHER[overrides] in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        "adapter.rank=8",
        "seed=0",
        "optimizer.betas=[0.9,0.999]",
        "+data.take={toy_zh:{count:3}}",
        "+data.quota={zh:3}",
        "precision=int8 adapter=lora",
        "trainer=ddp_cpu trainer.devices=2",
        "trainer.micro_tokens=256",
        "template=plain stage=pretrain",
        "evaluation.metrics=[chrf]",
        "decoding.temperature=0.5 decoding.sample=true",
        "data=none precision=int8 adapter=none",
    ],
)
def test_what_a_message_says_to_try_works(overrides: str) -> None:
    cells.check(compose(overrides.split()))


def test_every_problem_is_said_at_once() -> None:
    said = refusal("data=toy_zhh", "adapter.rank=abc", "seed=-1", "+foo=3", "optimizer.epochs=0", "data").splitlines()
    assert [line.split(":")[0] for line in said] == [
        "data",
        "command line",
        "adapter.rank",
        "foo",
        "optimizer.epochs",
        "seed",
    ]
    said = refusal("data=toy_zhh", "seed=-1", "optimizer.epochs=0").splitlines()
    assert [line.split(":")[0] for line in said] == ["data", "optimizer.epochs", "seed"]


def test_a_key_of_a_chosen_type_is_known_only_with_that_type() -> None:
    assert "adapter.rank: got " in refusal("adapter=none", "adapter.rank=4")


def test_build_refuses_what_yaml_lost_or_broke() -> None:
    tree = dump(compose())
    del tree["seed"]
    tree["optimizer"]["epochs"] = "three"
    tree["adapter"]["kind"] = "ia4"
    with pytest.raises(ConfigError) as caught:
        build(tree)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["adapter.kind", "optimizer.epochs", "seed"]


def test_a_config_reaches_a_worker_as_it_was() -> None:
    config = compose(["data=toy_zh_small", "adapter.targets=[q_proj]", "+data.quota.zh=7", "optimizer.clip=null"])
    assert build(yaml.safe_load(yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True))) == config


def test_compose_works_twice_and_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = babeltune.compose(["data=toy_zh", "seed=1"])
    monkeypatch.chdir(tmp_path)
    assert babeltune.compose(["data=toy_zh", "seed=1"]) == first
    assert babeltune.compose(["data=toy_vi"]).data.name == "toy_vi"


def test_compose_leaves_somebody_elses_hydra_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("theirs: 1\n")
    code = f"""
import hydra, babeltune
from hydra.core.global_hydra import GlobalHydra
with hydra.initialize_config_dir({str(tmp_path / "conf")!r}, version_base="1.2"):
    before = GlobalHydra.instance()
    assert babeltune.compose(["data=toy_vi"]).data.name == "toy_vi"
    try:
        babeltune.compose(["data=nope"])
    except babeltune.ConfigError:
        pass
    assert GlobalHydra.instance() is before
    assert hydra.compose("train") == {{"theirs": 1}}
assert not GlobalHydra.instance().is_initialized()
assert babeltune.compose(["seed=4"]).seed == 4
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_stand_in_runs_under_the_papers_name() -> None:
    small = compose(["model=llama_7b"]).model
    assert (small.name, small.standin, small.path, small.from_cell) == ("llama_7b", "tiny", None, "experiment=tiny scale=paper")
    assert small.lora_targets == ["q_proj", "v_proj"], "those of the paper"
    assert compose(["model=llama_7b", "scale=smoke"]).model.from_cell == "experiment=tiny scale=smoke"
