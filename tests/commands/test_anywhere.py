"""The project works wherever it lies, in any locale, and says in a line why it cannot: odd folders, read-only ones, Ctrl-C."""

import ast
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import filelock
import papermill
import psutil
import pytest

from lib import __main__ as command
from lib.commands import report, study
from lib.runs import headless, profiles
from lib.system import files, forks, paths

LIB = sorted((paths.PROJECT / "lib").rglob("*.py"))
NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield node, name, {k.arg: k.value for k in node.keywords}


def test_text_is_utf8_whatever_the_locale():
    """Every call that reads or writes text says so."""
    bare = []
    for file in LIB:
        for node, name, given in calls(ast.parse(file.read_text(encoding="utf-8"))):
            owner = ast.unparse(node.func).rpartition(".")[0]
            binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in [*node.args[:2], given.get("mode")])
            of_text = name in ("read_text", "write_text", "TextIOWrapper") or (
                name == "open" and not binary and owner not in ("Image", "tokenize")
            )
            piped = owner == "subprocess" and {"text", "universal_newlines"} & set(given)
            if (of_text or piped) and "encoding" not in given:
                bare.append(f"{file.relative_to(paths.PROJECT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not bare, "\n".join(bare)


def test_every_shell_line_is_quoted():
    """So that a checkout may lie in a folder with a space: in the Snakefile by :q, and what make runs is named from there."""
    snakefile = (paths.PROJECT / "Snakefile").read_text(encoding="utf-8")
    lines = re.findall(r"shell:\s*\n\s*\"(.*)\"\n", snakefile)
    assert len(lines) == snakefile.count("shell:") >= 5
    bare = [field for line in lines for field in re.findall(r"{[^}]*}", line) if not field.endswith(":q}")]
    assert not bare
    rules = (paths.PROJECT / "Makefile").read_text(encoding="utf-8")
    assert "RUN := .venv/bin/python" in rules and "$(CURDIR)" not in rules and "$(PWD)" not in rules  # from where it lies


@pytest.mark.parametrize("folder", ["a b", "{j}", "[x]", "é#%", "it's"])
def test_notebooks_are_found_in_folders_of_any_name(tmp_path, folder):
    notebook = tmp_path / folder / "99-ledger.ipynb"
    notebook.parent.mkdir()
    shutil.copy(profiles.notebook_of("99-ledger"), notebook)
    assert "profile" in papermill.inspect_notebook(headless._literal(notebook))


def lib(*arguments, **settings):
    environment = os.environ | {k: str(v) for k, v in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "lib", *arguments], cwd=paths.PROJECT, env=environment, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_commands_speak_in_any_locale(home):
    code, said, errors = lib(**NOT_UTF8)
    assert code == 2 and said.startswith("usage: python -m lib COMMAND") and not errors
    code, _, errors = lib("run", "01-attention-shift", "--profile", "smoke", "--set", "device=ü", STUDY_HOME=home, **NOT_UTF8)
    assert code == 2 and "device = 'ü'" in errors and "Traceback" not in errors


def test_commands_wait_for_nothing_that_they_do_not_need():
    """Each of these takes a third of a second or more, of every process of a study; JupyterLab is there before torch is."""
    code = """if True:
        import sys
        import lib.commands.lab
        print(*{"torch", "pandas", "matplotlib", "jupyterlab"} & set(sys.modules))
        import lib.commands.train, lib.commands.measure
        print(*{"scipy.stats", "seaborn", "jsonschema", "papermill", "torchvision", "timm", "sklearn"} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "\n\n"


def test_json_is_utf8_in_any_locale(tmp_path):
    files.write_bytes(tmp_path / "a.json", '{"class": "hündchen"}'.encode())
    code = "from pathlib import Path; from lib.system import files; print(ascii(files.read_json(Path('a.json'))))"
    command = [sys.executable, "-c", code]
    environment = os.environ | NOT_UTF8 | {"PYTHONPATH": str(paths.PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert rb"h\xfcndchen" in done.stdout


@pytest.mark.parametrize(
    ("encoding", "mode", "anew"), [("UTF-8", 0, False), ("ANSI_X3.4-1968", 0, True), ("latin-1", 0, True), ("ascii", 1, False)]
)
def test_a_locale_that_is_not_utf8_begins_anew_in_utf8(monkeypatch, encoding, mode, anew):
    """Once; what is started from there (Snakemake, its jobs, kernels) inherits it."""
    monkeypatch.setenv("PYTHONUTF8", "0")
    begun = []
    monkeypatch.setattr(command.os, "execv", lambda *given: begun.append((os.environ["PYTHONUTF8"], *given)))
    monkeypatch.setattr(command.locale, "getpreferredencoding", lambda _: encoding)
    flags = types.SimpleNamespace(utf8_mode=mode, ignore_environment=0)
    monkeypatch.setattr(command, "sys", types.SimpleNamespace(flags=flags, executable="py", orig_argv=["py", "-m", "lib", "x"]))
    command.speak_utf8()
    assert begun == ([("1", "py", ["py", "-m", "lib", "x"])] if anew else [])


def test_an_interrupted_command_ends_in_one_line(home):
    """Ctrl-C in the middle of a training: a line, and the exit status that shells know."""
    config = json.dumps({"dataset": "digits", "arch": "small", "size": 28, "channels": 1, "epochs": 500})
    process = subprocess.Popen(
        [sys.executable, "-m", "lib", "train", "--config", config, "--record", str(home / "record.json")],
        cwd=paths.PROJECT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"STUDY_HOME": str(home), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells have what is in the background ignore it
    )
    with process:
        for line in process.stderr:
            if "epoch 1/500" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("interrupted; what was finished is kept")


def test_a_run_that_is_told_to_end_puts_away_what_is_half_made(home, monkeypatch):
    """By SIGTERM, as schedulers do it; afterwards the signal is what it was."""
    before, put_away = signal.getsignal(signal.SIGTERM), []

    def half_made(_given: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            put_away.append(True)
        return 0

    monkeypatch.setattr("lib.commands.run.main", half_made)
    with pytest.raises(SystemExit) as ended:
        command.main(["run", "01-attention-shift"])
    assert ended.value.code == 143 and put_away == [True] and signal.getsignal(signal.SIGTERM) is before


class Started:
    """Snakemake as `study` starts it: it is told to stop while it runs, and takes its time or not."""

    def __init__(self, command, env, slow):
        self.command, self.env, self.slow, self.ended = command, env, slow, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self, timeout=None):
        if timeout is None:
            raise KeyboardInterrupt
        if self.slow:
            raise subprocess.TimeoutExpired("snakemake", timeout)
        self.ended.append("by itself")

    def terminate(self):
        self.ended.append("told to")


@pytest.mark.parametrize(("slow", "ended"), [(False, "by itself"), (True, "told to")])
@pytest.mark.parametrize("writable", [True, False])
def test_a_study_that_is_interrupted_leaves_nothing_running(home, monkeypatch, slow, ended, writable):
    """And Snakemake keeps its notes where they can be written, in a read-only checkout below STUDY_HOME."""
    started = []

    def popen(command, env):
        started.append(Started(command, env, slow))
        return started[0]

    @contextlib.contextmanager
    def serving(command, environment, wanted):
        try:
            yield {forks.ADDRESS: "a socket"}
        finally:
            started[0].ended.append("then its loaded process")

    monkeypatch.setattr(study.forks, "serving", serving)
    monkeypatch.setattr(study.subprocess, "Popen", popen)
    monkeypatch.setattr(study.os, "access", lambda path, mode: writable)
    with pytest.raises(KeyboardInterrupt):
        study.main(["--profile", "smoke"])
    (process,) = started
    assert process.ended == [ended, "then its loaded process"] and process.env[forks.ADDRESS] == "a socket"
    at = process.command[process.command.index("--directory") + 1]
    assert at == str(paths.PROJECT if writable else home)
    assert process.env["PYTHONPATH"].split(os.pathsep)[0] == str(paths.PROJECT)


JOB = """
import signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("told"))
print("begun", flush=True)
while not heard or {stubborn}:
    time.sleep(0.05)
