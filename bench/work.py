"""The work that every system of the benchmark does: the same text, tokenizer, random weights, adapter and order of examples.

Text is the first rows of Alpaca where there is a folder of data, else words that are drawn, with Alpaca's lengths. The order is
that in which babeltune meets the examples with seed 0; the others are handed the rows in this order.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"S": (256, 4, 8, 688), "M": (512, 8, 8, 1376), "tiny": (64, 2, 4, 128), "7B": (4096, 32, 32, 11_008)}
"""Hidden size, layers, heads, inner size of the feed-forward block."""
NUM_ROWS = 256
BATCH, MICRO, MAX_TOKENS, RANK, ALPHA, RATE = 32, 4, 512, 8, 16, 3e-4
SOURCE = "alpaca35_en"
REAL = ("alpaca35_en", "alpaca4_en")
ALPACA_WORDS = {
    "instruction": (4, 6, 7, 8, 9, 10, 10, 11, 12, 14, 84),
    "input": (1, 2, 3, 4, 5, 6, 8, 10, 13, 20, 402),
    "output": (1, 4, 8, 11, 18, 30, 46, 61, 77, 99, 717),
}
"""Words of Stanford Alpaca's fields: least, deciles, most (52,002 rows; of inputs, those that are not empty)."""
WITH_INPUT = 0.398
"""Share of Alpaca's rows that have an input."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One table of the benchmark."""

    size: str
    vocabulary: int
    precision: str
    steps: int
    batch: int = BATCH
    micro: int = MICRO
    max_tokens: int = MAX_TOKENS
    trainer: str = "cpu"
    """Babeltune's; the others use a GPU unless it is `cpu`."""

    @property
    def name(self) -> str:
        return f"{self.size}-{self.vocabulary}-{self.precision}-{self.steps}"


def overrides(model: Path, data: Path, setting: Setting, outputs: Path) -> list[str]:
    """Babeltune's command line for this work."""
    return [
        "data=en_alpaca35",
        "model=llama_7b",
        f"model.path={model}",
        "model.revision=null",
        "scale=paper",
        f"trainer={setting.trainer}",
        *([] if setting.trainer == "cpu" else [f"trainer.micro_tokens={setting.micro * setting.max_tokens}"]),
        f"precision={setting.precision}",
        "adapter=lora",
        f"adapter.rank={RANK}",
        f"adapter.alpha={ALPHA}",
        "adapter.dropout=0",
        "evaluation=none",
        "logger=none",
        "data.heldout_fraction=0",
        "data.contamination.action=off",
        f"data.max_tokens={setting.max_tokens}",
        f"optimizer.learning_rate={RATE}",
        "optimizer.schedule=constant",
        "optimizer.warmup_steps=0",
        "optimizer.betas=[0.9,0.999]",
        "optimizer.weight_decay=0",
        "optimizer.clip=null",
        "optimizer.epochs=1",
        f"optimizer.max_steps={setting.steps}",
        f"optimizer.global_batch={setting.batch}",
        f"paths.data={data}",
        f"paths.outputs={outputs}",
    ]


def prepare(root: Path, setting: Setting, data: Path | None, tokenizer: Path | None) -> dict[str, Any]:
    """Write what is not there yet below `root` and return the task, as `peers/task.py` reads it; `out` is for the caller to set."""
    source = root / "data"
    found = rows(source, data, max(NUM_ROWS, setting.steps * setting.batch))
    words = _tokenizer_folder(root, found, tokenizer)
    model = _model_folder(root, words, setting)
    _write_lora(root / f"lora-{setting.size}.safetensors", setting.size)
    ordered = root / "ordered.jsonl"
    if not ordered.exists():
        _write_ordered(ordered, model, source, found, setting)
    return {
        "model": str(model),
        "rows": str(ordered),
        "lora": str(root / f"lora-{setting.size}.safetensors"),
        "data": str(source),
        "steps": setting.steps,
        "batch": setting.batch,
        "micro": setting.micro,
        "max_tokens": setting.max_tokens,
        "rate": RATE,
        "rank": RANK,
        "alpha": ALPHA,
        "precision": setting.precision,
        "device": "cpu" if setting.trainer == "cpu" else "cuda",
    }


def rows(source: Path, data: Path | None, most: int | None) -> list[dict[str, str]]:
    """The examples, written as the one source of the folder `source`."""
    path = source / SOURCE / "rows.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = itertools.islice(_real(data) if data else generated(most or 52_002), most)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _real(data: Path) -> Iterator[dict[str, str]]:
    for name in REAL:
        for path in sorted((data / name).glob("*.jsonl*")):
            with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    yield {key: row.get(key, "") for key in ("instruction", "input", "output")}
            return
    raise SystemExit(f"--data: got {data}; expected a folder with {' or '.join(REAL)} in it; try none, for generated text")


