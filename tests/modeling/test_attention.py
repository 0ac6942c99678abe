"""Documents that lie side by side are kept apart by every kind of attention, and what they share is computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from babeltune.data.rows import Document, MicroBatch, Rowing, collate, flat_rows, flatten
from babeltune.errors import ConfigError
from babeltune.modeling import attention
from babeltune.modeling.loading import fresh_model
from babeltune.modeling.loss import check_exact, hidden_states, target_losses
from babeltune.options import Accelerator, Attention, RunConfig
from tests.modeling import tiny

FLAT = ["llama", "qwen2", "mistral", "neox"]
"""Families whose attention may be replaced: grouped heads, biases, another order of heads."""

NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def _model(family: str) -> Any:
    if family in tiny.FAMILIES:
        return tiny.model(family)
    keys = NEOX if family == "neox" else tiny.LLAMA | {"model_type": family}
    model = fresh_model(keys, tiny.VOCABULARY, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model.eval()


def _documents(*, shared: Sequence[int] = ()) -> list[Document]:
    """Two templates and a document that begins like none; lengths differ, and so does where targets begin."""
    rng = np.random.default_rng(0)
    beginnings = [rng.integers(4, 300, length).astype(np.int32) for length in shared]
    documents = []
    for number in range(7):
        head = beginnings[number % len(beginnings)] if beginnings and number < 6 else np.zeros(0, np.int32)
        body = rng.integers(4, 300, 9 + 3 * number).astype(np.int32)
        ids = np.concatenate([head, body])
        documents.append(Document(ids, np.arange(len(ids)) >= len(head) + 2 + number % 3, number % 2))
    return documents


def _losses(model: Any, kind: Attention, batches: Sequence[MicroBatch]) -> torch.Tensor:
    with attention.attending(model, kind):
        return torch.cat(
            [
                target_losses(
                    model, one.input_ids_BT, one.position_ids_BT, one.document_ids_BT, one.labels_BT, clusters=one.clusters
                )
                for one in batches
            ]
        )


def _gradients(model: Any, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses.sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def _rows(documents: list[Document], rowing: Rowing, micro_tokens: int) -> list[MicroBatch]:
    return [flatten(documents, row) for row in flat_rows(documents, rowing, micro_tokens)]


def _config(**changes: Any) -> RunConfig:
    config = tiny.config()
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, **changes))


@pytest.mark.parametrize("family", FLAT)
@pytest.mark.parametrize("rowing", [Rowing.flat, Rowing.shared])
@pytest.mark.parametrize("micro_tokens", [64, 10_000])
def test_flat_rows_have_the_loss_and_gradient_of_masked_ones(family: str, rowing: Rowing, micro_tokens: int) -> None:
    model, documents = _model(family), _documents(shared=(23, 11))
    masked = _losses(model, Attention.mask, [collate([[document] for document in documents], pad_id=0)])
    flat = _losses(model, Attention.documents, _rows(documents, rowing, micro_tokens))
    torch.testing.assert_close(flat.sum(), masked.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(flat.sort().values, masked.sort().values, rtol=2e-5, atol=2e-6)
    expected, found = _gradients(model, masked), _gradients(model, flat)
    off = sum(float((expected[name] - found[name]).square().sum()) for name in expected) ** 0.5
    assert expected.keys() == found.keys()
    assert off < 1e-5 * sum(float(one.square().sum()) for one in expected.values()) ** 0.5


def test_what_documents_begin_with_is_fed_once() -> None:
    documents = _documents(shared=(23, 11))
    plain, shared = (_rows(documents, rowing, 10_000) for rowing in (Rowing.flat, Rowing.shared))
    assert plain[0].input_ids_BT.shape[1] - shared[0].input_ids_BT.shape[1] == 2 * 23 + 2 * 11
    assert shared[0].clusters is not None
    assert sorted(cluster.prefix for cluster in shared[0].clusters) == [0, 11, 23]
    assert (shared[0].labels_BT >= 0).sum() == (plain[0].labels_BT >= 0).sum()


@pytest.mark.parametrize("family", FLAT)
@pytest.mark.parametrize("rowing", [Rowing.flat, Rowing.shared])
def test_no_document_of_a_flat_row_sees_another(family: str, rowing: Rowing) -> None:
    model, (first, second, *_) = _model(family), _documents(shared=(12,))
    ids = first.ids.copy()
    ids[13:] = (ids[13:] + 7) % 300
    others = [Document(changed, first.targets, 0) for changed in (first.ids, ids)]
    found = []
    with torch.no_grad(), attention.attending(model, Attention.documents):
        for other in others:
            (batch,) = _rows([other, second], rowing, 10_000)
            states = hidden_states(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.clusters)
            is_second = torch.isin(batch.labels_BT[0], torch.tensor(second.ids[second.targets].tolist()))
            found.append(states[0][is_second & (batch.document_ids_BT[0] == _number(batch, second))])
    assert len(found[0])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def _number(batch: MicroBatch, document: Document) -> int:
    """The id that a document's last token has in a flat row."""
    last = int(document.ids[-1])
    (places,) = torch.nonzero((batch.input_ids_BT[0] == last) & (batch.position_ids_BT[0] == len(document.ids) - 1)).T
    return int(batch.document_ids_BT[0, places[0]])


