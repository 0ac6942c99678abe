"""Conversations into another language: markup and code as they were, each text asked for once, failures counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from babeltune.data.cleaning import running
from babeltune.data.cleaning.cache import Cache, key
from babeltune.data.cleaning.kinds import Corpus, CorpusStep, Outcome, Place, dropped
from babeltune.data.cleaning.markup import Cut, kept, letters, mask, pieces
from babeltune.data.cleaning.translators import Answer, Failed, Translator, translator
from babeltune.errors import ConfigError, DataError, problem
from babeltune.records import Conversation
from babeltune.steps import TranslateStep


def translate(step: TranslateStep, place: Place) -> CorpusStep:
    """Each conversation in `step.target`, or dropped with why it is not. What is in that language already stays as it is.

    Answers are kept as they come, under the text, the model and the options that made them: a run that was killed goes on where it
    was, and what failed is asked for again. Raises DataError at the end when more than `step.max_failed` of them failed.
    """
    if not step.target or step.target == step.source:
        where = running.option(step, "target")
        raise ConfigError(problem(where, repr(step.target), "the short tag of another language", f"{where}=vi"))
    if not 0 <= step.max_failed <= 1:
        where = running.option(step, "max_failed")
        raise ConfigError(problem(where, step.max_failed, "a share from 0 to 1", f"{where}=0.05"))
    made = translator(step, place)

    def run(corpus: Corpus) -> Iterator[Outcome]:
        counts: Counter[str] = Counter()
        done = 0
        with made, Cache(place.cache / "translations.sqlite") as cache:
            work = _Work(made, cache, step.same_letters, counts)
            for window in running.windows(corpus, step.batch * running.WINDOW_BATCHES):
                said = work.texts({text for one in window if _is_asked(one, step) for text in _texts(one)})
                for conversation in window:
                    yield _outcome(conversation, said, step, counts)
                done += len(window)
                place.progress(done, len(corpus))
        place.report |= {name: counts[name] for name in ("translated", "not_translated", "left", "asked", "markup_changed")}
        place.is_unfinished = counts["not_translated"] > 0 and step.backend != "file"
        _refuse(counts, step)

    return run


def _is_asked(conversation: Conversation, step: TranslateStep) -> bool:
    return conversation.language == step.source if step.source else conversation.language != step.target


def _texts(conversation: Conversation) -> Iterator[str]:
    for message in conversation.messages:
        yield from (message.text, message.input)


def _outcome(conversation: Conversation, said: Mapping[str, str | Failed], step: TranslateStep, counts: Counter[str]) -> Outcome:
    if not _is_asked(conversation, step):
        counts["left"] += 1
        return conversation
    messages = []
    for number, message in enumerate(conversation.messages, start=1):
        text, given = said[message.text], said[message.input]
        for one in (text, given):
            if isinstance(one, Failed):
                counts["not_translated"] += 1
                return dropped(conversation, "not translated", f"message {number}: {one.why}")
        assert isinstance(text, str)
        assert isinstance(given, str)
        messages.append(replace(message, text=text, input=given))
    counts["translated"] += 1
    return replace(conversation, messages=tuple(messages), language=step.target)


def _refuse(counts: Counter[str], step: TranslateStep) -> None:
    failed, asked = counts["not_translated"], counts["not_translated"] + counts["translated"]
    if failed > step.max_failed * asked:
        where = running.option(step, "max_failed")
        got = f"{failed:,} of {asked:,} conversations not translated"
        hint = f"again, which asks only for what is missing, or {where}=1 to leave them out"
        raise DataError(problem(where, got, f"at most {step.max_failed:.0%}", hint))


class _Work:
    """Texts through a translator: cut into pieces, masked, asked for where they are not known, and put together again."""

    def __init__(self, made: Translator, cache: Cache, same_letters: int | None, counts: Counter[str]) -> None:
        self._translator, self._cache, self._same_letters, self._counts = made, cache, same_letters, counts
        self._known: dict[str, Answer | Failed] = {}
        self._wanted: dict[str, tuple[str, bool]] = {}
        """Key to a masked text, and whether an answer that is remembered has been found to be no good."""
        self._asked: set[str] = set()

    def texts(self, texts: set[str]) -> dict[str, str | Failed]:
        """Each text with its translation. What of it cannot be translated at once is tried again in smaller pieces."""
        order = sorted(texts)
        self._known.clear()
        self._asked.clear()
        while True:
            self._wanted.clear()
            made = {text: self._put_together(text, 0) for text in order}
            if not self._wanted:
                if self._translator.cuts[0] is Cut.whole:
                    pairs = ((text, one) for text, one in made.items() if isinstance(one, str))
                    self._counts["markup_changed"] += sum(kept(text) != kept(one) for text, one in pairs)
                return {text: one for text, one in made.items() if one is not None}
            self._find()

    def _put_together(self, text: str, level: int) -> str | Failed | None:
        """The translation; None when pieces of it have yet to be asked for."""
        cut = self._translator.cuts[level]
        parts = [
            self._piece(piece.text, level) if piece.is_prose else piece.text for piece in pieces(text, cut, self._translator.fits)
        ]
        failed = next((part for part in parts if isinstance(part, Failed)), None)
        if failed is not None:
            return failed
        done = [part for part in parts if isinstance(part, str)]
        return "".join(done) if len(done) == len(parts) else None

    def _piece(self, text: str, level: int) -> str | Failed | None:
        is_last = level + 1 == len(self._translator.cuts)
        is_whole = self._translator.cuts[level] is Cut.whole
        masked = mask(text)
        one = key(self._translator.identity, masked.text)
        answer = self._known.get(one)
        asked_for = text if is_whole else masked.text
        if answer is None:
            self._wanted[one] = (asked_for, False)
            return None
        if isinstance(answer, Failed):
            return answer
        restored = (answer.text if is_whole else masked.restored(answer.text)) if answer.is_whole else None
        if restored is not None:
            return restored
        if is_last and one not in self._asked:
            self._wanted[one] = (asked_for, True)
            return None
        if is_last:
            return Failed("cut at the most tokens" if not answer.is_whole else "its lines did not come back")
        return self._put_together(text, level + 1)

    def _find(self) -> None:
        """Answers to what is wanted: remembered ones, else new ones, each remembered as soon as it comes."""
        is_kept = self._translator.is_kept
        found = self._cache.get(self._wanted) if is_kept else {}
        missing = {}
        for one, (text, is_no_good) in self._wanted.items():
            if one in found and not is_no_good:
                self._known[one] = Answer(**found[one])
            else:
                missing[one] = text
        for one, answer in self._translator.ask(missing):
            self._asked.add(one)
            self._counts["asked"] += 1
            if isinstance(answer, Answer) and self._is_same(missing[one], answer):
                answer = Failed("it came back as it was")
            if isinstance(answer, Answer) and is_kept:
                self._cache.put({one: {"text": answer.text, "is_whole": answer.is_whole}})
            self._known[one] = answer

    def _is_same(self, text: str, answer: Answer) -> bool:
        if self._same_letters is None or answer.text.strip() != text.strip():
            return False
        return letters(text) >= self._same_letters
