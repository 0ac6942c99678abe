"""From a step's options to what it does."""

from __future__ import annotations

from babeltune import steps
from babeltune.data.cleaning.kinds import CorpusStep, Place, RowStep


def row_step(step: steps.StepConfig, place: Place) -> RowStep | None:
    """The step as a function of one conversation, or None for a step that has to see them all."""
    match step:
        case steps.MarkdownStep():
            from babeltune.data.cleaning.chats import markdown

            return markdown(step, place)
        case steps.SplitStep():
            from babeltune.data.cleaning.splitting import split

            return split(step, place)
        case steps.LanguageStep():
            from babeltune.data.cleaning.languages import language

            return language(step, place)
        case steps.PersonalStep():
            from babeltune.data.cleaning.personal import personal

            return personal(step, place)
        case steps.NumberingStep():
            from babeltune.data.cleaning.wording import numbering

            return numbering(step, place)
        case steps.ShortAnswersStep():
            from babeltune.data.cleaning.wording import short_answers

            return short_answers(step, place)
    return None


def corpus_step(step: steps.StepConfig, place: Place) -> CorpusStep:
    """The step as a function of all conversations."""
    match step:
        case steps.TurnsStep():
            from babeltune.data.cleaning.chats import turns

            return turns(step, place)
        case steps.ExactStep():
            from babeltune.data.cleaning.duplicates import exact

            return exact(step, place)
        case steps.NearStep():
            from babeltune.data.cleaning.near import near

            return near(step, place)
        case steps.WordsStep():
            from babeltune.data.cleaning.wording import words

            return words(step, place)
        case steps.SemanticStep():
            from babeltune.data.cleaning.models import semantic

            return semantic(step, place)
        case steps.PerplexityStep():
            from babeltune.data.cleaning.models import perplexity

            return perplexity(step, place)
        case steps.RewardStep():
            from babeltune.data.cleaning.models import reward

            return reward(step, place)
        case steps.TranslateStep():
            from babeltune.data.cleaning.translating import translate

            return translate(step, place)
    raise AssertionError(f"no maker for {type(step).__name__}")  # STEPS and the two functions here belong together
