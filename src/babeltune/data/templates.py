"""Conversations laid out as text, with the parts marked that the model learns to write.

A template is the same in every language. For generation the same code lays out everything before the answer, so a
prompt is always the beginning of what was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, assert_never

from babeltune.errors import ConfigError, DataError, ModelError, nearest, problem
from babeltune.records import Message, Role, Segment

VERSION = 1
"""Of the code below: raised when the same template would give other text."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The tokenizer's marks, as text."""

    bos: str | None
    """What the tokenizer puts before every text; None when it puts nothing."""
    eos: str


@dataclass(frozen=True, slots=True)
class Blocks:
    """A template of fixed strings: a preamble, then blocks that repeat for each turn."""

    name: str
    preamble: str
    """Before the first turn; a system message takes its place."""
    turn: str
    """`{instruction}` (and `{input}`) up to where the answer starts."""
    preamble_with_input: str = ""
    turn_with_input: str = ""
    """For a user message with an input; without these two, input follows the instruction after `joint`."""
    after_question: str = ""
    """What follows a question's own end mark, up to where the answer starts; empty where questions have none."""
    joint: str = "\n"
    after_preamble: str = "\n\n"
    between_turns: str = "\n\n"
    """After the end mark of an answer that is not the last."""
    has_bos: bool = True


@dataclass(frozen=True, slots=True)
class Plain:
    """A document as it stands, all of it learned."""

    name: str = "plain"


class ChatTokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, *, tokenize: Any, add_generation_prompt: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Chat:
    """The tokenizer's own chat template. It writes its marks itself."""

    tokenizer: ChatTokenizer
    name: str = "chat"
    layouts: dict[tuple[tuple[Role, ...], bool], list[Segment]] = field(default_factory=dict, compare=False, repr=False)
    """Laid out once for each sequence of roles."""


Template: TypeAlias = Blocks | Plain | Chat

_BLOCKS = "### Instruction:\n{instruction}\n\n### Response:\n"

TEMPLATES: dict[str, Blocks | Plain] = {
    "alpaca": Blocks(
        "alpaca",
        preamble=("Below is an instruction that describes a task. Write a response that appropriately completes the request."),
        preamble_with_input=(
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request."
        ),
        turn=_BLOCKS,
        turn_with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    ),
    "belle": Blocks(
        "belle", preamble="", turn="Human: \n{instruction}\n\nAssistant: \n", joint="", between_turns="", has_bos=False
    ),
    "vicuna": Blocks(
        "vicuna",
        preamble=(
            "A chat between a curious user and an artificial intelligence assistant. "
            "The assistant gives helpful, detailed, and polite answers to the user's questions."
        ),
        turn="USER: {instruction} ASSISTANT: ",
        after_preamble=" ",
        between_turns="",
    ),
    "alpaca_zh": Blocks(  # our translation: the one that the cookbook compares with is not published
        "alpaca_zh",
        preamble="下面是一条描述任务的指令。请写出恰当完成该要求的回答。",
        preamble_with_input="下面是一条描述任务的指令，并附有提供更多背景的输入。请写出恰当完成该要求的回答。",
        turn="### 指令：\n{instruction}\n\n### 回答：\n",
        turn_with_input="### 指令：\n{instruction}\n\n### 输入：\n{input}\n\n### 回答：\n",
    ),
    "alpaca_cot": Blocks(  # the paragraph is Alpaca-CoT's, its slips of the pen included
        "alpaca_cot",
        preamble=(
            "Below is an multi-round dialogue between human and assistant. "
            "Write a response as an assistant that appropriately completes the human request in each round "
            "by incorporating previous context."
        ),
        turn="### Human: {instruction}\n",
        after_question="### Assistant: ",
        between_turns="",
    ),
    "vi_chat": Blocks("vi_chat", preamble="Hãy viết một phản hồi thích hợp cho chỉ dẫn dưới đây.", turn=_BLOCKS),
    "vi_doctor": Blocks(
        "vi_doctor",
        preamble="Nếu bạn là bác sĩ, vui lòng trả lời các câu hỏi y tế dựa trên mô tả của bệnh nhân.",
        turn=_BLOCKS,
    ),
    "plain": Plain(),
}


