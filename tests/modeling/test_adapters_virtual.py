"""Trained tokens in front of a text, against a computation done by hand on one text at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from babeltune.data.rows import Document, collate
from babeltune.modeling.virtual import generation_inputs, num_virtual
from tests.modeling import kinds, tiny

EACH = pytest.mark.parametrize(
    ("kind", "family"), [(kind, family) for kind in kinds.VIRTUAL for family in (*kinds.FAMILIES, "qwen2")]
)


def by_hand(model: Any, ids: list[int]) -> Tensor:
    """The logits of one text, from the trained weights and the plain base: no padding, no cache that is not the prefix itself."""
    lm, encoder = model.get_base_model(), model.prompt_encoder["default"]
    tokens = torch.tensor([ids])
    written = encoder(torch.arange(num_virtual(model)))  # K × H, or K × 2·layers·W
    if model.peft_config["default"].peft_type.value != "PREFIX_TUNING":
        embedded = torch.cat([written[None], lm.get_input_embeddings()(tokens)], dim=1)
        return lm(inputs_embeds=embedded, use_cache=False).logits[0, len(written) :]
    settings = lm.config
    heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    size = settings.hidden_size // settings.num_attention_heads
    layers = written.view(len(written), 2 * settings.num_hidden_layers, heads, size).permute(1, 2, 0, 3)[:, None]
    cache = DynamicCache()
    for layer in range(settings.num_hidden_layers):
        cache.update(layers[2 * layer], layers[2 * layer + 1], layer)
    return lm(input_ids=tokens, past_key_values=cache, attention_mask=torch.ones(1, len(written) + len(ids))).logits[0]


def trained(kind: str, family: str) -> Any:
    model, _ = kinds.attached(kind, family)
    kinds.train(model, 2, learning_rate=0.1)
    return model.eval()


@EACH
def test_losses_and_gradients_are_those_of_each_text_alone_behind_its_trained_tokens(kind: str, family: str) -> None:
    model = trained(kind, family)
    parts = [parameter for parameter in model.parameters() if parameter.requires_grad]
    texts = [kinds.document(4, 30), kinds.document(90, 19)]
    expected = torch.cat([_losses(by_hand(model, text.ids.tolist()), text) for text in texts])
    found = kinds.losses(model)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    pairs = zip(torch.autograd.grad(found.sum(), parts), torch.autograd.grad(expected.sum(), parts), strict=True)
    for one, two in pairs:
        assert float((one - two).abs().max()) <= 1e-4 * float(two.abs().max())  # sums of 30 products in another order


def _losses(logits: Tensor, text: Document) -> Tensor:
    ids = torch.from_numpy(text.ids).long()
    return cross_entropy(logits[:-1], ids[1:], reduction="none")[torch.from_numpy(text.targets[1:])]


@EACH
def test_a_reply_follows_its_trained_tokens_whatever_the_padding(kind: str, family: str) -> None:
    model = trained(kind, family)
    prompts = [list(range(20, 29)), list(range(7, 11))]
    mask = torch.tensor([[1] * 9, [0] * 5 + [1] * 4])
    ids = torch.tensor([prompts[0], [prompts[1][0]] * 5 + prompts[1]])
    with torch.no_grad():
        inputs = generation_inputs(model, ids, mask, 1)
        made = model.get_base_model().generate(
            **inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        written = made.sequences[:, inputs["input_ids"].shape[1] :]
        assert inputs["input_ids"].shape[1] == 9 + num_virtual(model)
        for row, prompt in enumerate(prompts):
            expected = by_hand(model, prompt + written[row].tolist())[len(prompt) - 1 : -1]
            found = torch.stack([step[row] for step in made.logits])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", kinds.VIRTUAL)
def test_beams_see_the_trained_tokens(kind: str) -> None:
    model = trained(kind, "llama")
    ids, mask = torch.arange(5, 14)[None].repeat(2, 1), torch.ones(2, 9, dtype=torch.long)
    with torch.no_grad():
        single, several = (
            model.get_base_model().generate(
                **generation_inputs(model, ids, mask, beams), num_beams=beams, max_new_tokens=1, do_sample=False
            )
            for beams in (1, 3)
        )
    assert torch.equal(single, several)


def test_texts_that_share_a_row_are_not_let_behind_trained_tokens() -> None:
    model = trained("prompt", "llama")
    shared = collate([[kinds.document(4, 9), kinds.document(40, 9)]], pad_id=0)
    with pytest.raises(AssertionError, match="texts behind trained tokens cannot share a row"):
        kinds.losses(model, shared)


@pytest.mark.parametrize("kind", ["p_tuning", "prefix"])
def test_a_checkpoint_keeps_the_network_that_writes_the_tokens_and_the_folder_only_what_it_wrote(kind: str, tmp_path: Any) -> None:
    from safetensors.torch import load_file

    from babeltune.modeling import adapters

    model, settings = kinds.attached(kind, "llama")
    kept = adapters.trainable_state(model)
    assert any(name.endswith(".embedding.weight") for name in kept)
    assert len(kept) >= 5
    folder = adapters.save(model, tiny.tokenizer(), tmp_path, settings)
    assert list(load_file(folder / "adapter_model.safetensors")) == ["prompt_embeddings"]


def test_there_are_no_trained_tokens_in_front_of_another_adapters_texts() -> None:
    for kind in ("lora", "sadapter_p", "embeddings"):
        assert num_virtual(kinds.attached(kind, "llama")[0]) == 0
