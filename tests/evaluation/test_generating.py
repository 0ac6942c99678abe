"""Replies do not depend on who is asked together; they end where the model ends them; reference losses are plain losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from babeltune.data import templates
from babeltune.data.preparing import Writing
from babeltune.data.rows import Document, collate
from babeltune.data.templates import Chat
from babeltune.errors import EvalError
from babeltune.evaluation.generating import end_marks, generate, reference_losses
from babeltune.evaluation.suites import answered
from babeltune.modeling.loss import target_losses
from babeltune.options import RunConfig
from babeltune.records import Item, Message, Reply
from tests.modeling import tiny

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<s>[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }} </s>{% endif %}{% endfor %}"
)


def _items() -> list[Item]:
    """Prompts of unsorted lengths."""
    questions = [
        "你好",
        "Xin chào các bạn " * 4,
        "a",
        "法国的首都是哪里？",
        "Translate this sentence. " * 2,
        "é🎉",
        "b c",
        "Thủ đô",
        "x",
    ]
    return [Item(f"i{n}", (Message("user", text),), f"reply {n}", "t", "en") for n, text in enumerate(questions)]


def _chat_tokenizer(template: str, *, special: bool = True) -> Any:
    tokenizer = tiny.train_tokenizer(tiny.TEXTS * 4, tiny.VOCABULARY - 2)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def _config(batch: int = 32, **settings: Any) -> RunConfig:
    made = tiny.config(**{"max_new_tokens": 12, **settings})
    return dataclasses.replace(made, evaluation=dataclasses.replace(made.evaluation, batch=batch))


def _ask(model: Any, settings: RunConfig, items: list[Item] | None = None, tokenizer: Any = None) -> list[Reply]:
    own = tokenizer or tiny.tokenizer()
    return generate(model, own, items or _items(), settings, tiny.writing(settings, own), lambda event, **facts: None)


def _overfit(model: Any, items: list[Item], way: Writing, steps: int = 40) -> None:
    """Teach a model the items' references word for word."""
    documents = []
    for item in items:
        segments = templates.render(answered(item), way.template, way.marks)
        (ids,) = way.encoder.encode([segments])
        flags = [segment.is_target for segment, part in zip(segments, ids, strict=True) for _ in part]
        flat = np.array([token for part in ids for token in part], np.int32)
        documents.append(Document(flat, np.array(flags), 0))
    batch = collate([documents], pad_id=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        losses = target_losses(model, batch.input_ids_BT, batch.position_ids_BT, batch.document_ids_BT, batch.labels_BT)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


DECODINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalty": {"repetition_penalty": 1.3},
    "sample": {"sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_new_tokens": 2},
    "beams": {"beams": 2},
    "sampled beams": {"beams": 2, "sample": True},
}


@pytest.mark.parametrize(
    ("family", "decoding"),
    [
        *(("llama", decoding) for decoding in DECODINGS),
        ("bloom", "greedy"),
        ("bloom", "penalty"),
        ("gptj", "greedy"),
        ("gptj", "sample"),
    ],
)
def test_replies_do_not_depend_on_who_is_asked_together(family: str, decoding: str) -> None:
    model = tiny.model(family)
    random = torch.Generator().manual_seed(1)
    if family == "bloom":  # untied, or it repeats the last word of every prompt
        model.lm_head.weight = torch.nn.Parameter(torch.randn(tiny.VOCABULARY, 64, generator=random))
    settings = {"template": "belle", "max_new_tokens": 8, **DECODINGS[decoding]}
    one_by_one, together = (_ask(model, _config(batch, **settings)) for batch in (1, 8))
    assert one_by_one == together
    assert len({reply.text for reply in together}) > 1
    assert [reply.item for reply in together] == [item.id for item in _items()]


@pytest.mark.parametrize("decoding", ["sample", "sampled beams"])
def test_sampling_depends_on_the_seed_and_the_item_alone(decoding: str) -> None:
    model, settings = tiny.model("llama"), _config(template="belle", **DECODINGS[decoding])
    first = _ask(model, settings)
    torch.manual_seed(99)
    assert _ask(model, settings, _items()[::-1]) == first[::-1]
    assert _ask(model, settings, _items()[3:5]) == first[3:5]
    assert _ask(model, dataclasses.replace(settings, seed=1)) != first
    renamed = [dataclasses.replace(item, id=f"other{item.id}") for item in _items()]
    assert [reply.text for reply in _ask(model, settings, renamed)] != [reply.text for reply in first]


