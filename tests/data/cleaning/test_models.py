"""Steps that ask a model: what stays is what a plain computation, one text at a time, says must stay."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from babeltune.data.cleaning import models, running
from babeltune.data.cleaning.models import asked_and_answered, perplexity, reward, semantic
from babeltune.errors import ConfigError, ModelError
from babeltune.steps import PerplexityStep, RewardStep, SemanticStep
from tests.data.cleaning.tiny import Rows as _Rows
from tests.data.cleaning.tiny import classifier, documents, drops, encoder, kept, outcomes, place, talk
from tests.modeling import tiny

TEXTS = [
    "The capital of France is Paris.",
    "法国的首都是巴黎。",
    "Thủ đô của Việt Nam là Hà Nội.",
    "Translate this sentence, please: a b c d e f g h i j k l m n o p q r s t u v w x y z.",
    "Xin chào các bạn! 😀",
    "a",
    "The capital of France is Lyon.",
    "你好，世界！你好，世界！你好，世界！",
    "bcde",
    "cdbe",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three models, made once."""
    made = tmp_path_factory.mktemp("models")
    encoder(made / "encoder")
    tiny.save("llama", made / "lm")
    tiny.save("bloom", made / "bloom")
    tiny.save("gptj", made / "gptj")
    classifier(made / "reward")
    classifier(made / "two", outputs=2)
    return made


def embedded(folder: Path, text: str) -> np.ndarray[Any, Any]:
    """The mean of a text's token embeddings, computed for it alone."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    ids = torch.tensor([tiny.tokenizer()(text)["input_ids"]])
    with torch.no_grad():
        mean: np.ndarray[Any, Any] = model(input_ids=ids).last_hidden_state[0].mean(0).double().numpy()
    return mean / np.linalg.norm(mean)


def greedily(vectors: np.ndarray[Any, Any], threshold: float) -> list[int]:
    """The definition: a row stays when it is like none that stays before it."""
    stays: list[int] = []
    for number, vector in enumerate(vectors):
        if all(float(vectors[one] @ vector) < threshold for one in stays):
            stays.append(number)
    return stays


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 0.999])
def test_the_first_of_like_texts_stays_and_nothing_else_goes(folder: Path, tmp_path: Path, threshold: float) -> None:
    vectors = np.stack([embedded(folder / "encoder", text) for text in TEXTS])
    distances = np.abs(vectors @ vectors.T - threshold)
    assert distances.min() > 1e-5, "a threshold on which rounding would decide says nothing"
    step = SemanticStep(model=str(folder / "encoder"), threshold=threshold, batch=3, max_tokens=128)
    found = outcomes(semantic, step, documents(TEXTS), place(tmp_path))
    assert kept(found) == greedily(vectors, threshold)
    assert 0 < len(kept(found)) < len(TEXTS) or threshold > 0.9


def test_a_text_in_other_words_goes_and_says_whose_twin_it_is(folder: Path, tmp_path: Path) -> None:
    rows = documents(["bcde", "The capital of France is Paris.", "cdbe", "", "", "  "])
    step = SemanticStep(model=str(folder / "encoder"), threshold=1.0, max_tokens=64)
    where = place(tmp_path)
    found = outcomes(semantic, step, rows, where)
    assert drops(found) == {"s.jsonl:2": ("same meaning", "s.jsonl:0, cosine 1.000")}
    assert where.report == {"width": 32, "compared_by_their_beginning": 0}


def test_who_is_like_a_dropped_one_alone_stays(tmp_path: Path) -> None:
    angles = np.radians([0, 20, 40, 60, 80, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    twin_of, cosines = models._twins(vectors.copy(), math.cos(math.radians(25)), torch.device("cpu"))
    assert twin_of.tolist() == [-1, 0, -1, 2, -1, -1]
    assert cosines[[1, 3]] == pytest.approx([math.cos(math.radians(20))] * 2)


@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(models, "BLOCK", block)
    twin_of, _ = models._twins(vectors.copy(), 0.8, torch.device("cpu"))
    stays = greedily(vectors.astype(np.float64), 0.8)
    assert np.flatnonzero(twin_of < 0).tolist() == stays
    first = [next(one for one in stays if vectors[one] @ vectors[number] >= 0.8) for number in np.flatnonzero(twin_of >= 0)]
    assert twin_of[twin_of >= 0].tolist() == first
    assert 20 < len(stays) < 280


def test_nothing_comes_of_nothing(folder: Path, tmp_path: Path) -> None:
    for make, step in (
        (semantic, SemanticStep(model=str(folder / "encoder"), max_tokens=64)),
        (perplexity, PerplexityStep(model=str(folder / "lm"), max_tokens=64)),
        (reward, RewardStep(model=str(folder / "reward"), max_tokens=64)),
    ):
        assert outcomes(make, step, _Rows(), place(tmp_path)) == []


def loss(folder: Path, text: str, max_tokens: int = 10_000) -> float:
    """The mean loss of a text's tokens after the mark for the beginning, computed for it alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[1, *tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]][:max_tokens]])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


