"""Forks of a loaded process are what a process of their own would be: arguments, folder, environment, streams, exit, end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lib import __main__ as command
from lib.commands import serve
from lib.system import forks, paths
from lib.training.cache import trained
from lib.training.config import TrainConfig

# a loaded process, and a command that asks it; what they do stands in `given`
SERVE = """if True:
    import os, signal, sys, time
    from pathlib import Path
    from lib.system import forks

    def work(given):
        match given:
            case ["tell"]:
                mine, theirs = os.environ.get("MINE"), os.environ.get("THEIRS")
                print(sys.argv[1:], Path.cwd(), mine, theirs, sys.stdin.read(), os.getppid())
                print("aside", file=sys.stderr)
            case ["wait", file]:
                Path(file).write_text(str(os.getpid()))
                time.sleep(60)
            case ["refuse", file]:
                Path(file).write_text(str(os.getpid()))
                try:
                    time.sleep(60)
                except KeyboardInterrupt:
                    return 11
            case ["exit"]:
                sys.exit(7)
            case ["raise"]:
                raise ValueError("from within")
            case ["killed"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["children"]:
                return os.waitstatus_to_exitcode(os.system("exit 5"))
        return 3

    sources = Path(sys.argv[1])
    forks.serve(int(sys.argv[2]), work, sources, forks.state(sources))
"""
ASK = "import sys; from lib.system import forks; code = forks.ask(sys.argv[1:]); sys.exit(99 if code is None else code)"
ENVIRONMENT = os.environ | forks.ONE_THREAD | {"PYTHONPATH": str(paths.PROJECT)}


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("")
    return tmp_path / "lib"


@pytest.fixture
def told(sources):
    with forks.serving([sys.executable, "-c", SERVE, str(sources)], ENVIRONMENT | {"THEIRS": "1"}) as told:
        yield told


def start(told, *given, folder=paths.PROJECT, **settings):
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = ENVIRONMENT | told | settings
    return subprocess.Popen([sys.executable, "-c", ASK, *given], cwd=folder, env=environment, encoding="utf-8", **streams)


def asked(told, *given, **options):
    process = start(told, *given, **options)
    said, errors = process.communicate("from outside")
    return process.returncode, said, errors


def gone(pid):
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_fork_has_the_callers_arguments_folder_environment_and_streams(told, tmp_path):
    code, said, errors = asked(told, "tell", folder=tmp_path, MINE="here")
    assert code == 3 and errors == "aside\n"
    *first, parent = said.split()
    assert first == ["['tell']", str(tmp_path), "here", "None", "from", "outside"]
    again = asked(told, "tell", folder=tmp_path)[1].split()
    assert again[2] == "None" and again[-1] == parent  # one loaded process, and nothing of the fork before


@pytest.mark.parametrize(
    ("given", "code", "error"),
    [("exit", 7, ""), ("raise", 1, "ValueError: from within"), ("killed", 137, ""), ("children", 5, "")],
)
def test_it_ends_as_it_would_by_itself(told, given, code, error):
    found, _, errors = asked(told, given)
    assert found == code and error in errors


@pytest.mark.parametrize(
    ("given", "number", "code"),
    [
        ("wait", signal.SIGKILL, -signal.SIGKILL),
        ("wait", signal.SIGTERM, -signal.SIGTERM),
        ("wait", signal.SIGINT, 130),
        ("refuse", signal.SIGINT, 11),  # as a kernel that is between two cells
    ],
)
def test_it_ends_with_who_asked(told, tmp_path, given, number, code):
    process = start(told, given, str(tmp_path / "pid"))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    process.send_signal(number)
    errors = process.communicate()[1]
    assert process.returncode == code and not errors
    assert gone(int((tmp_path / "pid").read_text()))
    assert asked(told, "tell")[0] == 3  # the loaded process goes on


def test_it_ends_with_who_began_the_one_who_asked(told, tmp_path):
    """A kernel ends when its notebook's runner is killed."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASK!r}, 'wait', {str(tmp_path / 'pid')!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT | told)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_sources_that_were_changed_are_loaded_anew(told, sources):
    assert asked(told, "tell")[0] == 3
    (sources / "a.py").write_text("changed = True")
    assert asked(told, "tell") == (99, "", "")


def test_who_may_have_more_threads_loads_by_himself(told):
    assert asked(told, "tell", OMP_NUM_THREADS="2")[0] == 99


def test_without_a_loaded_process_everyone_loads_by_himself(told, sources):
    assert asked({}, "tell")[0] == 99
    with forks.serving([sys.executable, "-c", "raise SystemExit"], ENVIRONMENT) as broken:
        assert asked(broken, "tell")[0] == 99
    assert asked(broken, "tell")[0] == 99  # its socket is gone
    with forks.serving([sys.executable, "-c", SERVE, str(sources)], ENVIRONMENT, wanted=False) as nothing:
        assert nothing == {}


def test_the_loaded_process_ends_with_who_began_it(sources, tmp_path):
    code = f"""if True:
        import os, subprocess, sys, time
        from pathlib import Path
        from lib.system import forks
        with forks.serving([sys.executable, "-c", {SERVE!r}, {str(sources)!r}], os.environ) as told:
            asked = subprocess.run([sys.executable, "-c", {ASK!r}, "tell"], env=os.environ | told, stdout=subprocess.PIPE)
            Path({str(tmp_path / "pid")!r}).write_bytes(asked.stdout.split()[-1])
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def test_commands_of_a_study_ask_for_a_fork(monkeypatch):
    given = []
    monkeypatch.setattr(command.forks, "ask", lambda what: given.append(what) or 5)
    assert command.main(["train", "--config", "[]"]) == 5 and given == [["train", "--config", "[]"]]
    assert command.main(["--help"]) == 0 and len(given) == 1


def test_a_command_in_a_fork_of_the_study_is_the_command(home, monkeypatch):
    """The process that `python -m lib study` keeps trains what it is asked: to the byte what another process trains."""
    config = {"dataset": "digits", "arch": "small", "size": 8, "channels": 1, "epochs": 1, "limit": 64, "batch_size": 32}
    given = [sys.executable, "-m", "lib", "train", "--config", json.dumps(config), "--record", str(home / "record.json")]
    before = os.times().children_user
    with forks.serving([sys.executable, "-m", "lib", "serve"], ENVIRONMENT) as told:
        environment = ENVIRONMENT | told | {"STUDY_HOME": str(home)}
        done = subprocess.run(given, cwd=paths.PROJECT, env=environment, stderr=subprocess.PIPE, encoding="utf-8")
        assert done.returncode == 0 and "training digits/small seed 0" in done.stderr
        assert os.times().children_user - before < 1  # who asks imports nothing
    network = trained(TrainConfig(**config))
    monkeypatch.setenv("STUDY_HOME", str(home / "alone"))
    alone = trained(TrainConfig(**config))
    assert network.path.read_bytes() == alone.path.read_bytes() and network.path != alone.path


def test_nothing_is_loaded_but_what_jobs_need():
    assert {f"lib.commands.{c}" for c in command.FORKED} == {m for m in serve.LOADED if m.startswith("lib.")}
