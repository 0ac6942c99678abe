"""torchtune's recipe lora_finetune_single_device on its alpaca_dataset, in the given order."""

from __future__ import annotations

import importlib.util
import json
import sysconfig
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from peers import task
from peers.clock import Clock


def main() -> None:
    setup = task.read()
    torch.set_num_threads(1)
    if not (Path(setup.model) / "tokenizer.model").exists():
        raise SystemExit("Error: torchtune's Llama tokenizer needs a tokenizer.model: give one with --tokenizer")
    config = OmegaConf.create(settings(setup))
    recipe = _recipe().LoRAFinetuneRecipeSingleDevice(cfg=config)
    recipe.setup(cfg=config)
    task.start_alike(recipe._model, setup)
    clock = Clock()
    _let_in(clock, recipe, setup)
    clock.begin()
    recipe.train()
    recipe.cleanup()
    clock.write()


def _recipe() -> Any:
    """Recipes are files that are not meant to be imported as a package."""
    path = Path(sysconfig.get_path("purelib")) / "recipes" / "lora_finetune_single_device.py"
    spec = importlib.util.spec_from_file_location("recipe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _let_in(clock: Clock, recipe: Any, setup: task.Task) -> None:
    loss_step, step = recipe._loss_step, recipe._lr_scheduler.step
    made = {"steps": 0}

    def counted(batch: Any) -> Any:
        targets = int((batch["labels"][:, 1:] != -100).sum())
        useful, fed = int((batch["tokens"] != recipe._tokenizer.pad_id).sum()), batch["tokens"].numel()
        loss = loss_step(batch)
        clock.micro(float(loss.detach()), targets, useful, fed)
        return loss

    def stepped(*args: Any) -> None:
        step(*args)
        clock.step()
        made["steps"] += 1
        if made["steps"] == setup.steps:
            clock.end()

    recipe._loss_step, recipe._lr_scheduler.step = counted, stepped


def constant(optimizer: Any, num_training_steps: int, last_epoch: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0, last_epoch=last_epoch)


def settings(setup: task.Task) -> dict[str, Any]:
    shape = json.loads((Path(setup.model) / "config.json").read_text(encoding="utf-8"))
    model = {
        "_component_": "torchtune.models.llama2.lora_llama2",
        "lora_attn_modules": ["q_proj", "v_proj"],
        "apply_lora_to_mlp": False,
        "vocab_size": shape["vocab_size"],
        "num_layers": shape["num_hidden_layers"],
        "num_heads": shape["num_attention_heads"],
        "num_kv_heads": shape["num_attention_heads"],
        "embed_dim": shape["hidden_size"],
        "intermediate_dim": shape["intermediate_size"],
        "max_seq_len": shape["max_position_embeddings"],
        "norm_eps": shape["rms_norm_eps"],
        "lora_rank": setup.rank,
        "lora_alpha": setup.alpha,
        "lora_dropout": 0.0,
    }
    return {
        "model": model,
        "tokenizer": {
            "_component_": "torchtune.models.llama2.llama2_tokenizer",
            "path": f"{setup.model}/tokenizer.model",
            "max_seq_len": setup.max_tokens,
        },
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": setup.model,
            "checkpoint_files": ["model.safetensors"],
            "output_dir": f"{setup.out}/adapter",
            "model_type": "LLAMA2",
        },
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": True,
        "dataset": {
            "_component_": "torchtune.datasets.alpaca_dataset",
            "source": "json",
            "data_files": setup.rows,
            "train_on_input": False,
        },
        "seed": 0,
        "shuffle": False,
        "batch_size": setup.micro,
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": setup.rate, "weight_decay": 0.0},
        "lr_scheduler": {"_component_": "peers.run_torchtune.constant"},
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "epochs": 1,
        "max_steps_per_epoch": setup.steps,
        "gradient_accumulation_steps": setup.accumulate,
        "compile": False,
        "output_dir": f"{setup.out}/log",
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": f"{setup.out}/log"},
        "log_every_n_steps": 1,
        "device": "cpu",
        "dtype": setup.precision,
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
    }


if __name__ == "__main__":
    main()