def test_sampling_draws_each_token_as_often_as_the_model_says() -> None:
    model = tiny.model("llama")
    settings = _config(512, sample=True, max_new_tokens=1, top_k=5)
    items = [Item(f"n{number}", (Message("user", "a"),), "", "t", "en") for number in range(2000)]
    way = tiny.writing(settings)
    (parts,) = way.encoder.encode([templates.render_prompt(items[0].messages, way.template, way.marks)])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[token for part in parts for token in part]])).logits[0, -1]
    top = logits.topk(5)
    expected: dict[str, float] = {}
    for token, share in zip(top.indices.tolist(), top.values.softmax(0).tolist(), strict=True):
        text = "" if token == tiny.tokenizer().eos_token_id else way.encoder.decode([token], skip_special=True).strip()
        expected[text] = expected.get(text, 0) + share
    found = [reply.text for reply in _ask(model, settings, items)]
    assert set(found) <= set(expected)
    for text, share in expected.items():
        assert found.count(text) / 2000 == pytest.approx(share, abs=4 * (share * (1 - share) / 2000) ** 0.5)


def test_a_models_own_sampling_settings_are_not_used_and_not_lost() -> None:
    model = tiny.model("llama")
    plain = _ask(model, _config())
    own = GenerationConfig(
        do_sample=True, temperature=5.0, top_p=0.5, repetition_penalty=3.0, min_new_tokens=9, suppress_tokens=[5]
    )
    model.generation_config = own
    assert _ask(model, _config()) == plain
    assert model.generation_config is own


@pytest.mark.parametrize("was_training", [True, False])
def test_generating_leaves_the_model_in_the_mode_it_was_in(was_training: bool) -> None:
    model = tiny.model("llama").train(was_training)
    _ask(model, _config(), _items()[:1])
    assert model.training is was_training


