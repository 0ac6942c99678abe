"""The loss of a packed row is the loss of its documents, each alone; and of a step, whatever it is cut into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from babeltune.data.batching import Examples, Plan, StepDataset
from babeltune.data.rows import Document, MicroBatch, collate, weightless
from babeltune.data.store import build_store
from babeltune.errors import ConfigError
from babeltune.modeling import loss, outputs
from babeltune.modeling.loading import fresh_model
from babeltune.modeling.loss import check_exact, hidden_states, target_losses
from babeltune.options import Layout
from babeltune.records import Conversation, Message, Segment
from tests.modeling import tiny

FAMILIES = list(tiny.FAMILIES)


def _documents(seed: int = 0, lengths: tuple[int, ...] = (9, 14, 5, 11)) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [Document(rng.integers(4, 300, n).astype(np.int32), np.arange(n) >= n // 3, 0) for n in lengths]


def _losses(model: Any, batch: MicroBatch) -> torch.Tensor:
    return target_losses(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT)


def _gradients(model: Any, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def _plain(model: Any, documents: list[Document]) -> torch.Tensor:
    """The summed loss of each document by itself, from the model's own full forward pass."""
    total = torch.zeros(())
    for document in documents:
        ids = torch.tensor(document.ids.tolist())
        targets = torch.tensor(document.targets.tolist())[1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total = total + cross_entropy(logits[targets].float(), ids[1:][targets], reduction="sum")
    return total


def _close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    """By the norm of the whole gradient: a single element near zero has no relative size."""
    assert one.keys() == other.keys()
    off = sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5
    size = sum(float(one[name].square().sum()) for name in one) ** 0.5
    assert off < tolerance * size


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_of_documents_have_the_loss_and_gradient_of_the_documents_one_by_one(family: str, layout: str) -> None:
    model, documents = tiny.model(family), _documents()
    rows = [documents[:3], documents[3:]] if layout == "packed" else [[document] for document in documents]
    alone = _plain(model, documents)
    together = _losses(model, collate(rows, pad_id=0)).sum()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    _close(_gradients(model, together), _gradients(model, alone), 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_first_document_leaves_the_second_as_it_was(family: str) -> None:
    model, (first, second, *_) = tiny.model(family), _documents()
    other = Document((first.ids + 7) % 300, first.targets, 0)
    outputs = []
    with torch.no_grad():
        for before in (first, other):
            batch = collate([[before, second]], pad_id=0)
            outputs.append(hidden_states(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT)[0])
    assert not torch.equal(outputs[0][:9], outputs[1][:9])
    torch.testing.assert_close(outputs[0][9:], outputs[1][9:], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_late_in_a_bfloat16_row_is_as_exact_as_one_alone(family: str) -> None:
    model = tiny.model(family).to(torch.bfloat16)
    late, early = _documents(lengths=(12, 200))
    with torch.no_grad():
        rows = [collate([row], pad_id=0) for row in ([late], [early, late])]
        alone, packed = (hidden_states(model, row.input_ids_BT, row.position_ids_BT, row.document_ids_BT)[0] for row in rows)
    # Rounding of other matrix shapes only; a bias of 200 positions, rounded to bfloat16, is off by a hundred times as much.
    torch.testing.assert_close(packed[200:].float(), alone.float(), rtol=0, atol=0.02 * float(alone.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_layer_in_chunks_gives_the_same_loss_and_gradient(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny.model(family), collate([_documents()], pad_id=0)
    whole = _losses(model, batch)
    expected = _gradients(model, whole.sum())
    monkeypatch.setattr(outputs, "CHUNK_LOGITS", 3 * tiny.VOCABULARY)
    monkeypatch.setattr(outputs, "LEAST_CHUNK", 1)
    sizes = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    chunked = _losses(model, batch)
    assert max(sizes) == 3
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)
    _close(_gradients(model, chunked.sum()), expected, 1e-6)


def test_the_output_layer_runs_only_where_there_is_a_target() -> None:
    model, documents = tiny.model("llama"), _documents()
    sizes = []
    model.lm_head.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    _losses(model, collate([documents], pad_id=0))
    assert sizes == [sum(int(document.targets.sum()) for document in documents)]


@pytest.mark.parametrize("chunk", [1 << 24, 3 * tiny.VOCABULARY])
def test_a_frozen_output_layer_gets_no_gradient(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(outputs, "LEAST_CHUNK", 1)
    model = tiny.model("gptj")
    model.lm_head.requires_grad_(False)
    found = _gradients(model, _losses(model, collate([_documents()], pad_id=0)).sum())
    assert "transformer.wte.weight" in found
    assert not [name for name in found if name.startswith("lm_head")]


def test_the_bias_of_gptjs_output_layer_counts() -> None:
    model, batch = tiny.model("gptj"), collate([_documents()], pad_id=0)
    before = _losses(model, batch)
    assert _gradients(model, before.sum())["lm_head.bias"].abs().sum() > 0
    with torch.no_grad():
        model.lm_head.bias.zero_()
    assert not torch.allclose(_losses(model, batch), before)


def test_a_weightless_batch_has_no_loss_and_a_gradient_of_zero() -> None:
    model = tiny.model("llama")
    losses = _losses(model, weightless(0))
    assert losses.shape == (0,)
    found = _gradients(model, losses.sum())
    assert "model.embed_tokens.weight" in found
    assert all(not gradient.any() for gradient in found.values())


def test_under_autocast_a_packed_row_keeps_its_documents_apart() -> None:
    model, documents = tiny.model("llama"), _documents()
    with torch.autocast("cpu", torch.bfloat16):
        packed = _losses(model, collate([documents], pad_id=0))
    exact = _losses(model, collate([documents], pad_id=0))
    torch.testing.assert_close(packed.mean(), exact.mean(), rtol=0.02, atol=0)  # 8 bits of mantissa


@pytest.mark.parametrize("family", FAMILIES)
def test_the_four_families_pass_the_check(family: str) -> None:
    check_exact(tiny.model(family), 256)


@pytest.mark.parametrize(("kind", "keys"), [("granite", {"logits_scaling": 8.0}), ("cohere", {"logit_scale": 0.0625})])
def test_a_family_that_scales_its_logits_is_refused(kind: str, keys: dict[str, float]) -> None:
    settings = {**tiny.LLAMA, **keys, "vocab_size": tiny.VOCABULARY, "pad_token_id": 0}
    settings.pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    with pytest.raises(ConfigError, match=rf"^model: got {kind}, whose packed logits differ from its own by [\d.]+ of their size;"):
        check_exact(model, 64)


def test_a_family_without_attention_is_refused() -> None:
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4, "vocab_size": tiny.VOCABULARY}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **settings))
    with pytest.raises(ConfigError, match=r"^model: got mamba, which cannot be packed \(.+\); expected a family whose"):
        check_exact(model, 64)


WINDOW = 16


def _windowed(**keys: Any) -> Any:
    settings = {**tiny.LLAMA, "model_type": "mistral", "sliding_window": WINDOW, **keys}
    model = fresh_model(settings, tiny.VOCABULARY, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.eval()


@torch.no_grad()
def _difference(model: Any, length: int) -> float:
    """How far our hidden states of one document are from the model's own."""
    ids = torch.arange(5, 5 + length)[None]
    own = model.model(input_ids=ids, use_cache=False).last_hidden_state
    ours = hidden_states(model, ids, torch.arange(length)[None], torch.zeros(1, length, dtype=torch.long))
    return float((own - ours).abs().max())


def test_a_model_whose_positions_depend_on_its_neighbours_gets_no_document_long_enough_for_that() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    rope |= {"original_max_position_embeddings": WINDOW, "partial_rotary_factor": 1.0}
    keys = tiny.LLAMA | {"model_type": "phi3", "rope_parameters": rope, "pad_token_id": 0}
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "original_max_position_embeddings": WINDOW}
    model = fresh_model(keys | sizes | {"max_position_embeddings": 128}, 320, 0)
    check_exact(model, WINDOW)
    with pytest.raises(ConfigError) as caught:
        check_exact(model, WINDOW + 1)
    assert str(caught.value) == (
        "model: got phi3, whose positions depend on the longest document of a row above 16 tokens; "
        "expected at least data.max_tokens=17; try data.max_tokens=16"
    )


def test_a_model_that_looks_back_a_few_tokens_gets_no_document_longer_than_that() -> None:
    model = _windowed()
    assert _difference(model, WINDOW) < 1e-5
    assert _difference(model, WINDOW + 1) > 1e-4, "one token more is seen by us and not by the model"
    assert _difference(model, 3 * WINDOW) > 1e-2
    check_exact(model, WINDOW)
    with pytest.raises(ConfigError) as caught:
        check_exact(model, WINDOW + 1)
    assert str(caught.value) == (
        "model: got mistral, whose layers look 16 tokens back; expected a look over data.max_tokens=17; try data.max_tokens=16"
    )


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"sliding_window": 16}, None),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, 16),
        ("gemma2", {"sliding_window": 16}, 16),
        ("phi3", {"sliding_window": 16, "pad_token_id": 0}, 16),
        ("llama4_text", {"attention_chunk_size": 16}, 16),
        ("gpt_neo", {"window_size": 16}, 16),
        ("llama", {}, None),
        ("bloom", {}, None),
    ],
)
def test_a_window_is_found_under_whatever_name_a_family_gives_it(kind: str, keys: dict[str, Any], expected: int | None) -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4} | ({} if kind == "gpt_neo" else {"num_hidden_layers": 2})
    assert loss.window(AutoConfig.for_model(kind, **sizes, **keys)) == expected