def choose(name: str, tokenizer: ChatTokenizer | None = None) -> Template:
    """The template of that name; `chat` is the tokenizer's own."""
    if name != "chat":
        if name not in TEMPLATES:
            known = [*TEMPLATES, "chat"]
            raise ConfigError(problem("template.name", repr(name), f"one of {', '.join(known)}", nearest(name, known)))
        return TEMPLATES[name]
    if tokenizer is None or not tokenizer.chat_template:
        raise ModelError(problem("template.name", "chat", "a tokenizer with a chat template", "template=vicuna"))
    return Chat(tokenizer)


def render(messages: Sequence[Message], template: Template, marks: Marks) -> list[Segment]:
    """A whole conversation for training: each answer is a target, and so is the end mark after it.

    >>> render((Message("user", "你好"), Message("assistant", "你好！")), TEMPLATES["belle"], Marks(None, "</s>"))[1:]
    [Segment(text='你好！', is_target=True, is_markup=False), Segment(text='</s>', is_target=True, is_markup=True)]
    """
    return _lay_out(messages, template, marks, is_prompt=False)


def render_prompt(messages: Sequence[Message], template: Template, marks: Marks) -> list[Segment]:
    """A conversation up to where the answer starts: the leading segments of what `render` makes of it answered."""
    return _lay_out(messages, template, marks, is_prompt=True)


def learn_everything(segments: Iterable[Segment]) -> list[Segment]:
    """The same text, all of it a target."""
    return [replace(segment, is_target=True) for segment in segments]


def digest(template: Template) -> str:
    """Changes when the template would lay anything out differently."""
    text = repr(template.tokenizer.chat_template) if isinstance(template, Chat) else repr(template)
    return hashlib.sha256(f"{VERSION}/{template.name}/{text}".encode()).hexdigest()


def _lay_out(messages: Sequence[Message], template: Template, marks: Marks, is_prompt: bool) -> list[Segment]:
    if [message.role for message in messages] == ["text"]:
        return list(_plain(messages[0].text, marks, is_prompt))
    match template:
        case Blocks():
            return list(_blocks(messages, template, marks))
        case Chat():
            return _chat(messages, template, is_prompt)
        case Plain():
            got = f"a conversation of {len(messages)} messages"
            raise DataError(problem("template=plain", got, "one text document", "template=alpaca or format=text"))
        case _:
            assert_never(template)


def _plain(text: str, marks: Marks, is_prompt: bool) -> Iterator[Segment]:
    if marks.bos:
        yield Segment(marks.bos, is_target=False, is_markup=True)
    yield Segment(text, is_target=True)
    if not is_prompt:
        yield Segment(marks.eos, is_target=True, is_markup=True)


def _blocks(messages: Sequence[Message], template: Blocks, marks: Marks) -> Iterator[Segment]:
    system, turns = (messages[0], messages[1:]) if messages[0].role == "system" else (None, messages)
    if template.has_bos and marks.bos:
        yield Segment(marks.bos, is_target=False, is_markup=True)
    before = _preamble(system, turns[0], template)
    for message in turns:
        if message.role == "assistant":
            yield Segment(message.text, is_target=True)
            yield Segment(marks.eos, is_target=True, is_markup=True)
            before = template.between_turns
        else:
            assert message.role == "user", message.role
            yield Segment(before + _turn(message, template), is_target=False)
            if template.after_question:
                yield Segment(marks.eos, is_target=False, is_markup=True)
                yield Segment(template.after_question, is_target=False)


def _preamble(system: Message | None, first: Message, template: Blocks) -> str:
    if system is not None:
        text = system.text
    elif first.input and template.preamble_with_input:
        text = template.preamble_with_input
    else:
        text = template.preamble
    return text + template.after_preamble if text else ""


