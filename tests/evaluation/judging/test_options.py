"""Options of a judge that cannot be are refused in one sentence, before anything runs."""

from __future__ import annotations

import pytest

from babeltune.cells import cell_of
from babeltune.config import compose
from babeltune.errors import ConfigError

AT = "judge=endpoint judge.url=http://127.0.0.1:1/v1 judge.model=m"

SENTENCES = {
    "judge=endpoint judge.model=m": "judge.url: got nothing; expected the endpoint's address, up to and with /v1; "
    "try judge.url=URL",
    "judge=endpoint judge.url=u": "judge.model: got nothing; expected a model to judge by; try judge.model=MODEL",
    "judge=reward": "judge.model: got nothing; expected a model to judge by; try judge.model=MODEL",
    "judge=recorded": "judge.file: got nothing; expected a file of verdicts; try judge.file=FILE",
    "judge=vicuna": "judge.against: got nothing; expected the replies that judge.protocol=vicuna compares with; "
    "try judge.against=FOLDER of another cell, or a file of replies",
    f"{AT} judge.against=x": "judge.against: got 'x'; expected nothing with judge.protocol=belle, which looks at one reply; "
    "try judge.against=''",
    f"{AT} judge.protocol=bele": "judge.protocol: got 'bele'; expected one of belle, vicuna, impact; try judge.protocol=belle",
    f"{AT} judge.markers=papers": "judge.markers: got 'papers'; expected one of paper, fastchat; try judge.markers=paper",
    f"{AT} judge.digit=2": "judge.digit: got '2'; expected one of first, last; try judge.digit=",
    f"{AT} judge.fence=none": "judge.fence: got 'none'; expected one of nonce, plain; try judge.fence=nonce",
    f"{AT} judge.n_judgements=0": "judge.n_judgements: got 0; expected a number above zero; try judge.n_judgements=1",
    f"{AT} judge.concurrency=0": "judge.concurrency: got 0; expected a number above zero; try judge.concurrency=1",
    f"{AT} judge.max_requests=0": "judge.max_requests: got 0; expected a number above zero; try judge.max_requests=1",
    f"{AT} judge.temperature=-1": "judge.temperature: got -1.0; expected 0 or more; try judge.temperature=0",
    f"{AT} judge.retries=-1": "judge.retries: got -1; expected 0 or more; try judge.retries=0",
    f"{AT} judge.max_unreachable=2": "judge.max_unreachable: got 2.0; expected a share from 0 to 1; try judge.max_unreachable=0.02",
    f"{AT} judge.max_cost=1": "judge.max_cost: got 1.0; expected prices per million tokens to count by; "
    "try judge.prompt_price=PRICE judge.answer_price=PRICE",
}


@pytest.mark.parametrize("words", SENTENCES)
def test_an_option_that_cannot_be_is_one_sentence(words: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(["data=none", *words.split()])
    assert str(error.value) == SENTENCES[words] or str(error.value).startswith(SENTENCES[words])


def test_no_option_holds_a_key() -> None:
    with pytest.raises(ConfigError, match="key"):
        compose(["data=none", *AT.split(), "+judge.api_key=sk-canary"])


def test_files_that_are_not_there_are_said_before_anything_runs() -> None:
    for words, option in (("judge=recorded judge.file=nowhere", "file"), (f"{AT} judge.prompts=nowhere", "prompts")):
        with pytest.raises(ConfigError) as error:
            cell_of(compose(["data=none", *words.split()]))
        got = "got nowhere, which cannot be read (No such file or directory)"
        assert str(error.value) == f"judge.{option}: {got}; expected a file of JSON Lines; try judge.{option}=FILE"


def test_a_judge_is_another_way_of_judging_and_trains_nothing_again() -> None:
    known, judged, dearer = (
        cell_of(compose(["data=toy_zh", *words])) for words in ([], ["judge=belle"], ["judge=belle", "judge.max_requests=9"])
    )
    assert known.folder == judged.folder == dearer.folder
    assert known.evaluation != judged.evaluation == dearer.evaluation