def generated(count: int) -> Iterator[dict[str, str]]:
    """Rows of drawn words, with as many words in each field as Alpaca has."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "ing", "on")]
    words = list(dict.fromkeys("".join(draw.choices(syllables, k=draw.choice((1, 2, 2, 3)))) for _ in range(40_000)))
    weights = list(itertools.accumulate(1 / (place + 3) for place in range(len(words))))
    deciles = np.linspace(0, 1, 11)
    for _ in range(count):
        row = {}
        for field, known in ALPACA_WORDS.items():
            size = round(float(np.interp(draw.random(), deciles, known)))
            if field == "input" and draw.random() > WITH_INPUT:
                size = 0
            text = " ".join(draw.choices(words, cum_weights=weights, k=size))
            row[field] = text.capitalize() + "." if text else ""
        yield row


def prompt(row: dict[str, str]) -> str:
    """What stands before an answer, in Alpaca's words."""
    between = ", paired with an input that provides further context" if row["input"] else ""
    head = f"Below is an instruction that describes a task{between}. Write a response that appropriately completes the request."
    body = f"### Instruction:\n{row['instruction']}\n\n" + (f"### Input:\n{row['input']}\n\n" if row["input"] else "")
    return f"{head}\n\n{body}### Response:\n"


def _tokenizer_folder(root: Path, found: list[dict[str, str]], given: Path | None) -> Path:
    """A tokenizer as transformers saves it, from a folder with tokenizer.json or tokenizer.model, or learned from the rows."""
    folder = root / "tokenizer"
    if folder.exists():
        return folder
    from transformers import AutoTokenizer

    from babeltune.modeling.vocabulary import train_tokenizer

    if given is None:
        made = train_tokenizer([prompt(row) + row["output"] for row in found], 32_000)
    else:
        copy = root / "tokenizer-given"
        shutil.copytree(given, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)
        copy.chmod(0o755)
        if not (copy / "tokenizer_config.json").exists():
            marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
            kind = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": True, "add_prefix_space": True}
            (copy / "tokenizer_config.json").write_text(json.dumps(kind | marks), encoding="utf-8")
        made = AutoTokenizer.from_pretrained(copy)
        made.pad_token = made.unk_token
    made.save_pretrained(folder)
    if given is not None and (given / "tokenizer.model").exists():
        shutil.copyfile(given / "tokenizer.model", folder / "tokenizer.model")
    return folder


def _model_folder(root: Path, words: Path, setting: Setting) -> Path:
    """A Llama with random weights; the same seed for every vocabulary and size."""
    folder = root / f"model-{setting.size}-{setting.vocabulary}"
    if folder.exists():
        return folder
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, inner = SIZES[setting.size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=setting.vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
    )
    partial = folder.with_suffix(".part")
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if setting.size == "7B" else former)
    with torch.device("cuda" if setting.size == "7B" else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(former)
    model.save_pretrained(partial)
    for path in words.iterdir():
        shutil.copyfile(path, partial / path.name)
    partial.rename(folder)
    return folder


def _write_lora(path: Path, size: str) -> None:
    import torch
    from safetensors.torch import save_file

    hidden, layers, _, _ = SIZES[size]
    generator = torch.Generator().manual_seed(1)
    bound = hidden**-0.5  # peft's, and the paper's code: kaiming_uniform with a = √5
    places = [f"{layer}.{name}" for layer in range(layers) for name in "qv"]
    save_file({place: (torch.rand(RANK, hidden, generator=generator) * 2 - 1) * bound for place in places}, path)


def _write_ordered(path: Path, model: Path, source: Path, found: list[dict[str, str]], setting: Setting) -> None:
    """The rows as babeltune meets them, each with its prompt, and as many tokens as babeltune gives it."""
    import babeltune
    from babeltune.data import preparing
    from babeltune.data.batching import Examples, Plan
    from babeltune.modeling import loading

    scratch = path.with_suffix(".scratch")
    config = babeltune.compose([*overrides(model, source, setting, scratch), "trainer=cpu", "precision=fp32"])
    way = preparing.writing(config, loading.load_tokenizer(config.model, None))
    ((store, taken),) = preparing.prepare(config, way, scratch).parts
    examples = Examples([(store, store.pool[taken.indices])])
    plan = Plan(examples.lengths, examples.target_counts, seed=0, epochs=1.0, global_batch=setting.batch)
    numbers = np.concatenate([plan.step(step) for step in range(plan.total_steps)])
    origins = store.origins[store.pool[taken.indices]][numbers]
    rows_ = [found[origin] | {"prompt": prompt(found[origin])} for origin in origins.tolist()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_), encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)


def fingerprint(data: Path | None, tokenizer: Path | None) -> str:
    """Tells apart works of other text, so that each has a folder of its own."""
    return hashlib.sha256(f"{data and data.resolve()}/{tokenizer and tokenizer.resolve()}".encode()).hexdigest()[:8]


def folder(text: str) -> Path | None:
    """An option's folder; an empty word is none, so that a Makefile may pass what is not set."""
    return Path(text).resolve() if text else None
