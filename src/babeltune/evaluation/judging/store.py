"""What a judge answered, kept: nobody pays twice for the same question.

An answer is kept as the words that came, under the sha256 of everything that was asked: address, model, sampling, messages and
which repetition it is. How words are read is not part of it: another way of reading them asks nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from babeltune.data.cleaning.cache import key
from babeltune.endpoint import Completion, Outcome, Usage

FILE = "verdicts.sqlite"


def question_key(url: str, model: str, options: Mapping[str, Any], messages: Sequence[Mapping[str, str]], number: int) -> str:
    return key("judgement 1", url, model, dict(options), list(messages), number)


def is_kept(completion: Completion) -> bool:
    """Whether asking again would only cost money: the judge said something, or refused of its own accord.

    What the server refused by its status may be cured, what never came is asked for again.
    """
    match completion.outcome:
        case Outcome.answered | Outcome.truncated:
            return True
        case Outcome.refused:
            return bool(completion.finish)
    return False


def packed(completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "outcome": completion.outcome.value,
        "text": completion.text,
        "finish": completion.finish,
        "usage": [usage.prompt, usage.completion],
        "detail": completion.detail,
    }


def unpacked(value: Mapping[str, Any]) -> Completion:
    usage = Usage(*value["usage"])
    return Completion(Outcome(value["outcome"]), value["text"], value["finish"], usage, value["detail"], attempts=0)
