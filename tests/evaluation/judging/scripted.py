"""Judges that a test writes, at a real server, and what they are asked about."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from babeltune.judges import PROTOCOLS, EndpointJudge
from babeltune.options import JudgeConfig, RunConfig
from babeltune.records import Item, Message, Reply
from tests.chatserver import Asked, answer
from tests.finished import composed

FENCED = re.compile(r"<(answer-[0-9a-f]{16})>\n(.*?)\n</\1>", re.DOTALL)


def config(judge: JudgeConfig) -> RunConfig:
    made = composed("data=toy_zh", "evaluation=toy_zh")
    return replace(made, judge=judge, evaluation=replace(made.evaluation, name="s"))


def endpoint(url: str, protocol: str = "belle", **options: Any) -> EndpointJudge:
    assert protocol in PROTOCOLS
    return EndpointJudge(**({"url": url, "model": "judge", "protocol": protocol, "retries": 1, "timeout": 5.0} | options))


def items(count: int, category: str = "open qa", **more: Any) -> list[Item]:
    return [
        Item(f"q{number}", (Message("user", f"问题{number}"),), f"答案{number}", category, "zh", **more) for number in range(count)
    ]


def replies(items: Sequence[Item], text: Callable[[int], str] = "回答{}。".format) -> list[Reply]:
    return [Reply(item.id, text(number), "stop", 3) for number, item in enumerate(items)]


def content(asked: Asked) -> str:
    said: str = asked.body["messages"][-1]["content"]
    return said


def number_of(asked: Asked) -> int:
    """Which of `items` a judge is asked about."""
    found = re.search(r"问题(\d+)", content(asked))
    assert found
    return int(found[1])


def shown(asked: Asked) -> list[str]:
    """The replies that a judge sees between the marks, in order."""
    return [text for _, text in FENCED.findall(content(asked))]


def outside(asked: Asked) -> str:
    """What a judge is told, without the replies."""
    return FENCED.sub("", content(asked))


def saying(text: str | Callable[[Asked], str]) -> Callable[[Asked, int], bytes]:
    """A judge of one mind."""
    return lambda asked, number: answer(text if isinstance(text, str) else text(asked))