time.sleep(1.2)  # it puts something away
print(*heard, flush=True)
"""
WAITS = """
import signal, subprocess, sys
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("told"))
subprocess.Popen([sys.executable, "-c", sys.argv[1]]).wait()
print("Snakemake", *heard, flush=True)
"""


def has_ended(process: psutil.Process) -> bool:
    """Within ten seconds, or nobody has asked yet what became of it."""
    try:
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return True
    return False


@pytest.mark.parametrize(("stubborn", "said"), [(False, ["told", "Snakemake told"]), (True, [])])
def test_a_study_that_is_told_to_end_ends_its_jobs(monkeypatch, stubborn, said):
    """Snakemake waits for its jobs, which nobody else tells: each is told once, and killed where it does not listen."""
    monkeypatch.setattr(study, "GRACE", 1 if stubborn else 20)
    command = [sys.executable, "-c", WAITS, JOB.format(stubborn=stubborn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        (job,) = psutil.Process(process.pid).children()
        study.end(process)
        assert process.stdout.read().splitlines() == said and has_ended(job)
    assert process.returncode == (-signal.SIGKILL if stubborn else 0)


def test_a_study_hears_that_it_should_end(home, monkeypatch, capsys):
    """SIGTERM while Snakemake runs: it is ended, and the exit status is the one that shells know."""
    ended = []
    started = Started(None, None, False)
    monkeypatch.setattr(started, "wait", lambda timeout=None: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(30))
    monkeypatch.setattr(study.forks, "serving", lambda *_given, **_options: contextlib.nullcontext({}))
    monkeypatch.setattr(study.subprocess, "Popen", lambda command, env: started)
    monkeypatch.setattr(study, "end", ended.append)
    with pytest.raises(SystemExit) as told:
        command.main(["study", "--profile", "smoke"])
    assert told.value.code == 143 and ended == [started]
    assert capsys.readouterr().err.splitlines()[-1].startswith("told to end; what was finished is kept")


def test_a_graph_that_cannot_be_built_is_said(home, monkeypatch, capsys):
    """Snakemake, told to be quiet, says nothing of it."""
    monkeypatch.setattr(study.forks, "serving", lambda *_given, **_options: contextlib.nullcontext({}))
    monkeypatch.setenv("STUDY_DATA", str(home / "nowhere"))
    assert study.main(["--profile", "datasets"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: 02-at-cnn, profile datasets: styles 'folder:photos': found 0 images below")


def test_who_waits_for_another_command_says_so(home, capsys):
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with filelock.FileLock(home / "study.lock"):
            held.set()
            free.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    threading.Timer(0.3, free.set).start()
    with headless.alone(home / "study"):
        assert free.is_set()
    other.join()
    assert f"another command works on {home}: waiting for its end" in capsys.readouterr().err
    with headless.alone(home / "study"):
        assert capsys.readouterr().err == ""


def test_an_index_is_of_a_profile_that_there_is(home, capsys):
    assert report.main(["--index", "--profile", "../x"]) == 1
    assert "no profile '../x' has an index; there are smoke" in capsys.readouterr().err and not list(home.iterdir())


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_a_python_other_than_the_environments_is_said(tmp_path):
    """Whoever names one would otherwise run another."""
    shutil.copy(paths.PROJECT / "Makefile", tmp_path)
    own, other = tmp_path / ".venv/bin/python", tmp_path / "python9"
    for file, version in ((own, "3.11"), (other, "3.9")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\necho {version}\n", encoding="utf-8")
        file.chmod(0o755)

    def named(python: Path) -> subprocess.CompletedProcess:
        command = ["make", "named", f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)

    assert named(own).returncode == 0
    said = named(other)
    assert said.returncode != 0 and f".venv has Python 3.11, not that of {other}; remove it" in said.stdout


class Ended:
    def wait(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("given", "loads"), [([], True), (["--gpus", "1"], False), (["--", "--executor", "slurm"], False), (["--", "-n"], False)]
)
def test_a_process_is_loaded_for_jobs_that_begin_here(home, monkeypatch, given, loads):
    asked = []

    @contextlib.contextmanager
    def serving(command, environment, wanted):
        asked.append(wanted)
        yield {}

    monkeypatch.setattr(study.forks, "serving", serving)
    monkeypatch.setattr(study.subprocess, "Popen", lambda *_given, **_options: contextlib.nullcontext(Ended()))
    study.main(["--profile", "smoke", "--gpus", "0", *given])
    assert asked == [loads]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.ENOENT])
def test_a_folder_that_may_not_be_written_is_named_with_the_remedy(home, monkeypatch, capsys, number):
    def refused(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.filelock, "FileLock", refused)
    assert study.main(["--profile", "smoke"]) == 1
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and f"{home}/data/study.lock cannot be written" in said and "set STUDY_HOME to a folder" in said
    )
    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    with pytest.raises(OSError, match=f"a.json cannot be written.*{os.strerror(number)}.*set STUDY_HOME"):
        files.write_json(home / "a.json", {})


def test_an_error_inside_a_lock_is_its_own(tmp_path):
    with pytest.raises(PermissionError, match="of the work itself"), files.locked(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "of the work itself")
