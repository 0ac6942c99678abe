"""Programs that a model wrote end alone, and harm nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from babeltune.errors import EvalError
from babeltune.evaluation import sandbox

FORKS = """
    import os, time
    count = 0
    try:
        while count < 100:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            count += 1
    except OSError as error:
        raise RuntimeError(f"{count} processes") from error
"""


@pytest.fixture(autouse=True, scope="module")
def _able() -> None:
    try:
        sandbox.check()
    except EvalError as error:
        pytest.skip(str(error))


def _run(program: str, seconds: float = 3.0) -> sandbox.Done:
    started = time.monotonic()
    done = sandbox.run(textwrap.dedent(program), seconds=seconds)
    assert time.monotonic() - started < 15
    assert not _left_over()
    return done


def _left_over() -> list[Path]:
    """Processes of programs that are still there, none of which should be: those of other sandboxes have another parent."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b'"/program.py"' in words and parent == 1:
            found.append(process)
    return found


def test_a_right_program_passes_and_a_wrong_one_fails() -> None:
    assert _run("import math\nassert math.gcd(12, 18) == 6") == sandbox.Done(True, "")
    assert _run("assert 1 + 1 == 3, 'sum'") == sandbox.Done(False, "AssertionError: sum")
    assert not _run("def broken(:").passed


@pytest.mark.parametrize(
    "program", ["import os\nos._exit(0)", "import sys\nsys.exit(0)", "exit()", "import os\nos.close(1)\nos._exit(0)"]
)
def test_a_program_that_ends_before_its_tests_fails(program: str) -> None:
    assert not _run(program).passed


def test_what_a_program_prints_is_no_answer() -> None:
    assert _run("print('passed' * 100_000)\nassert False").said == "AssertionError: "


def test_an_infinite_loop_is_ended() -> None:
    done = _run("while True: pass", seconds=1)
    assert not done.passed
    assert "limits of time" in done.said or "no end after" in done.said


def test_a_program_that_waits_is_ended() -> None:
    assert _run("import time\ntime.sleep(100)", seconds=1) == sandbox.Done(False, "no end after 4 seconds")


def test_processes_are_limited_and_end_with_the_first() -> None:
    done = _run(FORKS)
    assert not done.passed
    assert int(done.said.split()[1]) < 8


def test_a_fork_bomb_ends_alone() -> None:
    assert not _run("import os\nwhile True: os.fork()", seconds=1).passed


def test_a_process_that_leaves_its_group_ends_too() -> None:
    program = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
        os.wait()
    """
    assert _run(program).passed


def test_too_much_memory_is_refused() -> None:
    assert _run("x = bytearray(10 * 2**30)").said.startswith("MemoryError")


def test_too_much_disk_is_refused() -> None:
    one = "with open('x', 'wb') as file:\n    for _ in range(100): file.write(bytes(2**20))"
    assert "File too large" in _run(one).said
    many = "for name in range(20):\n    with open(str(name), 'wb') as file: file.write(bytes(15 * 2**20))"
    assert "No space left" in _run(many).said


def test_its_own_folder_can_be_written() -> None:
    assert _run("open('x', 'w').write('a')\nassert open('x').read() == 'a'").passed


def test_nothing_else_can_be_written(tmp_path: Path) -> None:
    for place in (tmp_path / "x", Path.home() / "babeltune-was-here", Path("/usr/x"), Path("/x"), Path(sys.base_prefix) / "x"):
        assert not _run(f"open({str(place)!r}, 'w').write('a')").passed, place
        assert not place.exists()


def test_no_secret_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("word")
    monkeypatch.setenv("SECRET", "word")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _run("import os\nassert os.environ['SECRET']").said == "KeyError: 'SECRET'"
    for place in (secret, Path(__file__), Path("/etc/passwd"), Path("/proc/1/environ")):
        assert _run(f"open({str(place)!r})").said.startswith("FileNotFoundError"), place
    assert _run("import os\nassert sorted(os.environ) in ([], ['LC_CTYPE'])").passed


def test_no_socket_reaches_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = _run(f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=2)")
        assert "unreachable" in done.said
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_rights_are_left_to_change_what_is_shown() -> None:
    program = """
        import ctypes
        libc = ctypes.CDLL(None)
        assert libc.mount(None, b"/usr", None, 32 | 4096, None) == -1
        libc.unshare(0x10000000 | 0x20000)
        assert libc.mount(None, b"/usr", None, 32 | 4096, None) == -1
        assert libc.umount2(b"/usr", 2) == -1
    """
    assert _run(program).passed


def test_no_other_process_can_be_seen_or_ended() -> None:
    assert _run(f"import os\nassert os.getpid() == 1\nos.kill({os.getpid()}, 9)").said.startswith("ProcessLookupError")


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="another user is tried by root")
def test_it_holds_for_a_user_without_rights_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    jail = Path(shutil.copy(sandbox.JAIL, f"/tmp/{tmp_path.parent.name}-jail.py"))
    jail.chmod(0o644)
    try:
        for program, passes in {"assert True": True, textwrap.dedent(FORKS): False, "open('/usr/x', 'w')": False}.items():
            asked = {"program": program, "python": "/usr/bin/python3", "prefix": "/usr", "seconds": 3, "memory_mb": 512}
            done = subprocess.run(
                ["/usr/bin/python3", "-I", "-S", str(jail)],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                env={},
                user=65534,
                group=65534,
                extra_groups=[],
            )
            answer = json.loads(done.stdout)
            if "refused" in answer:
                pytest.skip(answer["refused"])
            assert answer["passed"] is passes
            assert "processes" not in answer["said"] or int(answer["said"].split()[1]) < 8
    finally:
        jail.unlink()


def test_a_machine_that_cannot_keep_programs_apart_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jail = tmp_path / "jail.py"
    jail.write_text("""print('{"refused": "the system refuses new namespaces (Operation not permitted)"}')""")
    monkeypatch.setattr(sandbox, "JAIL", jail)
    with pytest.raises(EvalError) as caught:
        sandbox.run("assert True")
    assert str(caught.value) == (
        "evaluation.allow_code: got the system refuses new namespaces (Operation not permitted); expected user, mount, process and "
        "network namespaces of Linux 5.12 or later; try a machine or container that allows them, or a suite without programs"
    )
