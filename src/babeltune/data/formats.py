"""What each source calls its fields, and how its rows become conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from babeltune.options import Format, SourceConfig
from babeltune.records import Conversation, Dropped, Message, Role, Row

Fields = Mapping[str, Any]

ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""Who speaks, by the words that sharegpt and messages rows use."""


def conversation(row: Row, source: SourceConfig) -> Conversation | Dropped:
    """The row as messages, texts unchanged; `Dropped` as bad when the source's format does not fit it."""
    fields = _renamed(row.fields, source.rename)
    try:
        messages = READERS[source.format](fields)
    except _BadRow as error:
        return Dropped(row.place, error.reason, error.detail, is_bad=True)
    return Conversation(tuple(messages), source.name, language(fields, source), row.place)


def unfolded(rows: Iterable[Row | Dropped], source: SourceConfig) -> Iterator[Row | Dropped]:
    """One row a conversation: a task of Natural Instructions becomes its instances, any other row stays as it is."""
    for row in rows:
        if source.format is Format.niv2 and isinstance(row, Row):
            yield from _instances(row)
        else:
            yield row


def _instances(task: Row) -> Iterator[Row | Dropped]:
    """A prompt and a response for each instance: the first of its outputs, and the task's definition before its input."""
    try:
        definition = "\n".join(_string(part, "Definition") for part in _list(task.fields, "Definition"))
        instances = _list(task.fields, "Instances")
    except _BadRow as error:
        yield Dropped(task.place, error.reason, error.detail, is_bad=True)
        return
    for number, instance in enumerate(instances):
        place = f"{task.place}:Instances[{number}]"
        if not isinstance(instance, dict):
            yield Dropped(place, "wrong type", f"got {_kind(instance)}; expected an object", is_bad=True)
            continue
        given, outputs = instance.get("input"), instance.get("output")
        prompt = f"{definition}\n\n{given}" if isinstance(given, str) else given
        response = outputs[0] if isinstance(outputs, list) and outputs else outputs
        yield Row(place, {"prompt": prompt, "response": response})


class _BadRow(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


def _renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """A renamed field wins over one that has the name already."""
    kept = {key: value for key, value in fields.items() if key not in names}
    return kept | {new: fields[old] for old, new in names.items() if old in fields}


def language(fields: Fields, source: SourceConfig) -> str:
    """The short tag: `zh` for `zh-CN` and `ZH`."""
    for key in ("lang", "language"):
        tag = fields.get(key)
        if isinstance(tag, str) and tag.strip():
            return tag.strip().replace("_", "-").split("-")[0].lower()
    return source.language


def _alpaca(fields: Fields) -> list[Message]:
    messages = []
    if system := _text(fields, "system", ""):
        messages.append(Message("system", system))
    for number, pair in enumerate(_list(fields, "history", [])):
        place = f"history[{number}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _BadRow("wrong type", f"got {_kind(pair)} as {place}; expected a pair of user and assistant")
        messages += [Message("user", _string(pair[0], place)), Message("assistant", _string(pair[1], place))]
    messages.append(Message("user", _text(fields, "instruction"), input=_text(fields, "input", "")))
    messages.append(Message("assistant", _text(fields, "output")))
    return messages


def _prompt_response(fields: Fields) -> list[Message]:
    return [Message("user", _text(fields, "prompt")), Message("assistant", _text(fields, "response"))]


def _sharegpt(fields: Fields) -> list[Message]:
    return _turns(fields, "conversations", "from", "value")


def _messages(fields: Fields) -> list[Message]:
    return _turns(fields, "messages", "role", "content")


def _document(fields: Fields) -> list[Message]:
    return [Message("text", _text(fields, "text"))]


READERS: dict[Format, Callable[[Fields], list[Message]]] = {
    Format.alpaca: _alpaca,
    Format.prompt_response: _prompt_response,
    Format.sharegpt: _sharegpt,
    Format.messages: _messages,
    Format.text: _document,
    Format.niv2: _prompt_response,
}


def _turns(fields: Fields, key: str, role_key: str, text_key: str) -> list[Message]:
    """A list of turns, from the first of a user to the last of an assistant, as FastChat cleans them."""
    messages = []
    for number, turn in enumerate(_list(fields, key)):
        place = f"{key}[{number}]"
        if not isinstance(turn, dict):
            raise _BadRow("wrong type", f"got {_kind(turn)} as {place}; expected an object")
        if role_key not in turn or text_key not in turn:
            raise _BadRow("missing field", f"got keys {_keys(turn)} in {place}; expected {role_key!r} and {text_key!r}")
        role = _string(turn[role_key], f"{place}.{role_key}").strip().lower()
        if role not in ROLES:
            raise _BadRow("unknown role", f"got {role!r} in {place}; expected {', '.join(ROLES)}")
        messages.append(Message(ROLES[role], _string(turn[text_key], f"{place}.{text_key}")))
    return _trimmed(messages)


def _trimmed(messages: list[Message]) -> list[Message]:
    start = 1 if messages and messages[0].role == "system" else 0
    head, turns = messages[:start], messages[start:]
    while turns and turns[0].role == "assistant":
        turns = turns[1:]
    while turns and turns[-1].role == "user":
        turns = turns[:-1]
    return head + turns


def _text(fields: Fields, key: str, default: str | None = None) -> str:
    """A field that is text; `default` when it is optional and missing or null."""
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if key not in fields:
        raise _BadRow("missing field", f"got keys {_keys(fields)}; expected {key!r}")
    return _string(value, key)


def _list(fields: Fields, key: str, default: list[Any] | None = None) -> list[Any]:
    value = fields.get(key)
    if value is None and default is not None:
        return default
    if key not in fields:
        raise _BadRow("missing field", f"got keys {_keys(fields)}; expected {key!r}")
    if not isinstance(value, list):
        raise _BadRow("wrong type", f"got {_kind(value)} as {key}; expected a list")
    return value


def _string(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _BadRow("wrong type", f"got {_kind(value)} as {place}; expected text")
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _keys(fields: Fields) -> str:
    return ", ".join(repr(key) for key in list(fields)[:12]) or "none"
