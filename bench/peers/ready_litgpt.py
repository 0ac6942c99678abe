"""The model as LitGPT stores models, made once beside the original; not part of what is timed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from litgpt.config import name_to_config
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

from peers import task


def folder(setup: task.Task) -> Path:
    return Path(f"{setup.model}-litgpt")


def main() -> None:
    setup = task.read()
    target = folder(setup)
    if target.exists():
        return
    settings = json.loads((Path(setup.model) / "config.json").read_text(encoding="utf-8"))
    name_to_config["bench"] = {
        "name": "bench",
        "block_size": settings["max_position_embeddings"],
        "vocab_size": settings["vocab_size"],
        "padded_vocab_size": settings["vocab_size"],
        "n_layer": settings["num_hidden_layers"],
        "n_head": settings["num_attention_heads"],
        "n_embd": settings["hidden_size"],
        "intermediate_size": settings["intermediate_size"],
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "norm_class_name": "RMSNorm",
        "norm_eps": settings["rms_norm_eps"],
        "mlp_class_name": "LLaMAMLP",
    }
    partial = target.with_suffix(".part")
    shutil.copytree(setup.model, partial, dirs_exist_ok=True)
    convert_hf_checkpoint(partial, model_name="bench")
    partial.rename(target)


if __name__ == "__main__":
    main()
