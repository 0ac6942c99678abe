"""HTML of shared chats becomes Markdown, and FastChat's filters each have their reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from babeltune.data.cleaning.chats import markdown, to_markdown, turns
from babeltune.records import Conversation, Dropped, Message
from babeltune.steps import MarkdownStep, TurnsStep

from .dialogues import TEXTS, at, chat, document, only, roles, texts

PAGE = (
    '1 / 2<div class="markdown prose"><p>Gọi <strong>a_b</strong> * x &lt; y:</p><pre><div class="bg"><div class="flex">python'
    '<button>Copy code</button></div><div><code class="hljs"><span class="k">def</span> f(a_b):\n'
    "    <span>return</span> List&lt;int&gt;\n\n\n"
    "end\n</code></div></div></pre><ol><li><p>多喝水</p></li><li>two</li></ol></div>"
)


def test_a_page_of_a_chat_becomes_markdown_with_its_code_fenced_by_language() -> None:
    assert to_markdown(PAGE) == (
        "Gọi **a_b** * x < y:\n\n```python\ndef f(a_b):\n    return List<int>\n\n\nend\n```\n\n1. 多喝水\n2. two"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a < b && c > d",
        "List<int> x = new List<int>();",
        "Nếu a < b thì <br> là thẻ gì?",
        "什么是 <div> 标签？<p> 呢？",
        "What does <p>hello</p> mean?",
        "```html\n<p>x</p>\n\n\n\n<div>y</div>\n```",
        "<div> is a box",
        "use `__init__` and *args, 2 * 3 * 4, &lt; &amp;",
        "1 / 2 cup of sugar",
        "5 / 10 = 0.5",
        "第 1 / 2 页",
        "def f():\n    if a < b:\n        return '<b>'",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
    ],
)
def test_what_is_no_html_keeps_every_sign(text: str) -> None:
    row = chat(text, text)
    assert only(markdown(MarkdownStep(), at()), row) is row


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("2 / 3\n你好", "你好"),
        ("2 / 3", ""),
        ("Xin chào\n\n\n\n\nbạn", "Xin chào\n\nbạn"),
        ("```\njavascriptCopy code\nlet x\n```", "```javascript\nlet x\n```"),
        ("```c++ Copy code\nint x;\n```", "```c++\nint x;\n```"),
        ("```\nCopy codeCopy code\nx\n```", "```\nx\n```"),
        ("A\n```\nCopy code\n```\nB", "A\nB"),
        ("答案Copy123 chars / 20 words", "答案"),
        ("press Copy code to copy", "press Copy code to copy"),
        ("<div>5 / 10 = 0.5</div>", "5 / 10 = 0.5"),
        ("<div>10 / 12你好</div>", "你好"),
        ("<p>x</p>\r\n<p>y</p>", "x\n\ny"),
        ("<ul><li>một</li><li>hai</li></ul>", "* một\n* hai"),
    ],
)
def test_buttons_and_noise_of_the_page_go(text: str, clean: str) -> None:
    assert to_markdown(text) == clean


@settings(deadline=None)
@given(TEXTS)
def test_any_text_can_be_converted_and_code_lines_keep_their_gaps(text: str) -> None:
    fenced = f"```\n{text.replace('`', '').replace('Copy', '').strip()}\n\n\n\nx\n```"
    assert to_markdown(fenced).endswith("\n\n\n\nx\n```")
    only(markdown(MarkdownStep(), at()), chat(text, text))


def through(*rows: Conversation, step: TurnsStep | None = None) -> list[Conversation | tuple[str, str]]:
    outcomes = list(turns(step or TurnsStep(), at())(list(rows)))
    assert len(outcomes) == len(rows)
    return [(outcome.reason, outcome.detail) if isinstance(outcome, Dropped) else outcome for outcome in outcomes]


def test_a_chat_begins_with_the_user_and_ends_with_the_assistant() -> None:
    (found,) = through(roles("assistant", "user", "assistant", "user"))
    assert isinstance(found, Conversation)
    assert [message.text for message in found.messages] == ["this is number 1", "this is number 2"]
    (found,) = through(roles("system", "assistant", "user", "assistant"))
    assert isinstance(found, Conversation)
    assert [message.role for message in found.messages] == ["system", "user", "assistant"]


def test_a_sound_chat_and_a_document_pass_as_they_are() -> None:
    rows = [chat("Thủ đô của Việt Nam?", "Hà Nội là thủ đô.", system="You help."), document("ChatGPT"), document("ChatGPT")]
    assert [one is row for one, row in zip(through(*rows), rows, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat("only a question"), ("one turn or none", "")),
        (roles("assistant"), ("one turn or none", "")),
        (roles("user", "user", "assistant"), ("roles do not alternate", "")),
        (roles("user", "assistant", "system", "user", "assistant"), ("roles do not alternate", "")),
        (chat("Who made you?", "我由 OpenAI 训练，是一个语言模型。"), ("blocked word", "openai")),
        (chat("Viết về CHATGPT cho tôi nhé", "Được."), ("blocked word", "chatgpt")),
        (chat("What is the weather?", "Too many requests in 1 hour. Try again later."), ("refusal", "")),
        (chat("A question that is long enough", " \n", "again, please", "fine"), ("empty first turns", "")),
        (chat("A question that is long enough", "\u200bhidden"), ("empty first turns", "")),
        (chat("你好", "你好！"), ("too few characters", "5")),
    ],
)
def test_every_filter_has_its_own_reason(row: Conversation, reason: tuple[str, str]) -> None:
    assert through(row) == [reason]


def test_a_refusal_counts_only_where_an_answer_begins_with_it() -> None:
    row = chat("Too many requests in 1 hour: why?", "It says: Too many requests in 1 hour.")
    assert through(row) == [row]


def test_a_chat_is_cut_before_the_first_empty_turn_and_stays_even() -> None:
    (found,) = through(chat("一二三四五六七八", "一二三四五六七八", "more?", "", "again?", "yes"))
    assert isinstance(found, Conversation)
    assert texts(found) == ["一二三四五六七八", "一二三四五六七八"]


def test_what_a_question_is_about_counts_as_said() -> None:
    row = Conversation(
        (Message("user", "Dịch", input="I like ChatGPT"), Message("assistant", "Tôi thích nó.")), "mine", "vi", "a:1"
    )
    assert through(row) == [("blocked word", "chatgpt")]
    assert through(row, step=TurnsStep(blocked=[])) == [row]


def test_of_chats_that_begin_with_the_same_pair_the_first_stays() -> None:
    one = chat("What is up today?", "The sky.", place="a.jsonl:7")
    other = chat("What is up today?", "The sky.", "And now?", "Still.")
    third = chat("What is up today?The", " sky.")
    assert through(one, other, third) == [one, ("same beginning", "as a.jsonl:7"), third]


def test_a_chat_that_is_dropped_leaves_its_beginning_to_the_next() -> None:
    bad, good = chat("What is up today?", "The sky.", "Who?", "ChatGPT"), chat("What is up today?", "The sky.")
    assert through(bad, good) == [("blocked word", "chatgpt"), good]


def test_repeated_digits_are_dropped_when_asked() -> None:
    row = chat("Số lớn nhất bạn biết?", "Nó là 1000000000 nhé.")
    assert through(row) == [row]
    assert through(row, step=TurnsStep(repeated_digits=9)) == [("repeated digits", "0")]
    assert through(row, step=TurnsStep(repeated_digits=10)) == [row]


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_kept_chat_has_an_empty_answer(one: str, two: str, three: str, four: str) -> None:
    (found,) = through(chat(one, two, three, four), step=TurnsStep(min_characters=0))
    if isinstance(found, Conversation):
        assert all(text.strip() for text in texts(found))
        assert len(found.messages) in (2, 4)
