"""What a well-typed config may still get wrong: values out of range, and choices that cannot go together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from babeltune import judgechecks, mixchecks, modelchecks, stepchecks, vocabularychecks
from babeltune.errors import nearest, problem
from babeltune.judges import PROTOCOLS, EndpointJudge
from babeltune.options import (
    Accelerator,
    AdaLoraAdapter,
    Attention,
    DoraAdapter,
    ExtendVocabularyStage,
    JudgeConfig,
    Layout,
    NoAdapter,
    Precision,
    PrefixAdapter,
    PretrainStage,
    RunConfig,
    Strategy,
    TrainerConfig,
    VirtualTokensAdapter,
)
from babeltune.suites import BenchmarkSuite, CodeSuite, RowsSuite, ToySuite

WORDS = {
    "logger.kind": ("wandb", "none"),
    "logger.mode": ("auto", "offline", "online"),
}
"""Keys that take one of a few words and choose no type."""

BENCHMARKS = "eval_"
"""What the folders of evaluation data are called by."""

POSITIVE_OF_ADAPTERS = ("rank", "alpha", "initial_rank", "target_rank", "interval", "tokens", "hidden", "size")
"""Keys of adapters that are above zero."""

SHARDABLE = ("none", "lora", "rslora", "dora")
"""Adapters whose parameters may lie in pieces on several devices."""


def check(config: RunConfig) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    yield from _ranges(config)
    yield from _words(config)
    yield from mixchecks.check(config.data)
    yield from vocabularychecks.check(config)
    yield from _sources(config)
    yield from modelchecks.check(config)
    yield from _optimizer(config)
    yield from _decoding(config)
    yield from _evaluation(config)
    yield from judgechecks.check(config)
    yield from _devices(config)
    yield from _pairs(config)
    yield from _adapter(config)
    yield from stepchecks.check("cleaning", config.cleaning)
    for name, source in config.data.sources.items():
        yield from stepchecks.check(f"data.sources.{name}.cleaning", source.cleaning)
    yield from _contamination(config)


def _contamination(config: RunConfig) -> Iterator[str]:
    where, options = "data.contamination", config.data.contamination
    for key in ("words", "characters"):
        if getattr(options, key) < 1:
            yield problem(f"{where}.{key}", getattr(options, key), "1 or more", f"{where}.{key}=13")
    if not 0 <= options.overlap <= 1:
        yield problem(f"{where}.overlap", options.overlap, "a share from 0 to 1", f"{where}.overlap=0.5")


def _ranges(config: RunConfig) -> Iterator[str]:
    optimizer, data, trainer, decoding = config.optimizer, config.data, config.trainer, config.decoding
    positive: dict[str, float | None] = {
        "optimizer.learning_rate": optimizer.learning_rate,
        "optimizer.epochs": optimizer.epochs,
        "optimizer.global_batch": optimizer.global_batch,
        "optimizer.max_steps": optimizer.max_steps,
        "optimizer.clip": optimizer.clip,
        "data.max_rows": data.max_rows,
        "data.max_tokens": data.max_tokens,
        "trainer.devices": trainer.devices,
        "trainer.nodes": trainer.nodes,
        "trainer.threads": trainer.threads,
        "trainer.micro_tokens": trainer.micro_tokens,
        "trainer.checkpoint_steps": trainer.checkpoint_steps,
        "evaluation.max_items": config.evaluation.max_items,
        "evaluation.batch": config.evaluation.batch,
        "evaluation.prompt_tokens": config.evaluation.prompt_tokens,
        "decoding.max_new_tokens": decoding.max_new_tokens,
        "decoding.top_k": decoding.top_k,
        "decoding.beams": decoding.beams,
        "decoding.no_repeat_ngram": decoding.no_repeat_ngram,
        "decoding.temperature": decoding.temperature,
        "decoding.repetition_penalty": decoding.repetition_penalty,
        "model.vocabulary": config.model.vocabulary,
        "grid.workers": config.grid.workers,
    }
    shares = {
        "data.max_bad_fraction": data.max_bad_fraction,
        "data.heldout_fraction": data.heldout_fraction,
        "optimizer.warmup_fraction": optimizer.warmup_fraction,
    }
    from_zero: dict[str, float | None] = {
        "seed": config.seed,
        "data.workers": data.workers,
        "optimizer.warmup_steps": optimizer.warmup_steps,
        "optimizer.weight_decay": optimizer.weight_decay,
        "decoding.min_new_tokens": decoding.min_new_tokens,
    }
    adapter = vars(config.adapter)
    positive |= {f"adapter.{key}": adapter[key] for key in POSITIVE_OF_ADAPTERS if key in adapter}
    shares |= {f"adapter.{key}": adapter[key] for key in ("dropout", "beta1", "beta2") if key in adapter}
    from_zero |= {f"adapter.{key}": adapter[key] for key in ("first_steps", "last_steps", "orthogonality") if key in adapter}
    for where, value in positive.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            yield problem(where, value, "a number above zero", f"{where}=1")
    for where, share in shares.items():
        if not 0 <= share < 1:
            yield problem(where, share, "a share from 0 up to, not including, 1", f"{where}=0.01")
    for where, value in from_zero.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            yield problem(where, value, "0 or more", f"{where}=0")


def _words(config: RunConfig) -> Iterator[str]:
    for where, words in WORDS.items():
        group, key = where.split(".")
        value = getattr(getattr(config, group), key)
        if value not in words:
            yield problem(where, repr(value), f"one of {', '.join(words)}", f"{where}={nearest(str(value), words, 1)}")
    for where, name in {"grid.name": config.grid.name, "data.name": config.data.name, "model.name": config.model.name}.items():
        if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
            yield problem(where, repr(name), "a file name of letters, digits, and . _ + -", f"{where}=my_{where.split('.')[0]}")


def _sources(config: RunConfig) -> Iterator[str]:
    for name in config.data.sources:
        if name.startswith(BENCHMARKS):
            expected = "something that no suite asks: some benchmarks carry a mark by which models that read them are told"
            yield problem(f"data.sources.{name}", "a benchmark to train on", expected, f"~data.sources.{name}")
    for group, sources in (("data", config.data.sources), ("evaluation", config.evaluation.sources)):
        for name, source in sources.items():
            where = f"{group}.sources.{name}"
            if source.name != name:
                yield problem(f"{where}.name", repr(source.name), "the name it is listed under", f"{where}.name={name}")
            if source.toy is not None and source.toy.rows <= 0:
                yield problem(f"{where}.toy.rows", source.toy.rows, "a number above zero", f"{where}.toy.rows=1000")
            if source.toy is not None and not 0 <= source.toy.wrong_fraction <= 1:
                yield problem(f"{where}.toy.wrong_fraction", source.toy.wrong_fraction, "a share from 0 to 1", "0.5")


def _optimizer(config: RunConfig) -> Iterator[str]:
    optimizer = config.optimizer
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield problem(
            "optimizer.betas", optimizer.betas, "two numbers from 0 up to, not including, 1", "optimizer.betas=[0.9,0.999]"
        )
    if optimizer.warmup_steps and optimizer.max_steps and optimizer.warmup_steps >= optimizer.max_steps:
        yield problem(
            "optimizer.warmup_steps",
            optimizer.warmup_steps,
            f"fewer than optimizer.max_steps={optimizer.max_steps}",
            "optimizer.warmup_steps=null",
        )


def _decoding(config: RunConfig) -> Iterator[str]:
    decoding = config.decoding
    if decoding.top_p is not None and not 0 < decoding.top_p <= 1:
        yield problem("decoding.top_p", decoding.top_p, "a share above 0 and up to 1", "decoding.top_p=0.9")
    if decoding.min_new_tokens is not None and decoding.min_new_tokens > decoding.max_new_tokens:
        yield problem(
            "decoding.min_new_tokens",
            decoding.min_new_tokens,
            f"at most decoding.max_new_tokens={decoding.max_new_tokens}",
            "decoding.min_new_tokens=null",
        )
    drawn = [f"decoding.{key}" for key in ("temperature", "top_k", "top_p") if getattr(decoding, key) is not None]
    if drawn and not decoding.sample:
        yield problem(
            " and ".join(drawn),
            "a value, which has no effect without sampling",
            "null",
            f"decoding.sample=true, or {', '.join(f'{key}=null' for key in drawn)}",
        )


def _evaluation(config: RunConfig) -> Iterator[str]:
    evaluation = config.evaluation
    if evaluation.kind == "none":
        return
    if evaluation.prompt.count("{question}") != 1:
        yield problem(
            "evaluation.prompt", repr(evaluation.prompt), "a text with {question} in it once", "evaluation.prompt='{question}'"
        )
    if isinstance(evaluation, BenchmarkSuite):
        yield from _benchmark(evaluation)
    elif isinstance(evaluation, RowsSuite):
        yield from _rows(evaluation, config.judge)
    elif not evaluation.metrics:
        yield problem("evaluation.metrics", "[]", "at least one metric", "evaluation.metrics=[exact_match]")
    if isinstance(evaluation, ToySuite) and not evaluation.languages:
        yield problem("evaluation.languages", "[]", "at least one language", "evaluation.languages=[zh,vi,en]")
    if evaluation.kind == "heldout" and not evaluation.sources:
        yield problem("evaluation.sources", "{}", "at least one source", "evaluation=heldout")
    if evaluation.kind == "heldout" and config.data.heldout_fraction == 0:
        yield problem(
            "data.heldout_fraction", 0, "a share for evaluation.kind=heldout to take items from", "data.heldout_fraction=0.02"
        )


def _rows(evaluation: RowsSuite, judge: JudgeConfig) -> Iterator[str]:
    """A suite of rows is scored by metrics of its references, or by a judge."""
    if not evaluation.sources:
        yield problem("evaluation.sources", "{}", "at least one source", "evaluation=belle_1k")
    if evaluation.judged_by and evaluation.judged_by not in PROTOCOLS:
        hint = f"evaluation.judged_by={nearest(evaluation.judged_by, PROTOCOLS, 1)}"
        yield problem("evaluation.judged_by", repr(evaluation.judged_by), f"one of {', '.join(PROTOCOLS)}", hint)
    if evaluation.aspects and isinstance(judge, EndpointJudge) and judge.protocol != evaluation.judged_by:
        expected = f"{evaluation.judged_by}, which gives {' and '.join(evaluation.aspects)}"
        yield problem("judge.protocol", repr(judge.protocol), expected, f"judge.protocol={evaluation.judged_by}")
    if not evaluation.metrics and not evaluation.judged_by:
        expected = "at least one metric, or evaluation.judged_by"
        yield problem("evaluation.metrics", "[]", expected, "evaluation.metrics=[chrf] evaluation.reference=FIELD")
    if evaluation.metrics and not evaluation.reference:
        expected = "the field that metrics compare with"
        yield problem("evaluation.reference", "''", expected, "evaluation.reference=FIELD, or evaluation.metrics=[]")
    if evaluation.sample is not None and evaluation.sample < 1:
        yield problem("evaluation.sample", evaluation.sample, "a number above zero, or null for all", "evaluation.sample=100")
    for metric in evaluation.score_names.keys() - set(evaluation.metrics):
        known = ", ".join(evaluation.metrics)
        yield problem("evaluation.score_names", repr(metric), f"some of {known}", f"~evaluation.score_names.{metric}")


def _benchmark(evaluation: BenchmarkSuite) -> Iterator[str]:
    """A benchmark has rows, and a rule of its own in place of metrics."""
    if not evaluation.sources:
        yield problem("evaluation.sources", "{}", "at least one source", "evaluation=mmlu")
    if evaluation.metrics:
        yield problem("evaluation.metrics", evaluation.metrics, "none: the benchmark counts what is right", "evaluation.metrics=[]")
    shots = getattr(evaluation, "shots", 0)
    if shots < 0:
        yield problem("evaluation.shots", shots, "0 or more", "evaluation.shots=0")
    if isinstance(evaluation, CodeSuite):
        if not evaluation.allow_code:
            expected = "leave to run the programs that the model writes, in a sandbox without network"
            yield problem("evaluation.allow_code", "false", expected, "evaluation.allow_code=true")
        if evaluation.seconds < 1:
            yield problem("evaluation.seconds", evaluation.seconds, "1 or more", "evaluation.seconds=3")
        if evaluation.memory_mb < 128:
            yield problem("evaluation.memory_mb", evaluation.memory_mb, "128 or more", "evaluation.memory_mb=512")


def _devices(config: RunConfig) -> Iterator[str]:
    trainer = config.trainer
    if trainer.strategy is Strategy.deepspeed and trainer.accelerator is Accelerator.cpu:
        yield problem(
            "trainer.strategy=deepspeed with trainer.accelerator=cpu",
            "a CPU",
            "a GPU for each process",
            "trainer=fsdp_cpu, or trainer.accelerator=gpu",
        )
    if trainer.strategy is Strategy.single:
        several = "trainer=ddp_cpu" if trainer.accelerator is Accelerator.cpu else "trainer=ddp"
        for key, number in (("devices", trainer.devices), ("nodes", trainer.nodes)):
            if number > 1:
                yield problem(f"trainer.{key}", number, f"1 with trainer={trainer.name}", f"{several} trainer.{key}={number}")
    if config.optimizer.global_batch < trainer.processes:
        yield problem(
            "optimizer.global_batch",
            config.optimizer.global_batch,
            f"an example for each of {trainer.processes} devices",
            f"optimizer.global_batch={trainer.processes}",
        )


def _pairs(config: RunConfig) -> Iterator[str]:
    precision, trainer = config.precision.kind, config.trainer
    if precision.quantises:
        where = f"precision={precision.value}"
        if isinstance(config.adapter, NoAdapter) and _trains(config):
            hint = "adapter=lora or precision=bf16"
            yield problem(f"{where} with adapter=none", "quantised weights to train", "an adapter over a quantised base", hint)
        if config.model.fresh is not None:
            yield problem(f"{where} with model.fresh", "random weights to quantise", "a trained base", "precision=fp32")
    if precision.quantises and trainer.strategy is Strategy.deepspeed:
        yield problem(
            f"precision={precision.value} with trainer={trainer.name}",
            "quantised weights",
            "weights of one kind, as DeepSpeed wants them",
            "trainer=ddp or precision=bf16",
        )
    if precision is Precision.int8 and trainer.strategy is Strategy.fsdp:
        yield problem(
            f"precision=int8 with trainer={trainer.name}",
            "8-bit weights to shard",
            "weights that shard",
            f"precision=bf16 or trainer={_plain_ddp(trainer)}",
        )
    if getattr(config.adapter, "targets", None) == [] and _trains(config) and not config.model.lora_targets:
        yield problem("adapter.targets", "[]", "names of linear modules", "adapter.targets=[q_proj,v_proj] or adapter=none")
    pretrains = isinstance(config.stage, PretrainStage)
    if config.stage.kind in ("tune", "pretrain") and pretrains != (config.template.name == "plain"):
        wanted = "plain" if pretrains else "alpaca"
        yield problem(
            f"template={config.template.name} with stage={config.stage.kind}",
            "texts of another kind" if pretrains else "documents, which have no answers to learn",
            f"template={wanted}",
            f"template={wanted} or stage={'tune' if pretrains else 'pretrain'}",
        )


def _layers(config: RunConfig) -> Iterator[str]:
    """What cannot go with layers that are computed twice, compiled, or attend in a way that was chosen."""
    trainer, adapter = config.trainer, config.adapter
    if trainer.checkpointing and isinstance(adapter, PrefixAdapter):
        yield problem(
            "adapter=prefix with trainer.checkpointing=true",
            "trained keys in a cache, which layers that are computed twice would read twice",
            "layers that keep what they computed",
            "trainer.checkpointing=false",
        )
    if trainer.attention in (Attention.flash, Attention.flex) and trainer.accelerator is Accelerator.cpu:
        yield problem(f"trainer.attention={trainer.attention.value}", "a CPU", "a GPU", "trainer.attention=auto")
    if trainer.checkpointing and trainer.compile:
        yield problem(
            "trainer.compile=true with trainer.checkpointing=true",
            "both, of which torch.compile skips the one inside the other",
            "one of them",
            "trainer.compile=false",
        )
    if isinstance(adapter, VirtualTokensAdapter) and trainer.attention not in (Attention.auto, Attention.mask):
        yield problem(
            f"adapter={adapter.kind} with trainer.attention={trainer.attention.value}",
            "trained tokens in front of each text, which attend by a mask",
            "auto or mask",
            "trainer.attention=auto",
        )


def _plain_ddp(trainer: TrainerConfig) -> str:
    return "ddp_cpu" if trainer.accelerator is Accelerator.cpu else "ddp"


def _trains(config: RunConfig) -> bool:
    return bool(config.data.sources) and not isinstance(config.stage, ExtendVocabularyStage)


def _adapter(config: RunConfig) -> Iterator[str]:
    """Adapters and what they cannot go with; most of these would otherwise train something else without a word."""
    adapter, precision = config.adapter, config.precision.kind
    if isinstance(adapter, AdaLoraAdapter):
        if adapter.target_rank >= adapter.initial_rank:
            expected = f"less than adapter.initial_rank={adapter.initial_rank}"
            yield problem(
                "adapter.target_rank", adapter.target_rank, expected, f"adapter.target_rank={max(1, adapter.initial_rank * 2 // 3)}"
            )
        for key in ("beta1", "beta2"):
            if getattr(adapter, key) == 0:
                yield problem(f"adapter.{key}", 0.0, "a share above zero", f"adapter.{key}=0.85")
    if not _trains(config):
        return
    if isinstance(adapter, VirtualTokensAdapter) and config.data.layout is Layout.packed:
        yield problem(
            f"adapter={adapter.kind} with data.layout=packed",
            "several texts in a row",
            "one text behind the trained tokens of its row",
            "data.layout=padded",
        )
    yield from _layers(config)
    if isinstance(adapter, DoraAdapter) and precision is Precision.int8:
        yield problem(
            "adapter=dora with precision=int8",
            "8-bit weights, whose lengths cannot be trained",
            "weights that can be read",
            "adapter=lora or precision=nf4",
        )
    if config.trainer.strategy in (Strategy.fsdp, Strategy.deepspeed) and adapter.kind not in SHARDABLE:
        yield problem(
            f"adapter={adapter.kind} with trainer={config.trainer.name}",
            "parameters that must be whole on each device",
            f"one of adapter={', '.join(SHARDABLE)}",
            f"trainer={_plain_ddp(config.trainer)}",
        )
