"""What the README says of the results: the first page of the index as a table between two markers."""

from lib.reports import ledger
from lib.reports.summary import summary_markdown
from lib.system import files, paths

COMMITTED = ("laptop", "datasets")  # whose results are part of the project
BEGIN, END = "<!-- what holds: made by `make readme` -->", "<!-- what holds: end -->"


def block() -> str:
    """What stands between the markers, from the committed claims. Raises ValueError where there are none."""
    there = [p for p in COMMITTED if ledger.finished(p)]
    if not there:
        raise ValueError(f"no finished run of {' or '.join(COMMITTED)} below {paths.home()}; run `make report` first")
    return f"\n\n{summary_markdown(there)}\n\n"


def current(text: str) -> str:
    """The README's text with what the committed claims say. Raises ValueError where it lacks the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has no place for the table: put the lines {BEGIN} and {END} where it belongs")
    return f"{before}{begin}{block()}{end}{after}"


def write() -> bool:
    """Bring README.md up to date; whether it changed. Raises ValueError where the results are those of another home."""
    if paths.home() != paths.PROJECT:
        raise ValueError(f"README.md tells of the project's own results; STUDY_HOME is {paths.home()}, run this without it")
    path = paths.PROJECT / "README.md"
    text = path.read_text(encoding="utf-8")
    now = current(text)
    if now != text:
        files.write_bytes(path, now.encode())
    return now != text