@pytest.mark.parametrize("family", ["lm", "bloom", "gptj"])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_texts_perplexity_does_not_depend_on_its_neighbours(folder: Path, batch: int, family: str) -> None:
    step = PerplexityStep(model=str(folder / family), batch=batch, max_tokens=64)
    score = models._losses(running.named(step, "a model"), step)
    alone = [loss(folder / family, text, 64) for text in TEXTS]
    assert score(TEXTS) == pytest.approx(alone, rel=2e-6)
    assert score(["", "a"]) == [None, pytest.approx(loss(folder / family, "a"), rel=2e-6)]


def test_the_band_is_of_each_language(folder: Path, tmp_path: Path) -> None:
    rows = _Rows([*documents([f"{text} {number}" for number, text in enumerate(TEXTS * 2)], "en")])
    rows += [talk(f"你好，世界！{number}", language="zh", number=100 + number) for number in range(20)]
    rows.append(talk("", language="vi", number=200))
    losses = [loss(folder / "lm", row.messages[0].text) for row in rows[:-1]]
    step = PerplexityStep(model=str(folder / "lm"), low=10, high=75, max_tokens=256)
    where = place(tmp_path)
    found = outcomes(perplexity, step, rows, where)
    expected = []
    for group in (range(20), range(20, 40)):
        own = np.array(losses)[list(group)]
        low, high = np.percentile(own, [10, 75])
        expected += [number for number in group if low <= losses[number] <= high]
    assert kept(found) == [*expected, 40]
    low_one = int(np.argmin(losses[:20]))
    reason, detail = drops(found)[f"s.jsonl:{low_one}"]
    assert reason == "perplexity too low"
    assert detail.startswith(f"{math.exp(losses[low_one]):.4g}, not in ")
    assert where.report["unjudged"] == 1
    assert where.report["perplexity"]["zh"]["median"] == pytest.approx(math.exp(float(np.median(losses[20:]))), rel=1e-4)
    together = outcomes(
        perplexity, PerplexityStep(model=step.model, low=10, high=75, max_tokens=256, per_language=False), rows, where
    )
    low, high = np.percentile(losses, [10, 75])
    assert kept(together) == [*[number for number, one in enumerate(losses) if low <= one <= high], 40]


def test_another_band_asks_the_model_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place(tmp_path)
    step = PerplexityStep(model=str(folder / "lm"), max_tokens=64)
    before = outcomes(perplexity, step, documents(TEXTS), first)
    assert first.report["asked"] == len(TEXTS)
    again = place(tmp_path)
    monkeypatch.setattr(models, "load", None)
    assert outcomes(perplexity, step, documents(TEXTS), again) == before
    other = PerplexityStep(model=step.model, low=50, high=100, max_tokens=64, batch=2)
    assert len(kept(outcomes(perplexity, other, documents(TEXTS), again))) == 5
    assert again.report["asked"] == 0


