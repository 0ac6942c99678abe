"""What others made and a cell only judges: adapters of peft, and recorded answers. Known by their bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from babeltune.errors import ConfigError, ModelError, problem
from babeltune.options import ModelConfig

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What peft writes and reads."""


def answers(path: str) -> str:
    """The digest of a file of answers. Raises ConfigError when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    except OSError as error:
        got = f"{path}, which cannot be read ({error.strerror or error})"
        hint = "model.answers=FILE, or paths.answers=FILE for a whole grid"
        raise ConfigError(problem("model.answers", got, "a file of JSON Lines", hint)) from error


def adapter(model: ModelConfig) -> dict[str, str]:
    """The digests of an adapter's files. Raises ModelError for a folder without them, and when no base is known."""
    assert model.adapter is not None
    folder = Path(model.adapter).expanduser()
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(_incomplete(folder, missing))
    settings = (folder / "adapter_config.json").read_text(encoding="utf-8")
    try:
        json.loads(settings)["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        got = f"{folder / 'adapter_config.json'} without a peft_type"
        raise ModelError(problem("model.adapter", got, "the settings of an adapter", "saving it with peft again")) from error
    if model.path is None and model.from_cell is None:
        got = f"{folder}, which names no base"
        raise ModelError(problem("model.adapter", got, "a base_model_name_or_path", "model.path=FOLDER of its base"))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ADAPTER_FILES}


def _incomplete(folder: Path, missing: list[str]) -> str:
    pickled = (folder / "adapter_model.bin").is_file() and "adapter_config.json" not in missing
    got = f"{folder} with a pickled adapter_model.bin" if pickled else f"{folder} without {' and '.join(missing)}"
    hint = "saving it with peft as safetensors: a pickled file may run code when it is loaded"
    return problem("model.adapter", got, "a folder that peft saved", hint if pickled else "the `adapter` folder of a cell")
