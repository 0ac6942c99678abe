"""What the options of a vocabulary's extension may get wrong."""

from __future__ import annotations

from collections.abc import Iterator

from babeltune.errors import problem
from babeltune.options import ExtendVocabularyStage, RunConfig


def check(config: RunConfig) -> Iterator[str]:
    """A sentence for each thing that is wrong."""
    stage = config.stage
    if not isinstance(stage, ExtendVocabularyStage):
        return
    for key in ("size", "max_lines", "measured_lines"):
        value = getattr(stage, key)
        if value is not None and value <= 0:
            yield problem(f"stage.{key}", value, "a number above zero", f"stage.{key}=1000")
    if not 0 < stage.coverage <= 1:
        yield problem("stage.coverage", stage.coverage, "a share above 0, at most 1", "stage.coverage=0.9995")
    where = "stage=extend_vocabulary"
    if not config.data.sources:
        yield problem(f"{where} with data={config.data.name}", "no text", "a mix to learn pieces from", "data=tcm_books")
    if config.model.tokenizer == "train":
        got, expected = "pieces to add to pieces of the same text", "a base with a tokenizer of its own"
        yield problem(f"{where} with model.tokenizer=train", got, expected, "model=tiny")
    if config.trainer.devices != 1:
        got = f"{config.trainer.devices} processes to learn one vocabulary"
        yield problem(f"{where} with trainer={config.trainer.name}", got, "one", "trainer=cpu")
