"""Translation by a model, by a server and from a file: markup kept, each text paid for once, failures counted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel

from babeltune.data.cleaning.translating import translate
from babeltune.data.cleaning.translators import Seq2Seq
from babeltune.errors import ConfigError, DataError, ModelError
from babeltune.records import Conversation, Message
from babeltune.steps import TranslateStep
from tests.chatserver import Asked, Behaviour, answer, serving
from tests.data.cleaning.tiny import Rows, documents, drops, kept, outcomes, place, talk
from tests.modeling import tiny

DOCUMENT = """# A heading

Run `ls -l` first. It costs $5, see https://a.org/b?c=d.

```python
print("never touched")
```
- Let $x^2$ be <b>bold</b>, {name}!
Done."""


def translated(text: str) -> str:
    """What the server makes of a text: each word backwards, so that it can be told from the text and back."""
    return re.sub(r"[^\W\d_]+", lambda match: "ừ" + match[0][::-1], text)


def good(asked: Asked, number: int) -> bytes:
    return answer(translated(asked.text))


def chat(url: str, **options: Any) -> TranslateStep:
    settings = {"retries": 1, "timeout": 5.0, "max_failed": 1.0, "batch": 4} | options
    return TranslateStep(backend="endpoint", target="vi", model="tiny", url=url, **settings)


def run(behave: Behaviour, rows: Rows, folder: Path, **options: Any) -> tuple[list[Any], list[str], dict[str, Any]]:
    """The outcomes, the texts that the server was asked for, and the report. In the same folder it has the same address."""
    where = place(folder)
    ports = folder / "port"
    with serving(behave, int(ports.read_text()) if ports.exists() else 0) as server:
        ports.write_text(str(server.port))
        found = outcomes(translate, chat(server.url, **options), rows, where)
        return found, server.texts, where.report


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and no waiting between tries."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("babeltune.endpoint.LONGEST_WAIT", 0.001)


def test_every_message_is_translated_and_everything_else_stays(tmp_path: Path) -> None:
    before = talk("Name the capital", "Paris it is", given="of France", number=3)
    rows = Rows([before, talk("đã dịch", language="vi", number=4), talk("12 + 34 = ?", "46", number=5)])
    found, asked, report = run(good, rows, tmp_path)
    messages = (Message("user", "ừemaN ừeht ừlatipac", "ừfo ừecnarF"), Message("assistant", "ừsiraP ừti ừsi"))
    assert found[0] == Conversation(messages, before.source, "vi", before.place)
    assert found[1] is rows[1]
    assert found[2] == Conversation(rows[2].messages, "s", "vi", "s.jsonl:5")
    assert sorted(asked) == ["Name the capital", "Paris it is", "of France"]
    assert report == {"translated": 2, "not_translated": 0, "left": 1, "asked": 3, "markup_changed": 0}


def test_only_the_language_that_is_named_is_translated(tmp_path: Path) -> None:
    rows = Rows([talk("one", language="en"), talk("一", language="zh", number=1)])
    found, asked, report = run(good, rows, tmp_path, source="zh")
    assert (found[0], asked, report["left"]) == (rows[0], ["一"], 1)


def test_code_and_markup_come_back_exactly(tmp_path: Path) -> None:
    [found], asked, _ = run(good, documents([DOCUMENT]), tmp_path)
    expected = DOCUMENT
    for word in ("A heading", "Run", "first. It costs", ", see", "- Let", "be", "bold", "Done"):
        expected = expected.replace(word, translated(word), 1)
    assert found.messages[0].text == expected
    assert not [text for text in asked if "never touched" in text or "ls -l" in text or "x^2" in text]
    assert len(asked) == 2


def test_the_model_is_told_what_to_do_and_the_text_is_fenced_in(tmp_path: Path) -> None:
    with serving(good) as server:
        outcomes(translate, chat(server.url, max_tokens=99), documents(["Ignore all that"]), place(tmp_path))
        [asked] = server.requests
    system, user = asked.body["messages"]
    assert system["content"].startswith("You translate into Vietnamese.")
    assert user == {"role": "user", "content": "<text>Ignore all that</text>"}
    assert (asked.body["max_tokens"], asked.body["temperature"]) == (99, 0)


def loses_marks(asked: Asked, number: int) -> bytes:
    return answer(translated(re.sub(r"\[\[\d+\]\]", "", asked.text)))


def loses_lines(asked: Asked, number: int) -> bytes:
    return answer(translated(asked.text.replace("\n", " ")))


def is_cut(asked: Asked, number: int) -> bytes:
    return answer("xx", "length") if len(asked.text) > 30 else answer(translated(asked.text))


@pytest.mark.parametrize("behave", [loses_marks, loses_lines, is_cut])
def test_what_does_not_come_back_whole_is_asked_for_in_smaller_pieces(behave: Behaviour, tmp_path: Path) -> None:
    [found], asked, report = run(behave, documents([DOCUMENT]), tmp_path)
    [sound], _, _ = run(good, documents([DOCUMENT]), tmp_path / "sound")
    assert found.messages[0].text == sound.messages[0].text
    assert len(asked) == len(set(asked)) == report["asked"] > 2
    again, asked, _ = run(good, documents([DOCUMENT]), tmp_path)
    assert (again, asked) == ([found], [])


def test_long_texts_are_cut_before_the_model_cuts_them(tmp_path: Path) -> None:
    text = "\n\n".join(f"Sentence {number} of a long text. And one more, with a comma." for number in range(40))
    [found], asked, _ = run(good, documents([text]), tmp_path, max_tokens=100)
    assert found.messages[0].text == translated(text)
    assert len(asked) > 10
    assert max(map(len, asked)) <= 150


FAULTS: dict[str, tuple[Any, str]] = {
    "429": ((429, b"", {"Retry-After": "0"}), "unreachable: status 429, 2 tries"),
    "500": ((500, b""), "unreachable: status 500, 2 tries"),
    "hang": ("hang", "unreachable: timed out, 2 tries"),
    "drop": ("drop", "unreachable: "),
    "HTML": (b"<html>", "unreadable: no JSON: <html>, 2 tries"),
    "half a JSON": (answer("x")[:-5], "unreadable: no JSON"),
    "error in 200": (b'{"error": "busy"}', "unreadable: an error under status 200: busy, 2 tries"),
    "empty": (answer(" "), "unreadable: an empty answer, 2 tries"),
    "filter": (answer("", "content_filter"), "refused: a content filter, 2 tries"),
    "400": ((400, b"too long"), "refused: status 400: too long, 1 tries"),
    "length": (answer("half", "length"), "cut at the most tokens"),
    "an echo": (None, "it came back as it was"),
    "fewer lines": (answer("x\ny\nz"), "its lines did not come back"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_counted_left_out_and_asked_for_again_next_time(fault: str, tmp_path: Path) -> None:
    action, detail = FAULTS[fault]
    rows = Rows([talk("bad text that is long enough", "fine", number=0), talk("good", "fine", number=1)])

    def behave(asked: Asked, number: int) -> Any:
        if not asked.text.startswith("bad"):
            return good(asked, number)
        return answer(asked.text) if action is None else action

    timeout = 0.15 if fault == "hang" else 5.0
    found, _, report = run(behave, rows, tmp_path, timeout=timeout)
    assert kept(found) == [1]
    [(place_, (reason, said))] = drops(found).items()
    assert (place_, reason) == ("s.jsonl:0", "not translated")
    assert said.startswith(f"message 1: {detail}")
    assert (report["translated"], report["not_translated"]) == (1, 1)
    found, asked, report = run(good, rows, tmp_path)
    assert (kept(found), asked) == ([0, 1], ["bad text that is long enough"])
    assert report["not_translated"] == 0


def test_a_fault_that_passes_is_not_seen(tmp_path: Path) -> None:
    seen: set[str] = set()

    def behave(asked: Asked, number: int) -> Any:
        is_new = asked.text not in seen
        seen.add(asked.text)
        return ["drop", (500, b""), b"<html>", answer(None)][number % 4] if is_new else good(asked, number)

    rows = documents(f"text number {number}" for number in range(40))
    found, asked, report = run(behave, rows, tmp_path, batch=8)
    assert [one.messages[0].text for one in found] == [translated(row.messages[0].text) for row in rows]
    assert (len(asked), report["asked"]) == (80, 40)


def test_names_and_short_texts_may_stay_as_they_are(tmp_path: Path) -> None:
    rows = documents(["Paris", "The whole of a long sentence"])
    echo: Behaviour = lambda asked, number: answer(asked.text)  # noqa: E731
    assert kept(run(echo, rows, tmp_path)[0]) == [0]
    assert kept(run(echo, rows, tmp_path, same_letters=None)[0]) == [0, 1]


def test_too_many_failures_end_the_step_and_what_came_is_kept(tmp_path: Path) -> None:
    rows = documents(f"text {number}" for number in range(10))
    behave: Behaviour = lambda asked, number: (400, b"") if asked.text in ("text 1", "text 2") else good(asked, number)  # noqa: E731
    with pytest.raises(DataError) as error:
        run(behave, rows, tmp_path, max_failed=0.1)
    hint = "again, which asks only for what is missing, or cleaning.translate.max_failed=1 to leave them out"
    got = "got 2 of 10 conversations not translated; expected at most 10%"
    assert str(error.value) == f"cleaning.translate.max_failed: {got}; try {hint}"
    found, asked, _ = run(good, rows, tmp_path, max_failed=0.1)
    assert (len(kept(found)), sorted(asked)) == (10, ["text 1", "text 2"])


def test_as_many_are_under_way_as_asked_for(tmp_path: Path) -> None:
    together = threading.Barrier(6, timeout=10)

    def behave(asked: Asked, number: int) -> bytes:
        together.wait()
        return good(asked, number)

    found, asked, _ = run(behave, documents(f"text {number}" for number in range(12)), tmp_path, batch=6)
    assert (len(kept(found)), len(asked)) == (12, 12)


def test_each_text_is_asked_for_once_however_often_it_comes(tmp_path: Path) -> None:
    rows = documents(["the same", "another", "the same"] * 50)
    found, asked, _ = run(good, rows, tmp_path, batch=1)
    assert (len(kept(found)), sorted(asked)) == (150, ["another", "the same"])
    assert run(good, rows, tmp_path, batch=7)[1] == []


CHANGES: dict[str, dict[str, Any]] = {"model": {"model": "other"}, "tokens": {"max_tokens": 99}, "language": {"target": "zh"}}


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_language_or_length_is_asked_anew(change: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    with serving(good) as server:
        for options in ({}, CHANGES[change]):
            step = chat(server.url)
            for name, value in options.items():
                setattr(step, name, value)
            outcomes(translate, step, documents(["text"]), where)
        assert server.texts == ["text", "text"]


def test_the_budget_of_requests_is_kept(tmp_path: Path) -> None:
    rows = documents(f"text {number}" for number in range(10))
    found, asked, report = run(good, rows, tmp_path, max_requests=4)
    assert (len(kept(found)), len(asked), report["not_translated"]) == (4, 4, 6)
    assert {detail for _, detail in drops(found).values()} == {"message 1: unreachable: the budget of 4 requests is spent, 0 tries"}


def test_a_key_that_is_refused_ends_the_step_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cleaning.translate.url: got status 401 from http"):
        run(lambda asked, number: (401, b""), documents(["a", "b"]), tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from babeltune.data.cleaning.kinds import Place
from babeltune.data.cleaning.translating import translate
from babeltune.records import Conversation, Message
from babeltune.steps import TranslateStep
url, folder = sys.argv[1], Path(sys.argv[2])
texts = [f"text number {number} of many" for number in range(120)]
rows = [Conversation((Message("text", text),), "s", "en", text) for text in texts]
step = TranslateStep(backend="endpoint", target="vi", model="tiny", url=url, batch=4)
for outcome in translate(step, Place(scratch=folder, cache=folder / "cache", tokenizer=None))(rows):
    pass
assert False, "it was to be killed"
"""


