"""The metrics of every suite, whose tokenisation follows the language.

Published scripts lose Chinese silently: sacrebleu's default tokenizer takes a Chinese sentence for one word, and
rouge_score's keeps nothing but a-z and 0-9, which also cuts Vietnamese words at their diacritics. So the tokenisation
follows the language, and a metric's signature names it.
"""

from __future__ import annotations

import functools
import string
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from babeltune.evaluation.metrics.measure import Metric

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

_BLEU_TOKENIZERS = dict.fromkeys(("zh", "yue"), "zh") | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")
"""Languages written without spaces. All others have sacrebleu's default, 13a, which splits at spaces and ASCII
punctuation and so leaves Vietnamese letters alone; published Vietnamese and English figures use it."""

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"

_TOKENS = {
    "characters": (
        rf"{_UNSPACED}\p{{M}}*"
        rf"|(?!{_UNSPACED})[\p{{L}}\p{{N}}](?:(?!{_UNSPACED})[\p{{L}}\p{{N}}\p{{M}}])*"
        r"|\p{So}"
    ),
    "words": r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*|\p{So}",
}
"""What ROUGE counts. `characters`: each Chinese (Japanese, Thai, ...) character, and words of other scripts whole.
`words`: letters with their marks, and digits, up to the next other sign. Both: each emoji; neither: punctuation."""

_ENDINGS = ".。．!！?？;；,，、…" + string.whitespace + "\u3000\u00a0"


def exact_match(reply: str, reference: str, language: str) -> float:
    """100 when both say the same letters, else 0: Unicode NFC, casefolded, without outer spaces and final punctuation.

    Inner punctuation and full-width letters count. A text of punctuation alone is compared as it is.

    >>> exact_match("Hà Nội。 ", "hà nội", "vi")
    100.0
    """
    return 100.0 if _bare(reply) == _bare(reference) else 0.0


def accuracy(reply: str, reference: str, language: str) -> float:
    """100 when the reply begins with the reference, spaces before it apart, else 0: the rule of InstructEval's mmlu.py.

    >>> accuracy(" B. The second", "B", "en")
    100.0
    """
    return 100.0 if reference and _nfc(reply).strip().startswith(_nfc(reference).strip()) else 0.0


def bleu(reply: str, reference: str, language: str) -> float:
    """Sentence BLEU (Papineni et al. 2002) of up to 4 tokens, as sacrebleu (Post 2018) counts it.

    A reply without a common run of n tokens would have BLEU 0, so counts of zero are smoothed (`smooth:exp`, method 3
    of Chen and Cherry 2014), and a text of fewer than 4 tokens is judged by the runs it has (`eff:yes`). The mean of
    sentence BLEU is not `corpus_bleu`; the two have different signatures.
    """
    return _percent(_sentence_bleu(_primary(language)).sentence_score(_nfc(reply), [_nfc(reference)]).score)


def corpus_bleu(replies: Sequence[str], references: Sequence[str], language: str) -> float | None:
    """BLEU over a whole suite, the figure papers print; None when there is nothing to score."""
    if not replies:
        return None
    metric = _corpus_bleu(_primary(language))
    return _percent(metric.corpus_score([_nfc(text) for text in replies], [[_nfc(text) for text in references]]).score)


def corpus_bleu_signature(language: str) -> str:
    return f"corpus_bleu|norm:nfc|{_corpus_bleu(_primary(language)).get_signature()}"


def chrf(reply: str, reference: str, language: str) -> float:
    """Character n-gram F2 of up to 6 characters (Popovic 2015), spaces left out; it needs no tokenizer."""
    return _percent(_chrf().sentence_score(_nfc(reply), [_nfc(reference)]).score)


def rouge_l(reply: str, reference: str, language: str) -> float:
    """F1 of the longest common subsequence (Lin 2004) of characters in Chinese, of words in Vietnamese and English.

    Time grows with the product of both lengths: about 0.1 s for two texts of 1,000 tokens.
    """
    scores = _rouge_scorer(_rouge_tokens(language)).score(_nfc(reference), _nfc(reply))
    return _percent(100 * float(scores["rougeL"].fmeasure))


class TextTokens:
    """The tokenizer that `rouge_score` calls; see `_TOKENS` for the two kinds."""

    def __init__(self, kind: Literal["characters", "words"]) -> None:
        import regex

        self._pattern = regex.compile(_TOKENS[kind])

    def tokenize(self, text: str) -> list[str]:
        return [match.group() for match in self._pattern.finditer(_casefold(text))]


def _bleu_of_several(reply: str, references: Sequence[str], language: str) -> float:
    metric = _sentence_bleu(_primary(language), several=True)
    return _percent(metric.sentence_score(_nfc(reply), [_nfc(reference) for reference in references]).score)


def _chrf_of_several(reply: str, references: Sequence[str], language: str) -> float:
    return _percent(_chrf(several=True).sentence_score(_nfc(reply), [_nfc(reference) for reference in references]).score)


def _accuracy_signature(language: str) -> str:
    return "accuracy|norm:nfc|reply begins with the reference|nrefs:1|version:1"


def _exact_match_signature(language: str) -> str:
    return "exact_match|norm:nfc+casefold+strip+endings|nrefs:1|version:1"


def _bleu_signature(language: str) -> str:
    return f"bleu|norm:nfc|{_sentence_bleu(_primary(language)).get_signature()}"


def _chrf_signature(language: str) -> str:
    return f"chrf|norm:nfc|{_chrf().get_signature()}"


def _rouge_l_signature(language: str) -> str:
    from importlib.metadata import version

    return f"rouge_l|norm:nfc+casefold|nrefs:1|tok:{_rouge_tokens(language)}|f:1|version:{version('rouge-score')}"


METRICS: dict[str, Metric] = {
    "exact_match": Metric(exact_match, _exact_match_signature),
    "bleu": Metric(bleu, _bleu_signature, joint=_bleu_of_several),
    "chrf": Metric(chrf, _chrf_signature, joint=_chrf_of_several),
    "rouge_l": Metric(rouge_l, _rouge_l_signature),
    "accuracy": Metric(accuracy, _accuracy_signature),
}


@functools.cache
def _sentence_bleu(language: str, several: bool = False) -> BLEU:
    """One for each number of references, because a signature counts those of the last call."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"), smooth_method="exp", effective_order=True)
    metric.sentence_score("", [""])
    return metric


@functools.cache
def _corpus_bleu(language: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"), smooth_method="exp", force=True)
    metric.corpus_score([""], [[""]])
    return metric


@functools.cache
def _chrf(several: bool = False) -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    metric.sentence_score("", [""])
    return metric


@functools.cache
def _rouge_scorer(kind: Literal["characters", "words"]) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=TextTokens(kind))


def _rouge_tokens(language: str) -> Literal["characters", "words"]:
    return "characters" if _primary(language) in _BLEU_TOKENIZERS else "words"


def _primary(language: str) -> str:
    """The language of a tag that may name a script or region too: `zh-Hant`, `zh_TW`."""
    return language.replace("_", "-").split("-")[0].lower()


def _nfc(text: str) -> str:
    """Diacritics joined to their letters: the two ways to type a Vietnamese vowel count as one."""
    return unicodedata.normalize("NFC", text)


def _casefold(text: str) -> str:
    return _nfc(_nfc(text).casefold())


def _bare(text: str) -> str:
    stripped = _casefold(text).strip()
    return stripped.rstrip(_ENDINGS) or stripped


def _percent(value: float) -> float:
    """Without the 4e-14 that sums of logarithms add to a perfect hundred."""
    return min(100.0, float(value))
