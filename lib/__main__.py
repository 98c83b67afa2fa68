"""`python -m lib COMMAND …`: what people type. `python -m lib COMMAND --help` says what each takes."""

import importlib
import sys

COMMANDS = {
    "study": "run every study of a profile and render its reports",
    "run": "execute one notebook with a profile's parameters",
    "report": "render the report of a finished run, or the index",
    "measure": "measure trained networks of a run",
    "train": "train networks into the cache",
}


def main(given: list[str]) -> int:
    if given[:1] in ([], ["-h"], ["--help"]):
        print("usage: python -m lib COMMAND …", *(f"  {name:8}{does}" for name, does in COMMANDS.items()), sep="\n")
        return 0 if given else 2
    if given[0] not in COMMANDS:
        print(f"unknown command {given[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"lib.commands.{given[0]}").main(given[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
