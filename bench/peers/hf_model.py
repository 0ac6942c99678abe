"""The model as transformers loads it, in the task's precision and on its device; for the Trainer and for TRL."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from peers import task


def load(setup: task.Task) -> Any:
    if setup.precision == "nf4":
        compute = torch.bfloat16 if setup.device == "cuda" else torch.float32
        four = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
        settings: dict[str, Any] = {"quantization_config": four, "device_map": {"": setup.device}, "dtype": compute}
    else:
        settings = {"dtype": torch.bfloat16 if setup.precision == "bf16" else torch.float32}
    return AutoModelForCausalLM.from_pretrained(setup.model, **settings)
