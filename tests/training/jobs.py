"""What the processes that these tests start run: real cells, small ones, and hands that break things on purpose."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft  # noqa: F401 imported here, once, for every process that is forked from this one
import torch
import wandb  # noqa: F401 the same

from babeltune import mirroring, runner
from babeltune.config import compose
from babeltune.data import preparing
from babeltune.errors import BabelTuneError
from babeltune.modeling.loading import fresh_model
from babeltune.modeling.pieces import whole
from babeltune.modeling.vocabulary import train_tokenizer
from babeltune.options import RunConfig
from babeltune.records import Conversation
from babeltune.training import fitting
from babeltune.training import module as modules
from tests import wandb_server

REFUSED, PREEMPTED = 3, 143

OVERRIDES = (
    "data=toy_all",
    *(f"data.sources.toy_{language}.toy.rows=40" for language in ("zh", "vi", "en")),
    "data.max_rows=44",
    "data.max_tokens=224",
    "model=tiny",
    "model.from_cell=null",
    "adapter=lora",
    "adapter.dropout=0.2",
    "trainer.micro_tokens=448",
    "trainer.checkpoint_steps=3",
    "optimizer.epochs=2",
    "optimizer.global_batch=8",
    "optimizer.schedule=cosine",
    "optimizer.warmup_fraction=0.3",
    "optimizer.learning_rate=0.02",
    "evaluation=none",
    "scale=paper",
    "logger=none",
)
"""Twelve steps in two epochs, of several micro-batches each; dropout, warm-up and cosine."""
STEPS = 12

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def config(outputs: Path, *overrides: str) -> RunConfig:
    """`OVERRIDES` with others; another adapter has other settings."""
    has_other = any(word.startswith("adapter=") for word in overrides)
    usual = [word for word in OVERRIDES if not (has_other and word.startswith("adapter"))]
    return compose([*usual, f"model.path={outputs / 'base'}", *overrides, f"paths.outputs={outputs}"])


def write_base(outputs: Path) -> None:
    """A random Llama, and a tokenizer that knows the words of the mix."""
    sources = config(outputs).data.sources.values()
    rows = [row for source in sources for row in preparing.conversations(source, outputs, 0.0)]
    texts = [message.text for row in rows if isinstance(row, Conversation) for message in row.messages]
    tokenizer = train_tokenizer(texts, 600)
    for part in (tokenizer, fresh_model(LLAMA, len(tokenizer), seed=0)):
        part.save_pretrained(outputs / "base")


def train(
    outputs: Path,
    overrides: tuple[str, ...] = (),
    *,
    log: Path,
    environment: dict[str, str] | None = None,
    sabotage: Callable[[], None] = lambda: None,
) -> None:
    """Run a cell as a worker does. Ends with 0, REFUSED after one sentence, PREEMPTED, or 1 with a traceback."""
    train_many(outputs, (overrides,), log=log, environment=environment, sabotage=sabotage)


def train_many(
    outputs: Path,
    cells: tuple[tuple[str, ...], ...],
    *,
    log: Path,
    environment: dict[str, str] | None = None,
    sabotage: Callable[[], None] = lambda: None,
) -> None:
    """Run one cell after another in this process."""
    os.setsid()
    os.environ.update(environment or {})
    record = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(record, 1)
    os.dup2(record, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s", force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    sabotage()
    try:
        if not (outputs / "base").exists():
            write_base(outputs)
        for overrides in cells:
            runner.run(config(outputs, *overrides))
    except runner.Preempted as stop:
        print(stop)
        code = PREEMPTED
    except BabelTuneError as error:
        print(f"error: {error}")
        code = REFUSED
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    os._exit(code)


def train_each(
    outputs: Path,
    cells: tuple[tuple[str, ...], ...],
    *,
    log: Path,
    environment: dict[str, str] | None = None,
    sabotage: Callable[[], None] = lambda: None,
) -> None:
    """Run one cell of several processes after another, each with a meeting place of its own."""
    real = runner.run
    met = 0

    def run(cell: Any) -> None:
        nonlocal met
        if "MASTER_PORT" in os.environ:
            os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + bool(met))
        met += 1
        with contextlib.suppress(SystemExit):  # what is left of a cell is for the first process
            real(cell)

    runner.run = run  # type: ignore[assignment]
    train_many(outputs, cells, log=log, environment=environment, sabotage=sabotage)


class KilledIn:
    """SIGKILL in the middle of writing the checkpoint of a step: when half of it is there, or when it has yet to be renamed."""

    def __init__(self, step: int, moment: str) -> None:
        self.step, self.moment = step, moment

    def __call__(self) -> None:
        real = getattr(os, self.moment)

        def deadly(first: Any, *rest: Any) -> None:
            name = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            if f"step-{self.step:08d}.ckpt" in name:
                if self.moment == "fsync":
                    os.truncate(name, os.path.getsize(name) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            real(first, *rest)

        setattr(os, self.moment, deadly)


class AtStep:
    """Does something right before a step, in one of the cell's processes, or in all."""

    def __init__(self, step: int, action: Callable[[Any], None], rank: int | None = 0) -> None:
        self.step, self.action, self.rank = step, action, rank

    def __call__(self) -> None:
        real = modules.CausalLMModule.training_step

        def step(module: Any, batch: Any, number: int) -> None:
            if batch.step == self.step and self.rank in (None, int(os.environ.get("RANK", "0"))):
                self.action(module)
            real(module, batch, number)

        modules.CausalLMModule.training_step = step  # type: ignore[method-assign]


