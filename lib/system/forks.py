"""Processes that begin loaded: one process imports torch and the study once, and the jobs of a study are forks of it.

Imports take three to four seconds of a core, which is most of what a short job takes. While `python -m lib study` runs, it
keeps a process that has imported what jobs need (`serving`, `serve`). A command that Snakemake starts asks that process for a
fork (`ask`) and waits for its end. The fork is what the command would have been: a process of its own, with the caller's
arguments, folder, environment and streams, that ends when the caller does. A command loads by itself where there is no such
process (another machine of a cluster, a GPU, since CUDA outlives no fork, a system other than Linux), where it may have more
threads than one (numerical libraries decide that when they are imported), and where lib was changed after the process began.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ADDRESS = "STUDY_FORKS"  # the environment variable that tells jobs whom to ask
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
KILLED = 128 + signal.SIGKILL  # as shells tell of a process that was killed
BEGUN = b"+"  # what a fork says first
INTERRUPTED = b"!"  # what it is told of Ctrl-C
LENGTH = 8  # bytes that say how long a request is


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], wanted: bool = True) -> Iterator[dict[str, str]]:
    """Keeps a process of `command`, which calls `serve`; yields what to add to the environment
    of jobs, which tells them of it.

    The socket is there before the process is: who asks while it still loads waits. Unless `wanted`, and on systems other than
    Linux, nothing is added and jobs load by themselves.
    """
    if not wanted or sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="study-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/forks")
        listening.listen(64)
        handed = listening.fileno()
        begun = [*command, str(handed)]
        process = subprocess.Popen(begun, pass_fds=[handed], stdin=subprocess.PIPE, env={**environment, **ONE_THREAD})
        listening.close()  # it is the other process's: should that end, nobody waits for an answer
        try:
            yield {ADDRESS: f"{folder}/forks"}
        finally:
            process.kill()
            process.communicate()


def serve(handed: int, work: Callable[[list[str]], int], sources: Path, begun: tuple[int, int]) -> None:
    """Fork for everyone who asks, until the standard input ends, as it does with the process that began this one.

    A fork calls `work` with the arguments it was asked for and ends with the exit code that this returns. No fork is made once
    the Python files below `sources` are others than they were (`state`) when this process had `begun` to import them.
    """
    gc.collect()
    gc.freeze()  # pages of what is loaded stay shared with the forks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for forks: they tell their exit codes themselves
    with socket.socket(fileno=handed) as listening:
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            asking, _ = listening.accept()
            with asking:
                if state(sources) == begun and os.fork() == 0:
                    listening.close()
                    _fork(asking, work)


def state(sources: Path) -> tuple[int, int]:
    """How many Python files are below a folder, and when the last was changed."""
    times = [p.stat().st_mtime_ns for p in sources.rglob("*.py")]
    return len(times), max(times, default=0)


def _attend(asking: socket.socket) -> None:
    """Interrupt this process when who asked for it is interrupted, and end it when he ends."""
    with contextlib.suppress(OSError):
        while asking.recv(1) == INTERRUPTED:
            os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)


def _fork(asking: socket.socket, work: Callable[[list[str]], int]) -> None:
    """The life of a fork; it never returns into what its parent was doing."""
    code = 1
    try:
        os.setsid()  # it ends with who asked, not with the terminal or group of its parent
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        head, streams, _, _ = socket.recv_fds(asking, LENGTH, 3)
        asked = json.loads(_read(asking, int.from_bytes(head + _read(asking, LENGTH - len(head)), "big")))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[1:] = asked["given"]
        threading.Thread(target=_attend, args=(asking,), daemon=True).start()
        asking.sendall(BEGUN)
        code = work(asked["given"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):  # a stream that the caller has closed
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            asking.sendall(bytes([code & 255]))
        os._exit(code & 255)


def _read(asking: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = asking.recv(count - len(found))
        if not part:
            raise EOFError("who asked for a fork went away")
        found += part
    return found


def ask(given: list[str]) -> int | None:
    """The exit code of a fork that does what was `given`; None where none is to be had, and the caller does it himself.

    The fork is told of Ctrl-C and decides what becomes of it, as a kernel does that nobody has asked anything.
    """
    address = os.environ.get(ADDRESS)
    if not address or any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        return None
    asked = {"given": given, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    request, told, parent = json.dumps(asked).encode(), b"", os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [len(request).to_bytes(LENGTH, "big")], [0, 1, 2])
            server.sendall(request)
            server.settimeout(1)
            with _interrupting(server):
                told = _answer(server, parent)
                code = _answer(server, parent)
        except OSError:
            code = b""
    if told != BEGUN:
        return None
    return code[0] if code else KILLED


@contextlib.contextmanager
def _interrupting(server: socket.socket) -> Iterator[None]:
    """Ctrl-C is the fork's, whenever it comes; what waits for an answer goes on waiting."""
    before = signal.signal(signal.SIGINT, lambda *_: server.sendall(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(server: socket.socket, parent: int) -> bytes:
    """A byte from the fork, however long that takes; OSError once who began this process is gone, as kernels end then."""
    while True:
        try:
            return server.recv(1)
        except TimeoutError:
            if os.getppid() != parent:
                raise
