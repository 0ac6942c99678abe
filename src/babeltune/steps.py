"""Every cleaning step there is: one dataclass per kind, each field with its meaning and unit.

A pipeline is a mapping of names to steps, run in its order: `conf/cleaning/` has the named ones. A source carries its own
(`source.cleaning`); the run's (`cleaning=[exact,personal]`) goes over the whole mix after that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PERSONAL = ("email", "phone", "ip", "id_card", "card")
"""What the step `personal` knows."""


@dataclass(kw_only=True)
class StepConfig:
    """One step of a pipeline. The keys of each kind are those of its class below."""

    kind: str = ""


@dataclass(kw_only=True)
class ExactStep(StepConfig):
    """Of conversations with the same text the first stays. Case, width and white space do not count."""

    kind: str = "exact"
    prompt_only: bool = False
    """Compare what is first asked and not the whole conversation."""


@dataclass(kw_only=True)
class NearStep(StepConfig):
    """Of conversations that are nearly the same the first stays: MinHash over character n-grams, then the exact Jaccard index."""

    kind: str = "near"
    threshold: float = 0.8
    """Jaccard index of the sets of n-grams at and above which two texts are one."""
    characters: int = 5
    """Length of an n-gram. Texts shorter than four times that are compared as a whole."""
    permutations: int = 128


@dataclass(kw_only=True)
class SemanticStep(StepConfig):
    """Of conversations with the same meaning the first stays: the cosine of sentence embeddings."""

    kind: str = "semantic"
    model: str = ""
    """Folder or hub id of any transformers encoder; its token embeddings are averaged."""
    revision: str | None = None
    threshold: float = 0.95
    """Cosine with one that stays, at and above which a text says the same."""
    batch: int = 32
    max_tokens: int = 256
    """A longer text is compared by its beginning."""
    dtype: str = "float32"
    """Of the weights: float32; bfloat16 for half the memory and a last digit less."""


@dataclass(kw_only=True)
class PerplexityStep(StepConfig):
    """Conversations stay whose perplexity under a language model lies in a band."""

    kind: str = "perplexity"
    model: str = ""
    """Folder or hub id of any causal language model."""
    revision: str | None = None
    low: float = 0.0
    """Percentile below which a text is too plain."""
    high: float = 95.0
    """Percentile above which a text is too strange."""
    per_language: bool = True
    """Percentiles among the texts of the same language: the same model finds one language stranger than another."""
    batch: int = 16
    max_tokens: int = 512
    """A longer text is judged by its beginning."""
    dtype: str = "float32"
    """Of the weights: float32; bfloat16 for half the memory and a last digit less."""


@dataclass(kw_only=True)
class RewardStep(StepConfig):
    """Conversations stay that a reward model gives at least so much."""

    kind: str = "reward"
    model: str = ""
    """Folder or hub id of any sequence classifier with one output."""
    revision: str | None = None
    threshold: float = 0.5
    scale: str = "raw"
    """raw: the model's number; sigmoid: squeezed into 0 to 1."""
    batch: int = 16
    max_tokens: int = 1024
    """A longer question and answer lose their end, not the end mark."""
    dtype: str = "float32"
    """Of the weights: float32; bfloat16 for half the memory and a last digit less."""


@dataclass(kw_only=True)
class LanguageStep(StepConfig):
    """Conversations stay whose main language is one of some; which language that is, is looked at and written down."""

    kind: str = "language"
    keep: list[str] = field(default_factory=list)
    """Short tags: zh, en. Empty for any language."""
    confidence: float = 0.5
    """Certainty below which a text's language counts as unknown."""
    unknown: str = "keep"
    """keep: with the language it came with; drop."""
    mixed: float = 0.3
    """Share of the text in another than its main language from which it counts as mixed."""
    on_mixed: str = "keep"
    """keep: by its main language; drop."""


@dataclass(kw_only=True)
class MarkdownStep(StepConfig):
    """HTML of web chats becomes Markdown."""

    kind: str = "markdown"


