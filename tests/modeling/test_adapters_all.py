"""What holds for every kind of adapter: it trains, all of it, and comes back as it went."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from babeltune.alternatives import ALTERNATIVES
from babeltune.errors import ModelError
from babeltune.evaluation.generating import generate, reference_losses
from babeltune.modeling import adapters, loading
from babeltune.options import AdapterConfig, Precision
from babeltune.records import Item, Message
from tests.modeling import kinds, tiny

EACH = [(kind, family) for kind in kinds.KINDS for family in kinds.FAMILIES]
each = pytest.mark.parametrize(("kind", "family"), EACH, ids=["-".join(pair) for pair in EACH])
PEFT_HAS = [kind for kind in kinds.KINDS if kind not in ("sadapter_p", "sadapter_h", "padapter", "embeddings")]
MERGES = ("lora", "rslora", "dora", "adalora", "ia3")


def test_every_kind_is_tested() -> None:
    assert kinds.KINDS.keys() | {"none"} == ALTERNATIVES[AdapterConfig].keys()


@each
def test_all_of_an_adapter_learns_and_nothing_else_changes(kind: str, family: str) -> None:
    model, _ = kinds.attached(kind, family)
    before = {name: part.detach().clone() for name, part in model.named_parameters()}
    first, *_, last = [*kinds.train(model, 2), float(kinds.evaluated(model).mean())]
    assert last < first
    for name, part in model.named_parameters():
        assert torch.equal(before[name], part) != part.requires_grad, name


@each
def test_an_adapter_comes_back_from_its_folder_as_it_was_trained(kind: str, family: str, tmp_path: Path) -> None:
    model, settings = kinds.attached(kind, family)
    untrained = kinds.evaluated(model)
    kinds.train(model, 3)
    trained = kinds.evaluated(model)
    folder = adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]
    loaded = kinds.reloaded(family, tmp_path, settings)
    assert torch.equal(kinds.evaluated(loaded), trained)
    assert not torch.allclose(trained, untrained)
    if kind in PEFT_HAS:
        assert torch.equal(kinds.evaluated(PeftModel.from_pretrained(tiny.model(family), str(folder))), trained)


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(kind: str) -> None:
    model, settings = kinds.attached(kind, "llama")
    kinds.train(model, 2)
    state = copy.deepcopy(adapters.trainable_state(model))
    again = adapters.attach(tiny.model("llama"), dataclasses.replace(settings, seed=5))
    adapters.load_trainable(again, state)
    assert kinds.train(model, 3) == kinds.train(again, 3)


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_the_seed_alone_decides_how_an_adapter_starts(kind: str) -> None:
    model, settings = kinds.attached(kind, "llama")
    torch.manual_seed(99)
    again = adapters.trainable_state(adapters.attach(tiny.model("llama"), settings))
    assert all(torch.equal(again[name], part) for name, part in adapters.trainable_state(model).items())


@pytest.mark.parametrize(("kind", "family"), [(kind, family) for kind in MERGES for family in kinds.FAMILIES])
def test_a_merged_model_is_one_of_transformers_and_says_the_same(kind: str, family: str, tmp_path: Path) -> None:
    model, _ = kinds.attached(kind, family)
    kinds.train(model, 3)
    trained = tiny.logits(model)
    merged = adapters.merge(model)
    merged.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in tiny.model(family).named_parameters()}
    assert float((tiny.logits(plain) - trained).abs().max() / trained.abs().max()) < 1e-5  # another order of the same sums


@pytest.mark.parametrize("family", kinds.FAMILIES)
def test_trained_embeddings_are_merged_as_they_are(family: str, tmp_path: Path) -> None:
    model, _ = kinds.attached("embeddings", family)
    kinds.train(model, 2)
    trained = tiny.logits(model)
    adapters.merge(model).save_pretrained(tmp_path)
    assert torch.equal(tiny.logits(AutoModelForCausalLM.from_pretrained(tmp_path)), trained)


@pytest.mark.parametrize(
    ("kind", "got"),
    [(kind, "trained tokens in front of the text") for kind in kinds.VIRTUAL]
    + [(kind, "bottlenecks between the layers") for kind in ("sadapter_p", "sadapter_h", "padapter")],
)
def test_what_is_no_change_of_weights_cannot_be_merged(kind: str, got: str) -> None:
    model, _ = kinds.attached(kind, "bloom")
    with pytest.raises(ModelError) as caught:
        adapters.merge(model)
    assert str(caught.value) == (
        f"merge: got {got}; expected an adapter that is a change of the base's weights; "
        "try keeping base and adapter apart, or adapter=lora"
    )


@pytest.mark.parametrize("kind", ["lora", "embeddings"])
def test_nothing_is_merged_into_quantised_weights(kind: str, tmp_path: Path) -> None:
    settings = kinds.config(kind, "llama", tiny.save("llama", tmp_path), Precision.nf4)
    model = adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings)
    with pytest.raises(ModelError, match=r"^merge: got quantised weights; expected weights that a change can be added to exactly;"):
        adapters.merge(model)


QUANTISED = [(kind, precision) for kind in kinds.KINDS for precision in (Precision.int8, Precision.nf4)]
QUANTISED.remove(("dora", Precision.int8))


@pytest.mark.parametrize(("kind", "precision"), QUANTISED, ids=lambda value: getattr(value, "value", value))
def test_an_adapter_over_a_quantised_base_learns_and_comes_back(kind: str, precision: Precision, tmp_path: Path) -> None:
    settings = kinds.config(kind, "llama", tiny.save("llama", tmp_path / "base"), precision)
    model = adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings)
    before = {name: part.clone() for name, part in adapters.trainable_state(model).items()}
    first, *_, last = kinds.train(model, 3)
    assert last < first
    assert not [name for name, part in adapters.trainable_state(model).items() if torch.equal(part, before[name])]
    trained = kinds.evaluated(model)
    adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    loaded = adapters.load(loading.load_base(settings, None, len(tiny.tokenizer())), tmp_path, settings)
    assert torch.equal(kinds.evaluated(loaded), trained)


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_an_adapter_over_a_bfloat16_base_is_trained_in_float32(kind: str, tmp_path: Path) -> None:
    settings = kinds.config(kind, "llama", tiny.save("llama", tmp_path), Precision.bf16)
    model = adapters.attach(loading.load_base(settings, None, len(tiny.tokenizer())), settings)
    before = {name: part.clone() for name, part in adapters.trainable_state(model).items()}
    assert {part.dtype for part in before.values()} == {torch.float32}
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):  # around each step, as the trainer does: it keeps its casts until it ends
            kinds.train(model, 1)
    assert not [name for name, part in adapters.trainable_state(model).items() if torch.equal(part, before[name])]
    kinds.evaluated(model)  # and without it, as replies are made


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_a_step_at_a_tiny_rate_changes_every_matrix_of_an_adapter(kind: str) -> None:
    model, _ = kinds.attached(kind, "llama")
    kinds.train(model, 1)  # what starts at zero keeps the gradient from what stands before it
    before = {name: part.clone() for name, part in adapters.trainable_state(model).items()}
    assert {part.dtype for part in before.values()} == {torch.float32}
    kinds.train(model, 1, learning_rate=1e-5)
    assert not [name for name, part in adapters.trainable_state(model).items() if torch.equal(part, before[name])]


NOTHING_LEARNT = ("lora", "rslora", "dora", "adalora", "ia3", "sadapter_p", "embeddings")


@pytest.mark.parametrize("kind", NOTHING_LEARNT)
def test_an_adapter_that_changes_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    model, settings = kinds.attached(kind, "llama", **({"zero_start": True} if kind == "sadapter_p" else {}))
    if kind == "adalora":
        for name, part in model.named_parameters():
            if "lora_E" in name:
                part.data.zero_()
    adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    with pytest.raises(ModelError, match="got an adapter that changes nothing; expected trained weights;"):
        kinds.reloaded("llama", tmp_path, settings)


def items() -> list[Item]:
    said = ("你好", "Xin chào các bạn, hôm nay trời đẹp quá!", "The capital of France")
    return [Item(f"{place}", (Message("user", text),), "Paris", "", "zh") for place, text in enumerate(said)]


@each
def test_replies_do_not_depend_on_the_batch_and_see_the_adapter(kind: str, family: str) -> None:
    model, settings = kinds.attached(kind, family)
    kinds.train(model, 4, learning_rate=0.05)
    drawn = (
        {"sample": True, "temperature": 3.0} if family == "bloom" else {}
    )  # whose likeliest token is its last, whatever is trained
    settings = dataclasses.replace(settings, decoding=dataclasses.replace(settings.decoding, max_new_tokens=8, **drawn))
    way = tiny.writing(settings)

    def replies(size: int) -> list[str]:
        evaluation = dataclasses.replace(settings.evaluation, batch=size)
        chosen = dataclasses.replace(settings, evaluation=evaluation)
        return [reply.text for reply in generate(model, tiny.tokenizer(), items(), chosen, way, lambda event, **facts: None)]

    together = replies(3)
    assert together == replies(1)
    bare = generate(tiny.model(family), tiny.tokenizer(), items(), settings, way, lambda event, **facts: None)
    if (kind, family) not in (("prompt", "bloom"), ("p_tuning", "bloom")):  # so faint there that no drawn token differs
        assert together != [reply.text for reply in bare]
    assert reference_losses(model, items(), settings, way) != reference_losses(tiny.model(family), items(), settings, way)
