"""`python -m lib COMMAND …`: what people type. `python -m lib COMMAND --help` says what each takes."""

import importlib
import locale
import os
import signal
import sys

from lib.system import forks, paths
from lib.system.progress import say

COMMANDS = {
    "study": "run every study of a profile and render its reports",
    "run": "execute one notebook with a profile's parameters",
    "explain": "what a network sees in your own pictures, before and after an attack",
    "lab": "explore in JupyterLab",
    "report": "render the report of a finished run, or the index",
    "readme": "bring the table of what holds in README.md up to date",
    "measure": "measure trained networks of a run",
    "reproduce": "compute runs anew and compare their claims with those in figures",
    "rehearse": "run a `paper` profile on miniatures of its data sets",
    "train": "train networks into the cache",
}
INTERRUPTED, TERMINATED = 130, 143  # the exit statuses that shells know
OF_STUDIES = ("kernel", "serve")  # what no person types
FORKED = ("train", "measure", "run", "report", "kernel")  # jobs of a study
ENDING = ("study", "run", "reproduce", "rehearse")  # what to end by SIGTERM puts away what is half made, and ends what it began
GO_ON = ("study", "run", "measure", "train")  # what keeps what was finished


def speak_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale is another one: names, files, Snakemake, its jobs and kernels."""
    known = locale.getpreferredencoding(False).lower() in ("utf-8", "utf8")
    if not (known or sys.flags.utf8_mode or sys.flags.ignore_environment):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def _kept(command: str) -> str:
    return "; what was finished is kept, and the same command goes on from there" if command in GO_ON else ""


def main(given: list[str]) -> int:
    if given[:1] in ([], ["-h"], ["--help"]):
        print("usage: python -m lib COMMAND …", *(f"  {name:10}{does}" for name, does in COMMANDS.items()), sep="\n")
        return 0 if given else 2
    if given[0] not in (*COMMANDS, *OF_STUDIES):
        print(f"unknown command {given[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    paths.settle()
    told = given[0] in ENDING
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED)) if told else None
    try:
        code = forks.ask(given) if given[0] in FORKED else None
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code is not None:
            return code
        return importlib.import_module(f"lib.commands.{given[0]}").main(given[1:])
    except KeyboardInterrupt:
        say("interrupted" + _kept(given[0]))
        return INTERRUPTED
    except SystemExit as ended:
        if ended.code == TERMINATED:
            say("told to end" + _kept(given[0]))
        raise
    finally:
        if told:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    speak_utf8()
    sys.exit(main(sys.argv[1:]))