@dataclass(kw_only=True)
class TurnsStep(StepConfig):
    """Shared chats as FastChat cleans them: role order, refusals, blocked words, too short, the same beginning twice."""

    kind: str = "turns"
    blocked: list[str] = field(default_factory=lambda: ["openai", "chatgpt"])
    """A conversation that says one of these words in any case is dropped."""
    refusals: list[str] = field(default_factory=lambda: ["Too many requests in 1 hour"])
    """A conversation with an answer that begins so is dropped."""
    min_characters: int = 16
    repeated_digits: int | None = None
    """Drop conversations with a digit repeated so often in a row; null to let them be."""


@dataclass(kw_only=True)
class SplitStep(StepConfig):
    """Long conversations become several, cut between pairs of turns."""

    kind: str = "split"
    max_tokens: int = 2048
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer to count with; null for the run's own."""
    overhead: int = 6
    """Tokens that the template adds to a turn."""
    fastchat_bugs: bool = False
    """Lose a last pair that overflows, as FastChat does."""


@dataclass(kw_only=True)
class PersonalStep(StepConfig):
    """E-mail addresses, telephone and identity card numbers are taken out."""

    kind: str = "personal"
    kinds: list[str] = field(default_factory=lambda: list(PERSONAL))
    action: str = "mask"
    """mask: a word in its place; remove_reply: the answer goes, with its question; drop: the conversation goes."""


@dataclass(kw_only=True)
class NumberingStep(StepConfig):
    """`(1)`, `1)`, `1、` and `①` at the start of a line of an answer become `1.`."""

    kind: str = "numbering"


@dataclass(kw_only=True)
class ShortAnswersStep(StepConfig):
    """Conversations whose answers together are too short are dropped."""

    kind: str = "short_answers"
    min_tokens: int = 200
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer to count with; null for the run's own."""


@dataclass(kw_only=True)
class WordsStep(StepConfig):
    """Drops nothing; reports the most frequent words, Chinese ones as pairs of characters."""

    kind: str = "words"
    top: int = 50


@dataclass(kw_only=True)
class TranslateStep(StepConfig):
    """Texts become texts of another language. Code and markup stay; what cannot be translated is dropped and counted."""

    kind: str = "translate"
    backend: str = "seq2seq"
    """seq2seq: a model; endpoint: a server that speaks OpenAI's protocol; file: translations made elsewhere."""
    target: str = ""
    """The short tag of the language: vi."""
    source: str = ""
    """The short tag of what is translated; other conversations stay as they are. Empty for all but the target's."""
    model: str = ""
    """Folder or hub id of the model, or its name at the endpoint."""
    revision: str | None = None
    source_code: str = ""
    """The model's own word for the language it reads: eng_Latn."""
    target_code: str = ""
    """The model's own word for the language it writes: vie_Latn. Empty for a model of one. For an endpoint its English name."""
    url: str = ""
    """The endpoint's address, to and with /v1. The key is read from the environment, OPENAI_API_KEY."""
    file: str = ""
    """JSON Lines of `text` and `translation`."""
    same_letters: int | None = 20
    """A text of so many letters or more that comes back as it was counts as not translated; null to let it be."""
    max_failed: float = 0.05
    """Share of conversations not translated above which the step ends with an error, to be run again for what is missing."""
    batch: int = 16
    """Texts at a time: in the model, or under way to the endpoint."""
    beams: int = 1
    """Of a model's search; 1 for greedy."""
    max_tokens: int = 512
    """Of an answer. Texts that would need more are cut into parts, between sentences where that is enough."""
    retries: int = 3
    """Further tries of a request that fails."""
    timeout: float = 120.0
    """Seconds for one request."""
    max_requests: int | None = None
    """The most requests of a run, retries included; null for no limit."""


COMPARING = ("exact", "near", "semantic", "perplexity", "turns", "words")
"""Kinds whose outcome for a row depends on the other rows."""

STEPS: dict[str, type[StepConfig]] = {
    "exact": ExactStep,
    "near": NearStep,
    "semantic": SemanticStep,
    "perplexity": PerplexityStep,
    "reward": RewardStep,
    "language": LanguageStep,
    "markdown": MarkdownStep,
    "turns": TurnsStep,
    "split": SplitStep,
    "personal": PersonalStep,
    "numbering": NumberingStep,
    "short_answers": ShortAnswersStep,
    "words": WordsStep,
    "translate": TranslateStep,
}
"""Kind to class. A new step is a class here and a maker in `babeltune.data.cleaning.making`."""