def test_another_model_is_asked_again(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder / "lm", own)
    outcomes(perplexity, PerplexityStep(model=str(own), max_tokens=64), documents(TEXTS), place(tmp_path))
    tiny.model("llama", seed=9).save_pretrained(own)
    where = place(tmp_path)
    outcomes(perplexity, PerplexityStep(model=str(own), max_tokens=64), documents(TEXTS), where)
    assert where.report["asked"] == len(TEXTS)


PAIRS = [
    talk("What is the capital of France?", "Paris.", number=0),
    talk("巴黎在哪里？", "在法国。", number=1, given="地图"),
    talk("a", "b", number=2),
    talk("Thủ đô của Việt Nam?", "Hà Nội. " * 5, number=3),
]


def rewarded(folder: Path, text: str, max_tokens: int = 10_000) -> float:
    """The reward of a text and the end mark, computed for it alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [*tiny.tokenizer()(text, add_special_tokens=False)["input_ids"][: max_tokens - 1], 2]
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


@pytest.mark.parametrize("pad", ["own", "none", "the end mark"])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_reward_is_of_the_end_mark_whatever_is_beside_it(folder: Path, tmp_path: Path, batch: int, pad: str) -> None:
    own = tmp_path / "reward"
    shutil.copytree(folder / "reward", own)
    if pad != "own":
        tokenizer = tiny.train_tokenizer(tiny.TEXTS * 4, tiny.VOCABULARY)
        tokenizer.pad_token = None if pad == "none" else tokenizer.eos_token
        tokenizer.save_pretrained(own)
    step = RewardStep(model=str(own), batch=batch, max_tokens=48)
    texts = [text for pair in PAIRS for text in asked_and_answered(pair)]
    score = models.rewards(running.named(step, "a model"), step.max_tokens, step.batch)
    alone = [rewarded(folder / "reward", text, 48) for text in texts]
    assert score(texts) == pytest.approx(alone, rel=1e-5, abs=1e-6)
    assert len({round(one, 3) for one in alone}) == 4


def test_what_is_judged_is_laid_out_as_the_paper_does() -> None:
    assert asked_and_answered(PAIRS[1]) == ["Human:巴黎在哪里？\n地图\n\nAssistant:在法国。"]
    assert asked_and_answered(talk("a document")) == []


@pytest.mark.parametrize("scale", ["raw", "sigmoid"])
def test_the_worst_answer_decides_and_the_threshold_itself_is_enough(folder: Path, tmp_path: Path, scale: str) -> None:
    values = [min(rewarded(folder / "reward", text) for text in asked_and_answered(pair)) for pair in PAIRS]
    two = _Rows([*PAIRS, talk("a document", number=4)])
    joined = PAIRS[0].messages + PAIRS[2].messages
    two.append(type(PAIRS[0])(joined, "s", "en", "s.jsonl:5"))
    values += [math.inf, min(values[0], values[2])]
    middle = sorted(values)[2]
    threshold = 1 / (1 + math.exp(-middle)) if scale == "sigmoid" else middle
    step = RewardStep(model=str(folder / "reward"), threshold=threshold - 1e-6, scale=scale, max_tokens=256)
    where = place(tmp_path)
    found = outcomes(reward, step, two, where)
    assert kept(found) == [number for number, value in enumerate(values) if value >= middle]
    assert {reason for reason, _ in drops(found).values()} == {"low reward"}
    assert where.report["unjudged"] == 1
    other = RewardStep(model=step.model, threshold=-1e9, scale=scale, max_tokens=256)
    assert kept(outcomes(reward, other, two, where)) == list(range(6))
    assert where.report["asked"] == 0


STEPS = [(semantic, SemanticStep), (perplexity, PerplexityStep), (reward, RewardStep)]
EXPECTED = {
    "semantic": "any transformers encoder, a folder or hub id",
    "perplexity": "any causal language model, a folder or hub id",
    "reward": "any sequence classifier with one output, a folder or hub id",
}


@pytest.mark.parametrize(("make", "kind"), STEPS)
def test_no_model_is_said_before_anything_runs(make: Any, kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        make(kind(), place(tmp_path))
    where = f"cleaning.{kind().kind}.model"
    assert str(error.value) == f"{where}: got nothing; expected {EXPECTED[kind().kind]}; try {where}=FOLDER"


@pytest.mark.parametrize(("make", "kind"), STEPS)
def test_a_model_that_is_missing_pickled_or_broken_is_one_sentence(make: Any, kind: Any, tmp_path: Path, folder: Path) -> None:
    name = kind().kind
    source = {"semantic": "encoder", "perplexity": "lm", "reward": "reward"}[name]

    def said(model: str) -> str:
        with pytest.raises(ModelError) as error:
            outcomes(
                make, kind(model=model, max_tokens=64), documents(["a"]) if name != "reward" else _Rows(PAIRS), place(tmp_path)
            )
        text = str(error.value)
        assert text.startswith(f"cleaning.{name}.model: got {model}")
        assert f"; expected {EXPECTED[name]}; try " in text
        assert "\n" not in text
        return text

    assert "which is neither a folder here nor to be had from the hub" in said(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(folder / source, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "which transformers cannot read (" in said(str(broken))
    weights.unlink()
    assert "without weights in safetensors; " in said(str(broken))
    torch.save({}, broken / "pytorch_model.bin")
    assert "with pytorch_model.bin; " in said(str(broken))
    assert said(str(broken)).endswith("try converting them: a pickled file may run code when it is loaded")


def test_a_model_that_is_no_classifier_or_has_two_outputs_is_refused(folder: Path, tmp_path: Path) -> None:
    for model, got in (("lm", "without 1 of the weights (score.weight)"), ("two", "with 2 outputs")):
        with pytest.raises(ModelError) as error:
            outcomes(reward, RewardStep(model=str(folder / model), max_tokens=64), _Rows(PAIRS), place(tmp_path))
        assert str(error.value).startswith(
            f"cleaning.reward.model: got {folder / model} {got}; expected {EXPECTED['reward']}; try "
        )


def test_more_tokens_than_a_model_takes_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        outcomes(semantic, SemanticStep(model=str(folder / "encoder")), documents(["a"]), place(tmp_path))
    expected = f"expected at most 128, what {folder / 'encoder'} takes"
    assert str(error.value) == f"cleaning.semantic.max_tokens: got 256; {expected}; try cleaning.semantic.max_tokens=128"


@pytest.mark.parametrize(
    ("make", "step", "text"),
    [
        (
            semantic,
            SemanticStep(model="m", threshold=0),
            "cleaning.semantic.threshold: got 0; expected a cosine above 0 and up to 1",
        ),
        (
            perplexity,
            PerplexityStep(model="m", low=95),
            "cleaning.perplexity.low: got 95 to 95.0; expected percentiles from 0 to 100",
        ),
        (reward, RewardStep(model="m", scale="log"), "cleaning.reward.scale: got 'log'; expected one of raw, sigmoid; try"),
        (reward, RewardStep(model="m", dtype="int8"), "cleaning.reward.dtype: got 'int8'; expected one of float32, bfloat16; try"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(make: Any, step: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        make(step, place(tmp_path))
    assert str(error.value).startswith(text)


def test_a_damaged_cache_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    where = place(tmp_path)
    where.cache.mkdir()
    (where.cache / "scores.sqlite").write_bytes(b"no database " * 100)
    from babeltune.errors import DataError

    with pytest.raises(DataError) as error:
        outcomes(perplexity, PerplexityStep(model=str(folder / "lm"), max_tokens=64), documents(["a"]), where)
    got = "got a file that cannot be used (file is not a database)"
    assert str(error.value).startswith(f"{where.cache / 'scores.sqlite'}: {got}; expected a sound SQLite file")


def test_half_a_pair_of_surrogates_stops_no_step(folder: Path, tmp_path: Path) -> None:
    rows = documents(["a \ud83d b", "a"])
    assert len(outcomes(semantic, SemanticStep(model=str(folder / "encoder"), max_tokens=64), rows, place(tmp_path))) == 2
    assert len(outcomes(perplexity, PerplexityStep(model=str(folder / "lm"), max_tokens=64), rows, place(tmp_path))) == 2
