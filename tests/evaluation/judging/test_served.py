"""A judge that is a real model behind a real server: `transformers serve`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from babeltune.evaluation.judging import deciding
from babeltune.modeling.loading import fresh_model
from tests.commands import end, wait_for
from tests.evaluation.judging.scripted import config, endpoint, items, replies
from tests.modeling import tiny

TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def _model(folder: Path) -> Path:
    fresh_model(tiny.LLAMA | {"max_position_embeddings": 4096}, tiny.VOCABULARY, 0).save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@contextlib.contextmanager
def _serving(model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32", "--default-seed", "0", str(model)]
    with (model / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=log, stderr=log, text=True, start_new_session=True
        )
    try:

        def is_up() -> bool:
            assert process.poll() is None, (model / "serve.log").read_text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
            return False

        wait_for(is_up, 180)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(process)


@pytest.mark.slow
def test_a_model_server_answers_every_question_and_is_asked_each_once(tmp_path: Path) -> None:
    """The model is random, so it says nothing that is a verdict: that is counted, and no zero."""
    folder = _model(tmp_path / "model")
    asked = items(6)
    with _serving(folder) as url:
        one = endpoint(url, model=str(folder), max_tokens=8, timeout=60.0, n_judgements=2)
        judged = deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert judged.facts["requests"] == 12
        assert judged.facts["prompt_tokens"] > 12 * 100
        assert set(judged.facts["outcomes"]) <= {"unparsable", "truncated"}
        assert all(verdict.text and verdict.value is None for verdict in judged.verdicts.values())
        again = deciding.judge(config(one), asked, replies(asked), tmp_path)
        assert (again.facts["requests"], again.facts["questions_kept"]) == (0, 12)
        assert again.verdicts == judged.verdicts
