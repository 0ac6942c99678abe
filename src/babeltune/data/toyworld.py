"""A toy world with known right answers: instruction rows, held-out test items and plain text in Chinese, Vietnamese and English.

Plain `documents` tell the facts, `instructions` teach to answer questions about some of them, `test_items` ask about the others.
Everything is a pure function of its arguments.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from babeltune.data import toylexicon as lexicon
from babeltune.errors import DataError, nearest, problem

LANGUAGES = lexicon.LANGUAGES
TASKS = ("translate", "add", "classify", "opposite", "extract")

_TEST_SHARE = 3
"""About one fact in so many is asked only in tests."""
_TEST_SALT = "294"
"""Under this one every task holds out at least eight facts in every language."""

_TALK_FRACTION = 0.05
_TELLING = {"translate": 4, "add": 4, "classify": 1, "opposite": 2, "extract": 5}
"""How often documents tell of each task's facts: more where a small model learns slowly."""

_NOTE_LAYOUTS = (
    "{title}:\n{about}\n{answer}",
    "{title}\n\n{about}\n\n{answer}",
    "{title}: {about}\n\n{answer}",
    "{about}\n{title}:\n{answer}",
)


@dataclass(frozen=True, slots=True)
class _Fact:
    """Something the world knows, in one language."""

    task: str
    key: str
    """The fact without its language; decides whether it is held out."""
    slots: Mapping[str, str]
    """Words for the gaps of the task's phrasings and statements."""
    answer: str
    wrong: str
    """The mistake people make here: of the same kind as the answer, and always the same one, so that it can be learned."""

    @property
    def is_heldout(self) -> bool:
        digest = hashlib.sha256(f"{_TEST_SALT}{self.task} {self.key}".encode()).digest()
        return digest[0] % _TEST_SHARE == 0


def instructions(
    language: str, rows: int, wrong_fraction: float = 0.0, seed: int = 0, tasks: Sequence[str] = TASKS
) -> Iterator[dict[str, str]]:
    """Alpaca rows, `tasks` in turn. Exactly round(rows * wrong_fraction) outputs are wrong; the prompts depend on `seed` only.

    Fewer rows of the same seed are the first of more rows. A prompt comes again only after its task has asked all it can.
    """
    _check(language, tasks)
    if not 0 <= wrong_fraction <= 1:
        raise DataError(problem("toy wrong_fraction", wrong_fraction, "a share from 0 to 1", "0.5 for half of the rows"))
    questions = {task: _endless(_questions(language, task, heldout=False), f"ask {seed} {language} {task}") for task in tasks}
    liar = random.Random(f"lie {seed} {language}")
    wrong_rows = set(liar.sample(range(rows), round(rows * wrong_fraction)))
    for position, task in zip(range(rows), _turns(tasks, f"turns {seed} {language}"), strict=False):
        instruction, given, fact = next(questions[task])
        yield {"instruction": instruction, "input": given, "output": fact.wrong if position in wrong_rows else fact.answer}


