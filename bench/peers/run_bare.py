"""The yardstick: what this work costs with no framework at all.

Plain PyTorch modules of one's own. No padding: the examples of a micro-batch lie one after another, attention looks at each alone,
the output layer runs where there is a target and in pieces, and what is frozen gets no gradient.
"""

# N tokens of a micro-batch, H hidden size, D heads, E head size, V vocabulary, K targets

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from peers import task
from peers.clock import Clock

PIECE = 256
"""Targets whose logits are held at a time."""

Example = tuple[list[int], int]
"""Token ids, and how many of them are prompt."""


class Lora(nn.Module):
    """A frozen matrix with a low-rank update."""

    def __init__(self, weight: Tensor, first: Tensor, scale: float) -> None:
        super().__init__()
        self.weight, self.scale = weight, scale
        self.a = nn.Parameter(first.clone())
        self.b = nn.Parameter(torch.zeros(len(weight), len(first)))

    def forward(self, x_NH: Tensor) -> Tensor:
        update = (x_NH.to(self.a.dtype) @ self.a.T) @ self.b.T
        return x_NH @ self.weight.T + (update * self.scale).to(x_NH.dtype)


class Layer(nn.Module):
    """A layer of Llama."""

    def __init__(self, weights: dict[str, Tensor], number: int, settings: dict[str, Any], start: dict[str, Tensor], scale: float):
        super().__init__()
        self.w = {name: weights[f"model.layers.{number}.{name}.weight"] for name in NAMES}
        self.q = Lora(self.w["self_attn.q_proj"], start[f"{number}.q"], scale)
        self.v = Lora(self.w["self_attn.v_proj"], start[f"{number}.v"], scale)
        self.heads, self.eps = settings["num_attention_heads"], settings["rms_norm_eps"]

    def forward(self, x_NH: Tensor, turn: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        y_NH = rms_norm(x_NH, self.w["input_layernorm"], self.eps)
        q, k, v = (
            part.view(len(x_NH), self.heads, -1) for part in (self.q(y_NH), y_NH @ self.w["self_attn.k_proj"].T, self.v(y_NH))
        )
        q, k = rotate(q, turn), rotate(k, turn)
        parts = zip(*(whole.split(lengths) for whole in (q, k, v)), strict=True)
        seen = [attend(*(part.transpose(0, 1)[None] for part in document))[0].transpose(0, 1) for document in parts]
        x_NH = x_NH + torch.cat(seen).reshape(x_NH.shape) @ self.w["self_attn.o_proj"].T
        y_NH = rms_norm(x_NH, self.w["post_attention_layernorm"], self.eps)
        inner = silu(y_NH @ self.w["mlp.gate_proj"].T) * (y_NH @ self.w["mlp.up_proj"].T)
        return x_NH + inner @ self.w["mlp.down_proj"].T


NAMES = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    "input_layernorm",
    "post_attention_layernorm",
)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


def rotate(x_NDE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x_NDE.chunk(2, -1)
    cos, sin = turn
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Llama(nn.Module):
    def __init__(self, setup: task.Task) -> None:
        super().__init__()
        folder = Path(setup.model)
        self.settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
        weights = {name: weight.to(dtype) for name, weight in load_file(folder / "model.safetensors").items()}
        start, scale = load_file(setup.lora), setup.alpha / setup.rank
        count = self.settings["num_hidden_layers"]
        self.layers = nn.ModuleList(Layer(weights, number, self.settings, start, scale) for number in range(count))
        self.embedding, self.norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.head = weights["lm_head.weight"]
        size = self.settings["hidden_size"] // self.settings["num_attention_heads"]
        theta = self.settings.get("rope_theta") or self.settings["rope_parameters"]["rope_theta"]
        angles = torch.outer(torch.arange(setup.max_tokens), theta ** -(torch.arange(0, size, 2) / size))
        self.cos, self.sin = angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]

    def forward(self, examples: list[Example]) -> tuple[Tensor, int]:
        """The summed loss of the targets, and how many there are."""
        lengths = [len(ids) for ids, _ in examples]
        ids_N = torch.tensor([id for ids, _ in examples for id in ids])
        positions_N = torch.cat([torch.arange(length) for length in lengths])
        turn = self.cos[positions_N], self.sin[positions_N]
        x_NH = self.embedding[ids_N]
        for layer in self.layers:
            x_NH = layer(x_NH, turn, lengths)
        asks_K = torch.tensor(list(asking(examples)))
        hidden_KH = rms_norm(x_NH[asks_K], self.norm, self.settings["rms_norm_eps"])
        return HeadLoss.apply(hidden_KH, self.head, ids_N[asks_K + 1]), len(asks_K)


def asking(examples: list[Example]) -> Iterator[int]:
    """Positions whose next token is a target."""
    start = 0
    for ids, prompt in examples:
        yield from range(start + prompt - 1, start + len(ids) - 1)
        start += len(ids)


class HeadLoss(torch.autograd.Function):
    """Output layer and summed cross-entropy, a piece of the targets at a time; the gradient is made on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden_KH: Tensor, head_VH: Tensor, targets_K: Tensor) -> Tensor:
        total = torch.zeros(())
        gradients = []
        for hidden, targets in zip(hidden_KH.split(PIECE), targets_K.split(PIECE), strict=True):
            logits = (hidden @ head_VH.T).float()
            total += cross_entropy(logits, targets, reduction="sum")
            torch.softmax(logits, -1, out=logits)
            logits[torch.arange(len(targets)), targets] -= 1
            gradients.append(logits.to(head_VH.dtype) @ head_VH)
        ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scales[0].to(gradient.dtype), None, None


def encode(setup: task.Task) -> list[Example]:
    tokenizer = Tokenizer.from_file(f"{setup.model}/tokenizer.json")
    marks = json.loads((Path(setup.model) / "tokenizer_config.json").read_text(encoding="utf-8"))
    eos = tokenizer.token_to_id(marks["eos_token"])
    rows = setup.read_rows()
    prompts = tokenizer.encode_batch_fast([row["prompt"] for row in rows])
    wholes = tokenizer.encode_batch_fast([row["prompt"] + row["output"] for row in rows])
    pairs = zip(prompts, wholes, strict=True)
    return [([*whole.ids, eos][: setup.max_tokens], len(prompt.ids)) for prompt, whole in pairs]


def pieces(examples: list[Example], most: int) -> Iterator[list[Example]]:
    """Micro-batches of at most so many tokens."""
    part: list[Example] = []
    for example in examples:
        if part and sum(len(ids) for ids, _ in part) + len(example[0]) > most:
            yield part
            part = []
        part.append(example)
    yield part


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    examples, model, clock = encode(setup), Llama(setup), Clock()
    optimizer = torch.optim.AdamW(model.parameters(), lr=setup.rate, weight_decay=0.0)
    clock.begin()
    for step in range(setup.steps):
        batch = examples[step * setup.batch : (step + 1) * setup.batch]
        targets = sum(len(ids) - prompt for ids, prompt in batch)
        for part in pieces(batch, setup.micro * setup.max_tokens):
            loss, count = model(part)
            (loss / targets).backward()
            useful = sum(len(ids) for ids, _ in part)
            clock.micro(loss.item() / count, count, useful, useful)
        optimizer.step()
        optimizer.zero_grad()
        clock.step()
    clock.end()
    clock.write()


if __name__ == "__main__":
    main()