@pytest.mark.parametrize("template", ["alpaca", "belle", "vicuna", "vi_chat", "vi_doctor", "chatml", "llama2"])
def test_a_prompts_ids_begin_the_ids_that_were_trained_on(template: str) -> None:
    tokenizer = _chat_tokenizer({"chatml": CHATML, "llama2": LLAMA2}.get(template, CHATML))
    settings = _config(template="chat" if template in ("chatml", "llama2") else template)
    way, seen = tiny.writing(settings, tokenizer), []
    model = tiny.model("llama")
    real = model.generate

    def note(input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> torch.Tensor:
        seen.extend(row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        padding = input_ids[attention_mask == 0].tolist()
        assert set(padding).isdisjoint(end_marks(model, tokenizer, way).ids)  # `repetition_penalty` would count them as said
        return real(input_ids=input_ids, attention_mask=attention_mask, **settings)

    model.generate = note
    items = _items()
    _ask(model, settings, items, tokenizer)
    wholes = way.encoder.encode([templates.render(answered(item), way.template, way.marks) for item in items])
    trained = [[token for part in parts for token in part] for parts in wholes]
    assert len(seen) == len(items)
    for prompt in seen:
        (whole,) = [ids for ids in trained if ids[: len(prompt)] == prompt]
        assert whole[len(prompt) :]
        assert prompt.count(tokenizer.bos_token_id) == (1 if template == "llama2" else 0)


@pytest.mark.parametrize("template", ["alpaca", "belle", "vicuna", "chatml", "llama2", "text mark"])
def test_a_reply_ends_at_the_end_mark_with_exactly_the_text_that_was_learnt(template: str) -> None:
    chat = {"chatml": CHATML, "llama2": LLAMA2, "text mark": CHATML}
    tokenizer = _chat_tokenizer(chat[template], special=template != "text mark") if template in chat else tiny.tokenizer()
    settings = _config(template="chat" if template in chat else template, max_new_tokens=40)
    texts = ["巴黎。\n是的", "Hà Nội!", "a  b"]
    items = [Item(f"i{n}", (Message("user", f"Q{n}"),), text, "t", "en") for n, text in enumerate(texts)]
    model = tiny.model("llama")
    _overfit(model, items, tiny.writing(settings, tokenizer))
    replies = _ask(model, settings, items, tokenizer)
    assert [reply.text for reply in replies] == texts
    assert {reply.finish for reply in replies} == {"stop"}


def _scripted(model: Any, script: list[int]) -> Any:
    """A model that writes these tokens after any prompt, then repeats the last."""
    prompt_width: list[int] = []

    def force(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if kwargs["input_ids"].shape[1] > 1:
            prompt_width.append(0)
        place = min(prompt_width[-1], len(script) - 1)
        prompt_width[-1] += 1
        output.logits = torch.full_like(output.logits, -10.0)
        output.logits[..., script[place]] = 10.0
        return output

    model.register_forward_hook(force, with_kwargs=True)
    return model


def test_each_end_mark_that_the_model_lists_ends_a_reply() -> None:
    tokenizer = _chat_tokenizer(CHATML)
    word, start, end = tokenizer.encode("a")[0], *tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    for mark in (tokenizer.eos_token_id, start):
        model = _scripted(tiny.model("llama"), [word, word, mark, word])
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, start, word]  # `a` is no special token: a stray id
        (reply,) = _ask(model, _config(), _items()[:1], tokenizer)
        assert reply == Reply("i0", "aa", "stop", 2)
    way = tiny.writing(_config(template="chat"), tokenizer)
    assert end_marks(model, tokenizer, way).ids == {tokenizer.eos_token_id, start, end}


def test_special_tokens_and_outer_space_do_not_come_into_a_reply() -> None:
    tokenizer = _chat_tokenizer(CHATML)
    ids = [
        *tokenizer.encode(" a"),
        tokenizer.pad_token_id,
        *tokenizer.convert_tokens_to_ids(["<|im_start|>"]),
        *tokenizer.encode("b\n"),
    ]
    (reply,) = _ask(
        _scripted(tiny.model("llama"), [*ids, tokenizer.eos_token_id]), _config(max_new_tokens=20), _items()[:1], tokenizer
    )
    assert (reply.text, reply.finish, reply.num_tokens) == ("ab", "stop", len(ids))


def test_a_reply_that_is_cut_says_so_and_holds_only_new_text() -> None:
    word = tiny.tokenizer().encode("a")[0]
    (reply,) = _ask(_scripted(tiny.model("llama"), [word]), _config(max_new_tokens=7), _items()[1:2])
    assert reply == Reply("i1", "aaaaaaa", "length", 7)


def test_a_prompt_that_is_too_long_keeps_its_end_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    settings = _config(max_new_tokens=200)  # of the 256 positions that the model has
    model, widths = tiny.model("gptj"), []
    model.register_forward_pre_hook(lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    items = [Item("long", (Message("user", "x" * 300),), "", "t", "en")]
    _ask(model, settings, items)
    assert widths[0] == 56
    assert "1 of 1 prompts are longer than 56 tokens and lose their beginning" in caplog.text
    with pytest.raises(
        EvalError, match=r"^decoding.max_new_tokens: got 256; expected fewer than the 256 positions of tiny_fresh; try"
    ):
        _ask(model, _config(max_new_tokens=256), items)


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_reference_losses_are_the_models_own(family: str) -> None:
    model, settings = tiny.model(family), _config()
    way = tiny.writing(settings)
    found = reference_losses(model, _items(), settings, way)
    assert list(found) == [item.id for item in _items()]
    for item in _items():
        segments = templates.render(answered(item), way.template, way.marks)
        (ids,) = way.encoder.encode([segments])
        answer = [*ids[-2], *ids[-1]]
        whole = torch.tensor([token for part in ids for token in part])
        with torch.no_grad():
            logits = model(input_ids=whole[None]).logits[0, -len(answer) - 1 : -1]
        total = float(cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        assert answer[-1] == tiny.tokenizer().eos_token_id
        assert found[item.id] == (pytest.approx(total, rel=1e-5), len(answer))


def test_an_answer_without_room_has_no_loss_and_one_with_some_room_has_a_part() -> None:
    settings = _config()
    way = tiny.writing(settings)
    (parts,) = way.encoder.encode([templates.render_prompt(_items()[0].messages, way.template, way.marks)])
    width = sum(map(len, parts))
    for room, expected in ((width, {}), (width + 2, {"i0": 2})):
        short = dataclasses.replace(settings, data=dataclasses.replace(settings.data, max_tokens=room))
        found = reference_losses(tiny.model("llama"), _items()[:1], short, way)
        assert {item: count for item, (_, count) in found.items()} == expected


def test_the_chat_template_is_the_tokenizers_own() -> None:
    assert isinstance(tiny.writing(_config(template="chat"), _chat_tokenizer(CHATML)).template, Chat)