def _turn(message: Message, template: Blocks) -> str:
    if message.input and template.turn_with_input:
        return template.turn_with_input.format(instruction=message.text, input=message.input)
    return template.turn.format(instruction=_joined(message, template.joint))


def _joined(message: Message, joint: str) -> str:
    return joint.join(part for part in (message.text, message.input) if part)


# The tokenizer's own template. It is laid out with a stand-in for each message: so what people wrote is told from what
# the template adds without searching for it, and nobody's text can pass for a special token.


def _chat(messages: Sequence[Message], template: Chat, is_prompt: bool) -> list[Segment]:
    roles = tuple(message.role for message in messages)
    layout = template.layouts.get((roles, is_prompt))
    if layout is None:
        layout = template.layouts[roles, is_prompt] = _chat_layout(roles, template, is_prompt)
    texts = [_joined(message, "\n") for message in messages]
    truth = _applied(roles, texts, template, is_prompt)
    for written in (texts, [text.strip() for text in texts]):
        segments = [_filled(segment, written) for segment in layout]
        if "".join(segment.text for segment in segments) == truth:
            return segments
    raise DataError(problem("template=chat", "a chat template that rewrites messages", "one that keeps them", "template=vicuna"))


def _chat_layout(roles: tuple[Role, ...], template: Chat, is_prompt: bool) -> list[Segment]:
    """The segments of any conversation with these roles, a stand-in for each message."""
    stand_ins = [_stand_in(place) for place in range(len(roles))]
    text = _applied(roles, stand_ins, template, is_prompt)
    segments: list[Segment] = []
    at = 0
    for place, role in enumerate(roles):
        if stand_ins[place] not in text[at:]:
            continue  # some templates leave the system message out; any other loss shows against the true text
        if role != "assistant":
            start = text.index(stand_ins[place], at)
            segments += [_markup(text[at:start]), Segment(stand_ins[place], is_target=False)]
            at = start + len(stand_ins[place])
            continue
        prompt = _applied(roles[:place], stand_ins, template, True)
        whole = _applied(roles[: place + 1], stand_ins, template, False)
        _check_prefix(text, prompt, whole)
        start = text.index(stand_ins[place], len(prompt))
        after = start + len(stand_ins[place])
        mark = whole[after:].rstrip()
        if not mark:
            got = "a chat template without an end mark"
            raise ModelError(problem("template=chat", got, "one that ends each answer", "template=vicuna"))
        segments += [
            _markup(text[at : len(prompt)]),
            _markup(text[len(prompt) : start], is_target=True),
            Segment(stand_ins[place], is_target=True),
            _markup(mark, is_target=True),
        ]
        at = after + len(mark)
    return [segment for segment in [*segments, _markup(text[at:])] if segment.text]


def _check_prefix(text: str, *beginnings: str) -> None:
    if not all(text.startswith(beginning) for beginning in beginnings):
        raise ModelError(
            problem(
                "template=chat",
                "a chat template that writes earlier turns differently once later ones follow",
                "one that only adds text",
                "template=vicuna, or a mix of single turns",
            )
        )


def _applied(roles: Sequence[Role], texts: Sequence[str], template: Chat, is_prompt: bool) -> str:
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    try:
        return str(template.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_prompt))
    except Exception as error:  # jinja's and the template's own
        got = f"{' '.join(str(error).split())[:200]} for {', '.join(roles)}"
        expected = "a chat template that accepts these turns"
        raise ModelError(problem("template=chat", got, expected, "template=vicuna")) from error


def _stand_in(place: int) -> str:
    """Text of private-use characters, which no template holds."""
    return f"\ue0ff{chr(0xE100 + place)}\ue0ff"


def _filled(segment: Segment, texts: Sequence[str]) -> Segment:
    if not segment.is_markup:
        return Segment(texts[ord(segment.text[1]) - 0xE100], segment.is_target)
    return segment


def _markup(text: str, is_target: bool = False) -> Segment:
    return Segment(text, is_target, is_markup=True)
