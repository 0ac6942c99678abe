"""Runs one program that nobody has read, where it can harm nothing. A script: `sandbox.py` starts it and nothing imports it.

It reads {"program", "python", "prefix", "seconds", "memory_mb"} as JSON from its input and writes {"passed", "said"} to its
output, or {"refused"} when this machine cannot keep a program apart. The program gets new user, mount, process, network and IPC
namespaces; a file system of its own in memory that has the interpreter and the system's libraries read-only, and a folder to
write in; no environment; no rights; and limits of time, memory, files and processes. It ends, with all it started, when its
first process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import secrets
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
NO_SUID, NO_DEVICES, BIND, RECURSIVE, PRIVATE, DETACH = 2, 4, 4096, 16384, 1 << 18, 2
MOUNT_SETATTR, AT_RECURSIVE, READ_ONLY_ATTRIBUTES = 442, 0x8000, 0x1 | 0x2  # read-only, no set-user-id programs
SET_DEATH_SIGNAL, DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 1, 24, 38

INSIDE = 1000
"""The user that a program is, as it sees itself. Not 0: it would get rights over the namespaces when it starts."""
PROCESSES = 8
FILE_BYTES = 16 * 2**20
DISK_BYTES = 64 * 2**20
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
"""What an interpreter may need, where it is there."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
WALL = 4
"""A program may take so many times its seconds of computing before it is ended: it may be waiting for its turn, or for nothing."""

HARNESS = """
import os, sys
token, = sys.argv[1:]
del sys.argv[1:]
result = os.dup(1)
nothing = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(nothing, number)
with open("/program.py", encoding="utf-8") as file:
    source = file.read()
try:
    exec(compile(source, "program.py", "exec"), {"__name__": "program"})
except BaseException as error:
    said = f"{type(error).__name__}: {error}"
else:
    said = token
os.write(result, said.encode("utf-8", "replace")[:400])
os._exit(0)
"""

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This machine cannot keep a program apart."""


def main() -> None:
    asked = json.loads(sys.stdin.read())
    try:
        passed, said = run(asked)
        answer: dict[str, Any] = {"passed": passed, "said": said}
    except Refused as error:
        answer = {"refused": str(error)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


def run(asked: dict[str, Any]) -> tuple[bool, str]:
    """Whether the program ended without an error, and what the error was."""
    libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    enter_namespaces()
    build_root(asked["prefix"], asked["program"])
    token = secrets.token_hex(16)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        start(asked, token, writing)
    os.close(writing)
    try:
        said = read(reading, asked["seconds"] * WALL)
    finally:
        os.kill(child, signal.SIGKILL)  # the first process of its namespace: all others end with it
        _, status = os.waitpid(child, 0)
    if said is None:
        return False, f"no end after {asked['seconds'] * WALL:g} seconds"
    if not said and os.WIFSIGNALED(status):
        return False, f"ended by signal {os.WTERMSIG(status)}: beyond its limits of time or memory, or crashed"
    if said.startswith("cannot start"):
        raise Refused(said)
    return said == token, "" if said == token else said[:400] or "ended before its tests did"


def enter_namespaces() -> None:
    """Become a user that has no rights outside, in namespaces of one's own.

    A user who is root outside becomes one that no process has: limits on the number of processes do not hold for root.
    """
    user, group = (_unused(), _unused()) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    was_root = os.geteuid() == 0
    ready, is_ready = os.pipe()
    me = os.getpid()
    helper = os.fork()  # whoever unshares cannot map itself to another user
    if helper == 0:
        os.read(ready, 1)
        os._exit(_map(me, user, group, was_root))
    try:
        if libc.unshare(NEW_USER | NEW_MOUNT | NEW_PID | NEW_NET | NEW_IPC | NEW_UTS) != 0:
            raise Refused(f"the system refuses new namespaces ({_error()})")
        os.write(is_ready, b"1")
        if os.waitpid(helper, 0)[1] != 0:
            raise Refused("the system refuses to map users into a new namespace")
    finally:
        for handle in (ready, is_ready):
            os.close(handle)


def _map(process: int, user: int, group: int, was_root: bool) -> int:
    """Say who the users of a process's namespace are outside. Returns what to exit with."""
    try:
        if not was_root:
            _write(f"/proc/{process}/setgroups", "deny")
        _write(f"/proc/{process}/uid_map", f"{INSIDE} {user} 1")
        _write(f"/proc/{process}/gid_map", f"{INSIDE} {group} 1")
    except OSError:
        return 1
    return 0


