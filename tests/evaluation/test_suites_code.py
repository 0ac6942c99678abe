"""HumanEval: what is run of a reply, and that nothing is run without leave. The last tests run each kind of benchmark whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from babeltune import cells, results, runner
from babeltune.errors import ConfigError, DataError, EvalError
from babeltune.evaluation import sandbox, suites
from babeltune.evaluation.generating import generate
from babeltune.evaluation.suites import code
from babeltune.evaluation.suites.benchmarks import bare, prompts
from babeltune.options import RunConfig
from tests.evaluation import benchmarks
from tests.modeling import tiny

ALLOWED = "evaluation.allow_code=true"
ROW = {
    "task_id": "Own/0",
    "prompt": 'def double(x):\n    """Twice a number."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}
PROMPT = '''Please complete the following Python code without providing any additional tasks such as testing or explanations
def double(x):
    """Twice a number."""
'''


@pytest.fixture
def able() -> None:
    try:
        sandbox.check()
    except EvalError as error:
        pytest.skip(str(error))


def _config(root: Path) -> RunConfig:
    benchmarks.write(root, "eval_humaneval", data=[ROW, ROW | {"task_id": "Own/1"}, ROW | {"task_id": "Own/2"}])
    return benchmarks.config(root, "humaneval", ALLOWED)


def test_code_is_asked_in_instructevals_words(tmp_path: Path) -> None:
    settings = _config(tmp_path)
    item = suites.items(settings)[0]
    (message,) = next(prompts(item))
    assert message.text == PROMPT
    assert (item.id, message.role) == ("Own/0", "text")
    assert (settings.decoding.sample, settings.decoding.temperature) == (True, 0.1)
    assert benchmarks.config(tmp_path, "humaneval", ALLOWED, "scale=paper").decoding.max_new_tokens == 512


def test_programs_are_not_run_without_leave(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        benchmarks.config(tmp_path, "humaneval")
    assert str(caught.value) == (
        "evaluation.allow_code: got false; expected leave to run the programs that the model writes, in a sandbox without network; "
        "try evaluation.allow_code=true"
    )


@pytest.mark.parametrize(
    ("reply", "run"),
    [
        ("    return 2 * x\n", "    return 2 * x\n"),
        ("   return 2 * x", "    return 2 * x"),
        ("\n\n    a = 2\n    return a * x\n\nprint(double(3))", "    a = 2\n    return a * x"),
        (" def double(x):\n     return 2 * x", "  def double(x):\n      return 2 * x"),
    ],
)
def test_what_is_run_of_a_reply(reply: str, run: str) -> None:
    assert code.completion(reply) == run


@pytest.mark.usefixtures("able")
def test_pass_at_1_is_the_share_of_functions_whose_tests_pass(tmp_path: Path) -> None:
    settings = _config(tmp_path)
    items = suites.items(settings)
    said = {"Own/0": "    return 2 * x\n", "Own/1": "    return x * x", "Own/2": "    import sys\n    sys.exit(0)"}
    (part,) = code.scores(settings, items, benchmarks.replies({"Own/1": said["Own/1"]}), {})
    assert (part.value, part.n, part.unscored) == (0.0, 1, 2)
    (score,) = code.scores(settings, items, benchmarks.replies(said), {})
    assert (score.name, score.value, score.n, score.unscored) == ("humaneval/pass_at_1", pytest.approx(100 / 3), 3, 0)
    assert dict(score.items) == {"Own/0": 100.0, "Own/1": 0.0, "Own/2": 0.0}


@pytest.mark.usefixtures("able")
def test_published_solutions_pass(tmp_path: Path) -> None:
    item = suites.items(_config(tmp_path))[0]
    assert sandbox.run(code.program(item, item.reference)).passed


def test_a_reply_that_is_code_keeps_its_first_spaces(tmp_path: Path) -> None:
    _config(tmp_path)
    settings = benchmarks.config(tmp_path, "humaneval", ALLOWED, "evaluation.decoding.temperature=50")
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    way = tiny.writing(settings)
    items = [bare(f"i{n}", "x " * n, "", "t") for n in range(1, 60)]
    kept = generate(model, tokenizer, items, settings, way, lambda event, **facts: None)
    other = benchmarks.config(tmp_path, "toy_zh", "decoding=code", "decoding.temperature=50", "decoding.max_new_tokens=24")
    plain = generate(model, tokenizer, items, other, way, lambda event, **facts: None)
    assert [reply.text.strip() for reply in kept] == [reply.text for reply in plain]
    assert any(reply.text != reply.text.strip() for reply in kept)


def test_examples_are_left_out_until_a_prompt_fits() -> None:
    from babeltune.evaluation.generating import prompt_ids

    way = tiny.writing(tiny.config())
    shots = tuple(f"Q{n}? Answer: {n}\n\n" for n in range(4))
    item = bare("i", "Q9? Answer:", "9", "t", lead="Sums.\n", shots=shots)
    whole = ["".join(["Sums.\n", *shots[:count], "Q9? Answer:"]) for count in range(5)]

    def lengths(room: int) -> str:
        (ids,) = prompt_ids([item], way, None, room)
        assert len(ids) <= room
        return way.encoder.decode(ids, skip_special=True)

    sizes = [len(prompt_ids([bare("i", text, "", "t")], way, None, 10_000)[0]) for text in whole]
    for count in range(5):
        assert lengths(sizes[count]).strip() == whole[count].strip()
        assert count == 4 or lengths(sizes[count + 1] - 1).strip() == whole[count].strip()
    assert whole[0].endswith(lengths(sizes[0] - 2).strip())


def test_a_benchmark_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    settings = benchmarks.config(tmp_path, "mmcu", f"paths.outputs={tmp_path / 'out'}")
    with pytest.raises(DataError, match=r"^evaluation.sources.eval_mmcu: got no data files in .*eval_mmcu, and no hub_id"):
        cells.cell_of(settings)


@pytest.mark.slow
@pytest.mark.usefixtures("able")
def test_each_kind_of_benchmark_runs_whole(tmp_path: Path) -> None:
    benchmarks.mmlu(tmp_path)
    benchmarks.write(tmp_path, "eval_bbh", sums=[{"input": f"{n} + 1", "target": str(n + 1)} for n in range(8)])
    pair = {"input": "Hi", "target_scores": {"Go.": 0, "Hello.": 1}}
    benchmarks.write(tmp_path, "eval_hhh", honest=[pair], other=[pair])
    _config(tmp_path)
    own = [f"paths.outputs={tmp_path / 'out'}", "scale=smoke", "model=tiny_fresh", "data=toy_documents", "stage=pretrain"]
    own += ["template=plain", "adapter=none"]
    main = {"mmlu": "accuracy", "bbh": "accuracy", "humaneval": "pass_at_1", "hhh": "accuracy"}
    for suite, score in main.items():
        allowed = [ALLOWED] if suite == "humaneval" else []
        result = runner.run(benchmarks.config(tmp_path, suite, *own, *allowed))
        first = next(iter(result.scores.values()))
        assert first.name == f"{suite}/{score}"
        assert first.n > 0
        assert first.value is not None
    assert len(list((tmp_path / "out").glob("*/trained.json"))) == 1  # judged four times, trained once
    replies = [reply for path in (tmp_path / "out").glob("*/evaluations/*/replies.jsonl") for reply in results.read_replies(path)]
    assert sum(len(reply.logprobs) == 2 for reply in replies) == 4
