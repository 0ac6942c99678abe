"""What `python train.py --help` prints: every group, every option with a line, every key with its meaning."""

from __future__ import annotations

from pathlib import Path

from babeltune.config import CONF

ABOUT = """babeltune tunes one language model per data mix, judges each, and prints the table that compares them.

  python train.py                                   one run: a shipped mix on the embedded model
  python train.py -m data=zh_alpaca4,en_alpaca paths.data=FOLDER     a grid: one run per mix
  python train.py -m data=toy_zh,toy_vi seed=0,1    with two seeds each
  python train.py sweeps=demo                       a grid from a file
  python train.py -m data=... seed=0,1 hydra/launcher=slurm hydra.launcher.partition=gpu     on a cluster; or ray
  python train.py plan=true sweeps=demo             what a grid would take, nothing trained
  python train.py --cfg job                         the composed config

Change any value with key=value (optimizer.learning_rate=1e-4, adapter.rank=16); keys and their meanings are in
src/babeltune/options/. Groups and their options:
"""


def text() -> str:
    groups = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in ("source", "paper", "hydra"))
    groups.append(CONF / "hydra" / "launcher")
    return ABOUT + "".join(_group(group) for group in groups)


def _group(folder: Path) -> str:
    options = sorted(folder.glob("*.yaml"))
    width = max(len(path.stem) for path in options)
    lines = [f"  {path.stem:{width}}  {first_comment(path)}" for path in options]
    return f"\n{folder.relative_to(CONF).as_posix()}=\n" + "\n".join(lines) + "\n"


def first_comment(path: Path) -> str:
    """The line that a YAML file says of itself."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:]
    return ""