def _unused() -> int:
    """A user id that nothing has, of those there are here."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        first, _, size = map(int, file.readline().split())
    return first + min(size - 2, 2_000_000_000 + os.getpid())


def build_root(prefix: str, program: str) -> None:
    """A file system of its own, in the place of the machine's.

    What is shown of the machine is opened first: the user that makes the rest may not be let through to it.
    """
    shown = [path for path in (*SYSTEM, *DEVICES, prefix) if os.path.exists(path)]
    shown = [path for path in shown if path != prefix or not prefix.startswith("/usr/")]
    links = [path for path in shown if os.path.islink(path)]
    opened = {path: os.open(path, os.O_PATH) for path in shown if path not in links}
    targets = {path: os.readlink(path) for path in links}
    if os.getuid() != INSIDE:
        os.setgroups([])
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
    _mount(None, "/", None, RECURSIVE | PRIVATE, None)
    _mount("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEVICES, "size=4m,nr_inodes=1024,mode=755")  # noqa: S108
    root = "/tmp"  # noqa: S108
    for path, handle in opened.items():
        _show(handle, root + path, read_only=path not in DEVICES)
    for path, target in targets.items():
        os.symlink(target, root + path)
    os.mkdir(root + "/box")
    _write(root + "/program.py", program)
    _mount("tmpfs", root + "/box", "tmpfs", NO_SUID | NO_DEVICES, f"size={DISK_BYTES},nr_inodes=4096,mode=755")
    _read_only(root, 0)
    os.chdir(root)
    if libc.pivot_root(b".", b".") != 0 or libc.umount2(b".", DETACH) != 0:
        raise Refused(f"the system refuses another root folder ({_error()})")
    os.chdir("/box")


def _show(handle: int, place: str, *, read_only: bool) -> None:
    """Let what is open be seen at a place, without what may be mounted on top there being writable."""
    os.makedirs(os.path.dirname(place), exist_ok=True)
    source = f"/proc/self/fd/{handle}"
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        _write(place, "")
    _mount(source, place, None, BIND | RECURSIVE, None)
    if read_only:
        _read_only(place, AT_RECURSIVE)


def _read_only(place: str, depth: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY_ATTRIBUTES, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if libc.syscall(MOUNT_SETATTR, -100, place.encode(), depth, ctypes.byref(attributes), size) != 0:
        raise Refused(f"the system cannot show {place} read-only ({_error()})")


def start(asked: dict[str, Any], token: str, result: int) -> NoReturn:
    """Become the program."""
    try:
        os.setsid()
        os.dup2(result, 1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 2)
        _limit(asked)
        for right in range(64):
            libc.prctl(DROP_FROM_BOUNDING_SET, right, 0, 0, 0)
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.closerange(3, 1024)
        os.execve(asked["python"], ["python", "-I", "-S", "-c", HARNESS, token], {})  # noqa: S606
    except OSError as error:
        os.write(1, f"cannot start {asked['python']} ({error.strerror})".encode())
    os._exit(1)


def _limit(asked: dict[str, Any]) -> None:
    seconds = max(1, round(asked["seconds"]))
    for what, most in {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: asked["memory_mb"] * 2**20,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NPROC: PROCESSES,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }.items():
        resource.setrlimit(what, (most, most))


def read(handle: int, seconds: float) -> str | None:
    """What the program's first process has to say when it ends; None when it does not."""
    deadline = time.monotonic() + seconds
    said = b""
    for left in _until(deadline):
        if not select.select([handle], [], [], left)[0]:
            continue
        part = os.read(handle, 4096)
        said += part
        if not part or len(said) >= 4096:
            return said.decode("utf-8", "replace")
    return None


def _until(deadline: float) -> Iterator[float]:
    while (left := deadline - time.monotonic()) > 0:
        yield left


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        raise Refused(f"the system refuses to mount {target} ({_error()})")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _error() -> str:
    return os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