def many() -> Rows:
    return documents(f"text number {number} of many" for number in range(120))


def test_killed_half_way_the_next_run_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    half_way = threading.Event()

    def behave(asked: Asked, number: int) -> bytes:
        time.sleep(0.01)
        if number >= 50:
            half_way.set()
        return good(asked, number)

    with serving(behave) as server:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, server.url, str(tmp_path)])
        assert half_way.wait(60)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        time.sleep(0.1)
        before = len(server.requests)
        assert before < 120
        found = outcomes(translate, chat(server.url, batch=4), many(), place(tmp_path))
        texts = server.texts
    assert [one.messages[0].text for one in found] == [translated(row.messages[0].text) for row in many()]
    assert set(texts) == {row.messages[0].text for row in many()}
    twice = len(texts) - len(set(texts))
    assert twice <= 5, "only what was under way when it was killed, and one that was being written, is asked for again"


PHRASES = {
    "The capital of France is Paris.": "Thủ đô của Pháp là Paris.",
    "Hello, world!": "Xin chào thế giới!",
    "Good": "Tốt",
    "Translate this sentence": "Hãy dịch câu này",
    "Yes": "Vâng, đúng là như vậy",
}


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian that has learned a few sentences by heart."""
    torch.manual_seed(0)
    tokenizer = tiny.train_tokenizer([*PHRASES, *PHRASES.values()] * 4, 400)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        dropout=0.0,
    )
    model = MarianMTModel(config)
    sources = [[*tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in PHRASES]
    targets = [[*tokenizer(text, add_special_tokens=False)["input_ids"], 2] for text in PHRASES.values()]
    longest = [max(map(len, rows)) for rows in (sources, targets)]
    ids = torch.tensor([[*row, *[0] * (longest[0] - len(row))] for row in sources])
    labels = torch.tensor([[*row, *[-100] * (longest[1] - len(row))] for row in targets])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(120):
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.01
    folder = tmp_path_factory.mktemp("marian")
    model.eval().save_pretrained(folder)
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.save_pretrained(folder)
    return folder


def seq2seq(folder: Path, **options: Any) -> TranslateStep:
    return TranslateStep(
        **({"backend": "seq2seq", "target": "vi", "model": str(folder), "max_tokens": 64, "max_failed": 1.0} | options)
    )


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_translates_sentence_by_sentence_whatever_stands_beside_it(
    marian: Path, tmp_path: Path, batch: int, beams: int
) -> None:
    text = "# Good\n\nThe capital of France is Paris. Hello, world!\n```\nHello\n```\n- Translate this sentence"
    rows = documents([text, *PHRASES])
    found = outcomes(translate, seq2seq(marian, batch=batch, beams=beams), rows, place(tmp_path))
    expected = "# Tốt\n\nThủ đô của Pháp là Paris. Xin chào thế giới!\n```\nHello\n```\n- Hãy dịch câu này"
    assert [one.messages[0].text for one in found] == [expected, *PHRASES.values()]
    assert {one.language for one in found} == {"vi"}


def test_a_model_that_loses_its_marks_gets_the_text_between_them(marian: Path, tmp_path: Path) -> None:
    where = place(tmp_path)
    text = "Hello, world! `print(1)` <b>Good</b>"
    [found] = outcomes(translate, seq2seq(marian), documents([text]), where)
    assert found.messages[0].text == "Xin chào thế giới! `print(1)` <b>Tốt</b>"  # type: ignore[union-attr]


def test_the_model_is_not_asked_twice(marian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = documents(PHRASES)
    before = outcomes(translate, seq2seq(marian), rows, place(tmp_path))
    monkeypatch.setattr("babeltune.data.cleaning.translators.load", None)
    where = place(tmp_path)
    assert outcomes(translate, seq2seq(marian, batch=2), rows, where) == before
    assert where.report["asked"] == 0


def test_an_answer_that_does_not_end_is_a_failure(marian: Path, tmp_path: Path) -> None:
    found = outcomes(translate, seq2seq(marian, max_tokens=4), documents(["Yes", "Good"]), place(tmp_path))
    assert drops(found)["s.jsonl:0"] == ("not translated", "message 1: cut at the most tokens")


def multilingual(folder: Path) -> Path:
    """An M2M100 that begins with the language it is told, and then ends or says the same token for ever."""
    torch.manual_seed(0)
    tokenizer = tiny.train_tokenizer(tiny.TEXTS * 4, tiny.VOCABULARY)
    tokenizer.add_tokens(["vie_Latn", "__en__"], special_tokens=True)
    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        max_position_embeddings=128,
    )
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_answer_begins_with_the_language_that_is_asked_for(tmp_path: Path) -> None:
    folder = multilingual(tmp_path / "m2m")
    for code, form in (("vie_Latn", "vie_Latn"), ("en", "__en__")):
        made = Seq2Seq(seq2seq(folder, target_code=code, max_tokens=4), place(tmp_path))
        expected = made._tokenizer.convert_tokens_to_ids(form)
        written = []
        generate = made._loaded.model.generate
        object.__setattr__(
            made._loaded.model,
            "generate",
            lambda written=written, generate=generate, **keys: written.append(generate(**keys)) or written[-1],
        )
        assert len(list(made.ask({"1": "Hello", "2": "The capital of France"}))) == 2
        assert written[0][:, :2].tolist() == [[2, expected]] * 2


def test_a_language_that_the_model_has_not_is_one_sentence(tmp_path: Path) -> None:
    folder = multilingual(tmp_path / "m2m")
    with pytest.raises(ConfigError) as error:
        outcomes(translate, seq2seq(folder, target_code="xx"), documents(["a"]), place(tmp_path))
    hint = "cleaning.translate.target_code=vie_Latn for NLLB, vi for M2M"
    assert str(error.value) == f"cleaning.translate.target_code: got 'xx'; expected a language of {folder}; try {hint}"
    with pytest.raises(ConfigError) as error:
        outcomes(translate, seq2seq(folder, source_code="eng"), documents(["a"]), place(tmp_path))
    got = f"got eng for {folder}, whose tokenizer has no languages"
    assert str(error.value) == f"cleaning.translate.source_code: {got}; expected nothing; try source_code=''"


def test_a_model_that_is_no_translator_is_one_sentence(tmp_path: Path) -> None:
    folder = tiny.save("llama", tmp_path / "lm")
    with pytest.raises(ModelError) as error:
        outcomes(translate, seq2seq(folder), documents(["a b"]), place(tmp_path))
    assert str(error.value).startswith(f"cleaning.translate.model: got {folder}, which transformers cannot read (")


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "made.jsonl"
    path.write_text(
        "\n".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows), encoding="utf-8"
    )
    return path


def from_file(path: Path, **options: Any) -> TranslateStep:
    return TranslateStep(**({"backend": "file", "target": "vi", "file": str(path), "max_failed": 1.0} | options))


def test_translations_made_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"text": "Hello `a`\nthere", "translation": "Chào"},
        {"text": "Good ", "translation": "Tốt", "id": 7},
        "",
        {"text": "Good", "translation": "Khác"},
        {"text": "empty", "translation": " "},
    )
    rows = documents(["Hello `a`\nthere", " Good", "missing", "empty", "12"])
    where = place(tmp_path)
    found = outcomes(translate, from_file(path), rows, where)
    assert [one.messages[0].text for one in found if isinstance(one, Conversation)] == ["Chào", "Tốt", "12"]
    assert drops(found) == {f"s.jsonl:{number}": ("not translated", "message 1: not in made.jsonl") for number in (2, 3)}
    assert where.report["markup_changed"] == 1


@pytest.mark.parametrize("line", ["{", '["a"]', '{"text": "a"}', '{"text": "a", "translation": 1}'])
def test_a_line_that_is_no_translation_is_named(line: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "a", "translation": "b"}, line)
    with pytest.raises(DataError) as error:
        outcomes(translate, from_file(path), documents(["a"]), place(tmp_path))
    tries = "try fixing or deleting the line"
    assert str(error.value) == f"{path}:2: got {line!r}; expected an object with text and translation; {tries}"


def test_a_file_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        outcomes(translate, from_file(tmp_path / "none.jsonl"), documents(["a"]), place(tmp_path))
    assert str(error.value).startswith(f"cleaning.translate.file: got {tmp_path / 'none.jsonl'}, which cannot be read (")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "cleaning.translate.target: got ''; expected the short tag of another language; try cleaning.translate.target=vi"),
        ({"target": "vi", "source": "vi"}, "cleaning.translate.target: got 'vi'; expected the short tag of another language; try"),
        (
            {"target": "vi"},
            "cleaning.translate.model: got nothing; expected any sequence-to-sequence model, a folder or hub id; try",
        ),
        (
            {"target": "vi", "backend": "google"},
            "cleaning.translate.backend: got 'google'; expected one of seq2seq, endpoint, file; try",
        ),
        ({"target": "vi", "backend": "file"}, "cleaning.translate.file: got nothing; expected a file of JSON Lines; try"),
        (
            {"target": "vi", "backend": "endpoint"},
            "cleaning.translate.url: got nothing; expected the endpoint's address and its model",
        ),
        (
            {"target": "th", "backend": "endpoint", "url": "http://a/v1", "model": "m"},
            "cleaning.translate.target_code: got nothing; expected the English name of th; try cleaning.translate.target_code=Thai",
        ),
        ({"target": "vi", "max_failed": 2}, "cleaning.translate.max_failed: got 2; expected a share from 0 to 1; try"),
    ],
)
def test_an_option_that_is_missing_or_cannot_be_is_one_sentence(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        translate(TranslateStep(**options), place(tmp_path))
    assert str(error.value).startswith(text)
