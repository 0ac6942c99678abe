"""Babeltune from rows on disk to batches: `prepare`, then every step's rows packed and collated.

With the argument `warm` it ends at the first batch; with `mix` it prepares another mix of sources that are known.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import work

from babeltune import compose
from babeltune.data import preparing as product
from babeltune.data.batching import Examples, Plan, StepDataset
from babeltune.data.preparing import Mixed
from babeltune.modeling import loading
from babeltune.options import RunConfig
from peers import task
from peers.preparing import timed


def main(what: str) -> None:
    setup = task.read()
    cache = Path(setup.out)
    setting = work.Setting(size="S", vocabulary=32_000, precision="fp32", steps=setup.steps)
    words = [*work.overrides(Path(setup.model), Path(setup.data), setting, cache), "optimizer.max_steps=null"]
    config = compose([*words, *(["+data.take={alpaca35_en:{fraction: 0.5}}"] if what == "mix" else [])])
    tokenizer = loading.load_tokenizer(config.model, None)

    def prepare() -> dict[str, Any]:
        way = product.writing(config, tokenizer)
        before = stores(cache)
        mixed = product.prepare(config, way, cache)
        made = len(stores(cache) - before)
        facts = {"rows": mixed.ledger.num_rows, "tokens": mixed.ledger.num_tokens, "stores_made": made}
        return facts if what == "mix" else facts | batches(config, mixed, 1 if what == "warm" else None)

    timed(prepare)


def stores(cache: Path) -> set[str]:
    """The sources that have been tokenised."""
    return {path.name for path in (cache / "tokens").glob("*")} if (cache / "tokens").exists() else set()


def batches(config: RunConfig, mixed: Mixed, most: int | None) -> dict[str, Any]:
    """Every batch of an epoch, or the first; how full their rows are."""
    examples = Examples([(store, store.pool[taken.indices]) for store, taken in mixed.parts])
    plan = Plan(examples.lengths, examples.target_counts, seed=0, epochs=1.0, global_batch=config.optimizer.global_batch)
    dataset = StepDataset(
        examples,
        plan,
        layout=config.data.layout,
        max_tokens=config.data.max_tokens,
        micro_tokens=config.trainer.micro_tokens,
        pad_id=0,
    )
    steps = plan.total_steps if most is None else most
    fed = sum(micro.input_ids_BT.numel() for step in range(steps) for micro in dataset[step].micro_batches)
    return {"steps": steps, "fed": fed}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cold")