class Numbers:
    """Stands for an encoder: a character is a token."""

    def encode(self, conversations: list[list[Segment]]) -> list[list[list[int]]]:
        return [[[ord(letter) % 300 for letter in segment.text] for segment in segments] for segments in conversations]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    rows = []
    for number, (prompt, answer) in enumerate([(5, 1), (3, 30), (12, 4), (8, 17), (2, 2), (20, 9), (6, 25), (9, 3)]):
        question, reply = chr(70 + number) * prompt, "".join(chr(100 + (number * i) % 90) for i in range(answer))
        rows.append(Conversation((Message("user", question), Message("assistant", reply)), "s", "en", f"s:{number}"))

    def render(conversation: Conversation) -> list[Segment]:
        return [Segment(message.text, message.role == "assistant") for message in conversation.messages]

    folder = tmp_path_factory.mktemp("store")
    store = build_store({"source": "s"}, folder, rows, render, Numbers(), 40, lambda _: False)
    return Examples([(store, store.pool)])


def _step_gradient(model: Any, examples: Examples, layout: Layout, micro_tokens: int, world: int) -> dict[str, torch.Tensor]:
    """What the training loop accumulates for one step, averaged over ranks as DDP does."""
    plan = Plan(examples.lengths, examples.target_counts, seed=0, epochs=1, global_batch=8)
    model.zero_grad()
    for rank in range(world):
        batches = StepDataset(
            examples, plan, layout=layout, max_tokens=40, micro_tokens=micro_tokens, pad_id=0, rank=rank, world=world
        )[0]
        for micro in batches.micro_batches:
            (_losses(model, micro).sum() * (world / batches.num_targets) / world).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("layout", "micro_tokens", "world"),
    [
        (Layout.padded, 1, 1),
        (Layout.packed, 40, 1),
        (Layout.packed, 1000, 1),
        (Layout.padded, 80, 2),
        (Layout.packed, 40, 3),
        (Layout.padded, 1, 5),
    ],
)
def test_a_step_has_the_same_gradient_however_it_is_cut_and_dealt(
    examples: Examples, layout: Layout, micro_tokens: int, world: int
) -> None:
    model = tiny.model("llama").double()  # so that what is left is the way of counting, not rounding
    whole = _step_gradient(model, examples, Layout.padded, 10_000, 1)
    _close(_step_gradient(model, examples, layout, micro_tokens, world), whole, 1e-6)
    documents = [examples[i] for i in range(8)]
    num_targets = sum(int(document.targets.sum()) for document in documents)
    _close(_gradients(model, _plain(model, documents) / num_targets), whole, 1e-6)


def test_the_examples_of_the_step_test_are_not_alike(examples: Examples, tmp_path: Path) -> None:
    assert max(examples.target_counts) / min(examples.target_counts) >= 10