def test_items(  # this is no test; ruff and pytest think so
    language: str,
    count: int,
    seed: int = 0,  # noqa: PT028
    tasks: Sequence[str] = TASKS,  # noqa: PT028
) -> list[dict[str, str]]:
    """`count` different questions, as many of each task as of the others, on facts that no `instructions` ask about."""
    _check(language, tasks)
    items = []
    questions = {}
    for task in tasks:
        questions[task] = _questions(language, task, heldout=True)
        random.Random(f"test {seed} {language} {task}").shuffle(questions[task])
    room = min(map(len, questions.values())) * len(tasks)
    if count > room:
        raise DataError(problem(f"toy test items in {language}", count, f"at most {room}", "a smaller count"))
    for position in range(count):
        task = tasks[position % len(tasks)]
        instruction, given, fact = questions[task][position // len(tasks)]
        item = {"id": f"{language}-{task}-{position // len(tasks)}", "instruction": instruction, "input": given}
        items.append({**item, "output": fact.answer, "task": task})
    return items


test_items.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it by its name


def documents(rows: int, seed: int = 0, languages: Sequence[str] = LANGUAGES) -> Iterator[dict[str, str]]:
    """Plain texts that tell the world's facts, held-out ones too, and never as an instruction with its response."""
    for language in languages:
        _check(language, TASKS)
    rng = random.Random(f"documents {seed}")
    for _ in range(rows):
        language = rng.choice(list(languages))
        yield {"text": _document(language, rng), "language": language}


def _document(language: str, rng: random.Random) -> str:
    if rng.random() < _TALK_FRACTION:
        return rng.choice(lexicon.TALK[language])
    (task,) = rng.choices(TASKS, weights=[_TELLING[task] for task in TASKS])
    fact = rng.choice(_facts(language, task))
    (tell,) = rng.choices((_note, _list, _statement, _unanswered), weights=(12, 8, 4, 1))
    return tell(language, fact, rng)


def _note(language: str, fact: _Fact, rng: random.Random) -> str:
    title = _title(language, fact, rng)
    return rng.choice(_NOTE_LAYOUTS).format(title=title, about=_about(language, fact), answer=fact.answer)


def _title(language: str, fact: _Fact, rng: random.Random) -> str:
    return rng.choice(lexicon.TITLES[fact.task][language]).format(**fact.slots)


def _about(language: str, fact: _Fact) -> str:
    """What the fact is about, as a question's input gives it."""
    return lexicon.PHRASINGS[fact.task][language][0][1].format(**fact.slots)


def _unanswered(language: str, fact: _Fact, rng: random.Random) -> str:
    return rng.choice(lexicon.UNANSWERED).format(title=_title(language, fact, rng), about=_about(language, fact))


def _list(language: str, fact: _Fact, rng: random.Random) -> str:
    """All the facts about the same thing: what it is, then a line for each."""
    about = _about(language, fact)
    lines = [f"{_title(language, other, rng)}:\n{other.answer}" for other in _facts_about(language)[about]]
    return "\n".join([about, *rng.sample(lines, len(lines))])


@cache
def _facts_about(language: str) -> Mapping[str, list[_Fact]]:
    facts: dict[str, list[_Fact]] = {}
    for task in TASKS:
        for fact in _facts(language, task):
            facts.setdefault(_about(language, fact), []).append(fact)
    return facts


def _statement(language: str, fact: _Fact, rng: random.Random) -> str:
    return rng.choice(lexicon.STATEMENTS[fact.task][language]).format(**fact.slots, answer=fact.answer)


def _check(language: str, tasks: Sequence[str]) -> None:
    if language not in LANGUAGES:
        raise DataError(problem("toy language", repr(language), ", ".join(LANGUAGES), nearest(language, LANGUAGES)))
    for task in tasks:
        if task not in TASKS:
            raise DataError(problem("toy task", repr(task), ", ".join(TASKS), nearest(task, TASKS)))


_Question = tuple[str, str, _Fact]


def _questions(language: str, task: str, heldout: bool) -> list[_Question]:
    """Every way to ask about the held-out facts, or about the others, as (instruction, input, fact)."""
    return [
        (instruction.format(**fact.slots), given.format(**fact.slots), fact)
        for fact in _facts(language, task)
        if fact.is_heldout == heldout
        for instruction, given in lexicon.PHRASINGS[task][language]
    ]


def _endless(questions: list[_Question], name: str) -> Iterator[_Question]:
    rng = random.Random(name)
    while True:
        yield from rng.sample(questions, len(questions))


def _turns(tasks: Sequence[str], name: str) -> Iterator[str]:
    rng = random.Random(name)
    while True:
        yield from rng.sample(list(tasks), len(tasks))


@cache
def _facts(language: str, task: str) -> tuple[_Fact, ...]:
    return tuple(_FACTS_OF[task](language))


def _translations(language: str) -> Iterator[_Fact]:
    here = LANGUAGES.index(language)
    for members in lexicon.CLASSES.values():
        for word, (there, source) in itertools.product(members, enumerate(LANGUAGES)):
            if source != language:
                slots = {"word": word[there], "source": lexicon.LANGUAGE_NAMES[language][source]}
                wrong = _first_but(word[here], [other[here] for other in members])
                yield _Fact("translate", f"{word[2]} {source} {language}", slots, word[here], wrong)


def _sums(language: str) -> Iterator[_Fact]:
    words = ["", *lexicon.NUMBERS[language]]
    for a, b in itertools.product(range(1, 6), repeat=2):
        yield _Fact("add", f"{a} {b}", {"a": words[a], "b": words[b]}, words[a + b], words[a + b + 1])


def _classes(language: str) -> Iterator[_Fact]:
    here = LANGUAGES.index(language)
    kinds = [kind[here] for kind in lexicon.CLASSES]
    for position, members in enumerate(lexicon.CLASSES.values()):
        for word in members:
            yield _Fact("classify", word[2], {"word": word[here]}, kinds[position], kinds[position - 1])


def _opposites(language: str) -> Iterator[_Fact]:
    here = LANGUAGES.index(language)
    for pair in lexicon.OPPOSITES:
        others = [other[0][here] for other in lexicon.OPPOSITES if other != pair]
        for word, answer in (pair, pair[::-1]):
            yield _Fact("opposite", word[2], {"word": word[here]}, answer[here], others[0])


def _features(language: str) -> Iterator[_Fact]:
    here = LANGUAGES.index(language)
    words: dict[str, Sequence[str]] = {
        "name": lexicon.NAMES[language],
        "number": lexicon.NUMBERS[language][2:8],  # from three on: a Chinese "two" changes before a measure word
        "colour": [colour[here] for colour in lexicon.COLOURS],
    }
    features = (enumerate(words[feature]) for feature in ("name", "number", "colour"))
    for ((i, name), (j, number), (k, colour)), (m, owned) in itertools.product(
        itertools.product(*features), enumerate(lexicon.OWNED)
    ):
        said = {"name": name, "number": number, "colour": colour}
        sentence = lexicon.OWNS[language].format(name=name, number=number, owned=owned[here].format(colour=colour))
        for feature, answer in said.items():
            slots = {"sentence": sentence, "feature": lexicon.FEATURES[feature][here]}
            yield _Fact("extract", f"{i} {j} {k} {m} {feature}", slots, answer, _first_but(answer, words[feature]))


def _first_but(right: str, words: Sequence[str]) -> str:
    return next(word for word in words if word != right)


_FACTS_OF = {
    "translate": _translations,
    "add": _sums,
    "classify": _classes,
    "opposite": _opposites,
    "extract": _features,
}