def kill_me(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate_me(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def preempt_me(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def fail(_: Any) -> None:
    raise RuntimeError("a library's")


def interrupt_me(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def spoil_a_weight(module: Any) -> None:
    next(parameter for parameter in module.parameters() if parameter.requires_grad).data.fill_(torch.nan)


def spoil_the_gradient(module: Any) -> None:
    parameter = next(parameter for parameter in module.parameters() if parameter.requires_grad)
    parameter.register_hook(lambda gradient: gradient * torch.inf)


class Diary:
    """Notes, at every step, what only the process itself can see."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> None:
        real = modules.CausalLMModule.training_step
        rank = os.environ.get("RANK", "0")

        def step(module: Any, batch: Any, number: int) -> None:
            before = [float(part.double().abs().sum()) for part in module.parameters() if part.requires_grad]
            masks: list[bytes] = []
            handles = [
                part.register_forward_hook(lambda _, __, output: masks.append((output == 0).numpy().tobytes()))
                for part in module.modules()
                if isinstance(part, torch.nn.Dropout) and part.p > 0
            ]
            real(module, batch, number)
            for handle in handles:
                handle.remove()
            note = {
                "step": batch.step,
                "rank": rank,
                "examples": batch.examples,
                "micro_batches": len(batch.micro_batches),
                "is_training": all(part.training for part in module.modules()),
                "is_dropping": any(any(mask) for mask in masks),
                "draw": torch.rand(4).tolist(),
                "adapter": before,
            }
            with open(self.path, "a") as file:
                file.write(json.dumps(note) + "\n")

        modules.CausalLMModule.training_step = step  # type: ignore[method-assign]


class Gradients:
    """Keeps what the optimizer gets at each step, weights and gradients: files named for the adapter, the step and the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        real = modules.CausalLMModule._clip

        def clip(module: Any, optimizer: Any) -> float:
            parts = {name: part.grad for name, part in module.model.named_parameters() if part.requires_grad}
            assert all(gradient is not None for gradient in parts.values()), "every trained weight has a gradient"
            kind = module.trainer.logger.path.parent.name.split("-")[2]
            rank = os.environ.get("RANK", "0")
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(parts, self.folder / f"{kind}-{module.global_step}-{rank}.gradients.pt")
            weights = {name: part.detach() for name, part in module.model.named_parameters() if part.requires_grad}
            torch.save(weights, self.folder / f"{kind}-{module.global_step}-{rank}.weights.pt")
            return real(module, optimizer)

        modules.CausalLMModule._clip = clip  # type: ignore[method-assign]


def impatient() -> None:
    """Waits for a server a tenth of the time."""
    mirroring.SERVER_SECONDS /= 10


class StopServer:
    """Before a step, takes a W&B server away; and waits for it a tenth of the time."""

    def __init__(self, step: int, address: str) -> None:
        self.step, self.address = step, address

    def __call__(self) -> None:
        impatient()
        AtStep(self.step, lambda _: wandb_server.stop(self.address))()


class Both:
    """Two hands."""

    def __init__(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        self.first, self.second = first, second

    def __call__(self) -> None:
        self.first()
        self.second()


class OnCpu:
    """Lets DeepSpeed run without a GPU, for a config that says `trainer.strategy=ddp`: ours refuses it, as Lightning does."""

    def __call__(self) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        from lightning.pytorch.strategies import ParallelStrategy

        from babeltune.training import zero

        class CpuZero(zero.ZeroStrategy):
            root_device = property(lambda self: torch.device("cpu", self.local_rank))  # type: ignore[assignment]

            def setup_environment(self) -> None:
                ParallelStrategy.setup_environment(self)
                self.accelerator.setup_device(self.root_device)
                self.set_world_ranks()
                self._init_deepspeed_distributed()

        fitting._strategy = lambda trainer, clip: CpuZero(clip=clip, process_group_backend="gloo")  # type: ignore[assignment]


class OtherCell:
    """Makes one rank believe that its cell is another one."""

    def __call__(self) -> None:
        if os.environ.get("RANK") == "1":
            real = fitting.SameCell
            fitting.SameCell = lambda facts: real(facts | {"cell": "another"})  # type: ignore[assignment, misc]


class Holdings:
    """Notes, after a cell's first step, how many numbers of the model and of the optimizer lie in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> None:
        real = modules.CausalLMModule.training_step

        def step(module: Any, batch: Any, number: int) -> None:
            real(module, batch, number)
            if batch.step == 0:
                moments = [one["exp_avg"] for one in module.optimizers().state.values()]
                held = {
                    "weights": sum(map(_held_here, module.parameters())),
                    "optimizer": sum(map(_held_here, moments)),
                }
                with open(self.path, "a") as file:
                    file.write(json.dumps(held) + "\n")

        modules.CausalLMModule.training_step = step  # type: ignore[method-assign]


def _held_here(part: Any) -> int:
    return int((part.to_local() if hasattr(part, "to_local") else part).numel())


class NoteWeights:
    """Writes what is trained and both moments of the optimizer, whole, as they are right before a step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, module: Any) -> None:
        trained = {name: part for name, part in module.model.named_parameters() if part.requires_grad}
        state = module.optimizers().state
        noted = {f"weight {name}": whole(part) for name, part in trained.items()}
        noted |= {f"{key} {name}": whole(value) for name, part in trained.items() for key, value in state[part].items()}
        if os.environ.get("RANK", "0") == "0":
            torch.save({name: part.detach().clone() for name, part in noted.items()}, self.path)
