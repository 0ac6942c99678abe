"""Every kind of judge there is: one dataclass per kind, each field with its meaning and unit. Values live in `conf/judge/`."""

from __future__ import annotations

from dataclasses import dataclass

from babeltune.options import JudgeConfig

PROTOCOLS = ("belle", "vicuna", "impact")
"""What a judge may be asked, and how its words are read. See `babeltune.evaluation.judging.protocols`."""
PAIRWISE = ("vicuna",)
"""Protocols that compare two replies."""


@dataclass(kw_only=True)
class ReferenceJudge(JudgeConfig):
    """Metrics against known answers."""

    kind: str = "reference"


@dataclass(kw_only=True)
class EndpointJudge(JudgeConfig):
    """A chat model at an endpoint that speaks OpenAI's protocol; the key is in the environment, OPENAI_API_KEY."""

    kind: str = "endpoint"
    model: str = ""
    """Its name at the endpoint."""
    url: str = ""
    """The endpoint's address, up to and with /v1."""
    protocol: str = "belle"
    """belle: one reply, 0 to 1 by its category; vicuna: two replies, 1 to 10 each; impact: relevance and coherence, 1 to 5."""
    against: str = ""
    """What a pairwise protocol compares with: a cell's folder, the folder of one of its evaluations, or a file of replies."""
    n_judgements: int = 1
    """Times that each question is asked."""
    prompts: str = ""
    """A file of JSON Lines with published words, in the place of the product's own: `class` or `category`, and `prompt`."""
    markers: str = "paper"
    """Headings around the answers of vicuna. paper: `###Question`; fastchat: `[Question]`."""
    digit: str = "first"
    """Which number of an impact judge's words counts: first, or last, as in the published code."""
    fence: str = "nonce"
    """nonce: replies stand between marks that they cannot contain; plain: as the paper has them, open to forged verdicts."""
    temperature: float = 0.0
    max_tokens: int = 1024
    """The most that the judge may write."""
    seed: int | None = None
    """Sent along, one more for each further judgement; null for none."""
    concurrency: int = 4
    """Questions under way at a time."""
    retries: int = 3
    timeout: float = 120.0
    """Seconds for one request."""
    max_requests: int | None = None
    """The most requests to send, retries included; null for no bound."""
    max_cost: float | None = None
    """The most to spend, in the currency of the prices; null for no bound."""
    prompt_price: float = 0.0
    """Per million tokens that are sent."""
    answer_price: float = 0.0
    """Per million tokens that the judge writes."""
    max_unreachable: float = 0.0
    """Share of replies that may stay without any answer of the judge; with more, the run stops and asks for them the next time."""


@dataclass(kw_only=True)
class RewardJudge(JudgeConfig):
    """A reward model, which gives a number to a question with its reply."""

    kind: str = "reward"
    model: str = ""
    """Folder or hub id of any sequence classifier with one output."""
    revision: str | None = None
    max_tokens: int = 1024
    """A longer question and reply lose their end, not the end mark."""
    dtype: str = "float32"
    """Of the weights: float32 or bfloat16."""
    batch: int = 16


@dataclass(kw_only=True)
class RecordedJudge(JudgeConfig):
    """Verdicts that were given elsewhere: by people, or by a judge whose words were kept."""

    kind: str = "recorded"
    file: str = ""
    """JSON Lines: `item` and `value` (a number, or null for an item that could not be scored), or `item` and `verdict`."""
    protocol: str = "belle"
    """How a `verdict` is read, as in judge=endpoint; nothing to a `value`."""
    digit: str = "first"
    """As in judge=endpoint."""


KINDS: dict[str, type[JudgeConfig]] = {
    "reference": ReferenceJudge,
    "endpoint": EndpointJudge,
    "reward": RewardJudge,
    "recorded": RecordedJudge,
}