@pytest.mark.parametrize("family", [*FLAT, "gptj", "bloom"])
def test_auto_keeps_documents_apart_one_by_one_where_the_family_can(family: str) -> None:
    model = _model(family)
    kind = attention.choose(model, _config())
    assert kind is (Attention.documents if family in FLAT else Attention.mask)
    check_exact(model, 256, kind)


def test_a_family_that_hands_nothing_on_is_refused() -> None:
    model = _model("llama")
    for layer in model.model.layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {key: value for key, value in kwargs.items() if key != "documents"}), with_kwargs=True
        )
    with pytest.raises(ConfigError, match=r"cannot be packed \(its layers are not told where documents end\)"):
        check_exact(model, 256, Attention.documents)


def test_attention_of_another_form_is_refused() -> None:
    model = _model("llama")
    layer = model.model.layers[0]
    layer.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | ({"softcap": 5.0} if "documents" in kwargs else {})), with_kwargs=True
    )
    with pytest.raises(ConfigError, match=r"cannot be packed \(its attention has softcap\)"):
        check_exact(model, 256, Attention.documents)


@pytest.mark.parametrize(
    ("family", "wanted", "said"),
    [
        ("gptj", Attention.documents, "got gptj; expected a family whose attention transformers lets one replace; try "),
        ("llama", Attention.flash, "got a CPU; expected a GPU of 2020 or later and precision=bf16; try trainer.attention=auto"),
        ("llama", Attention.flex, "got trainer.accelerator=cpu; expected a GPU: on a CPU FlexAttention has no backward pass; try "),
    ],
)
def test_a_kind_that_cannot_be_had_is_refused(family: str, wanted: Attention, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        attention.choose(_model(family), _config(attention=wanted, accelerator=Accelerator.cpu))
    assert str(caught.value).startswith(f"trainer.attention={wanted.value}: {said}")


def test_the_model_attends_as_before_afterwards() -> None:
    model = _model("llama")
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError), attention.attending(model, Attention.documents):
        raise RuntimeError
    assert model.config._attn_implementation == before


def test_with_dropout_nothing_is_shared() -> None:
    model = _model("llama")
    assert attention.rowing(model.train(), Attention.documents, Accelerator.cpu) is Rowing.shared
    model.config.attention_dropout = 0.1
    assert attention.rowing(model, Attention.documents, Accelerator.cpu) is Rowing.flat
    assert attention.rowing(model.eval(), Attention.documents, Accelerator.cpu) is Rowing.shared
    model.config.attention_dropout = 0.0
    model.model.layers[1].mlp.dropout = torch.nn.Dropout(0.05)
    assert attention.rowing(model.train(), Attention.documents, Accelerator.cpu) is Rowing.flat
    assert attention.rowing(model, Attention.mask, Accelerator.cpu) is Rowing.even


def test_noise_that_a_family_draws_counts_as_dropout() -> None:
    model = _model("llama").train()
    assert not attention.drops(model)
    model.config.router = {"jitter_noise": 0.1}
    assert attention.drops(model)


def test_the_kernel_of_a_gpu_gets_what_it_takes() -> None:
    sixteen = torch.zeros(1, 2, 4, 64, dtype=torch.bfloat16)
    assert attention._fits(sixteen, sixteen, sixteen, 0.0)
    assert not attention._fits(sixteen, sixteen, sixteen, 0.1)
    assert not attention._fits(sixteen, sixteen, sixteen.float(), 0.0)
    assert not attention._fits(sixteen, sixteen, sixteen[..., :32], 0.0)
