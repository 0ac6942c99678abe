"""The systems that are compared, each in an environment of its own below outputs/bench/venvs.

python bench/venvs.py            make those that are missing, and say what is in each
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import common

TORCH = "torch==2.13.0"


@dataclass(frozen=True, kw_only=True)
class System:
    """Who does the work."""

    title: str
    requirements: tuple[str, ...] = ()
    """What its environment has beside torch; empty for babeltune's own environment."""
    without: tuple[str, ...] = ()
    """What is taken out again: packages that come built for CUDA only and do not load beside a CPU's torch."""
    module: str | None = None
    """What is run; None for babeltune's own command."""
    note: str = ""
    """How its work differs from the others'."""


SYSTEMS = {
    "babeltune": System(title="babeltune"),
    "bare": System(title="bare PyTorch loop", module="peers.run_bare"),
    "hf": System(
        title="HF Trainer + peft",
        requirements=("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets==5.2.0"),
        module="peers.run_hf",
    ),
    "trl": System(title="TRL SFTTrainer", requirements=("trl==1.16.0", "peft==0.21.2"), module="peers.run_trl"),
    "llamafactory": System(
        title="LLaMA-Factory",
        requirements=("llamafactory==0.9.5",),
        without=("torchvision", "torchaudio"),
        module="peers.run_llamafactory",
    ),
    "litgpt": System(
        title="LitGPT",
        requirements=("litgpt==0.5.13", "safetensors", "tokenizers", "requests"),
        module="peers.run_litgpt",
        note="averages the means of its micro-batches",
    ),
    "torchtune": System(title="torchtune", requirements=("torchtune==0.6.1", "torchao==0.14.1"), module="peers.run_torchtune"),
    "axolotl": System(title="Axolotl", requirements=("axolotl==0.19.0",), module="peers.run_axolotl"),
}

REPORTED = (
    "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "trl", "llamafactory", "litgpt", "lightning",
    "torchtune", "torchao", "axolotl", "numpy",
)  # fmt: skip


class CannotInstall(Exception):
    """An environment could not be made; the words say why."""


def python(name: str) -> Path:
    """The interpreter of a system's environment, which is made first where it is not there. Raises CannotInstall."""
    system = SYSTEMS[name]
    if not system.requirements:
        return Path(sys.executable)
    folder = common.OUTPUTS / "venvs" / name
    mark = folder / ".installed"
    wanted = "\n".join((TORCH, *system.requirements))
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return folder / "bin" / "python"
    common.say(f"installing {', '.join(system.requirements)}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # torch first: a peer that wants another than the one compared is told apart from one that cannot be had
    for requirements in ([TORCH], [TORCH, *system.requirements]):
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise CannotInstall(f"{system.title} does not install: {common.last_words(done.stderr)}")
    if system.without:
        remove = [str(folder / "bin" / "python"), "-m", "pip", "uninstall", "--quiet", "--yes", *system.without]
        subprocess.run(remove, check=True, capture_output=True)
    mark.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def main() -> None:
    for name in SYSTEMS:
        try:
            found = common.versions(python(name), REPORTED)
            print(f"{name}: {', '.join(f'{package} {version}' for package, version in found.items())}")
        except CannotInstall as problem:
            print(f"{name}: {problem}")


if __name__ == "__main__":
    main()
