"""What the README says of the results: the first page of the index as a table between two markers."""

from lib.reports import ledger
from lib.reports.summary import summary_markdown
from lib.system import files, paths

COMMITTED = ("laptop", "datasets")  # whose results are part of the project
BEGIN, END = "<!-- what holds: made by `make readme` -->", "<!-- what holds: end -->"


def block() -> str:
    """What stands between the markers, from the committed claims."""
    return f"\n\n{summary_markdown([p for p in COMMITTED if ledger.finished(p)])}\n\n"


def current(text: str) -> str:
    """The README's text with what the committed claims say. Raises ValueError where it lacks the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has no place for the table: put the lines {BEGIN} and {END} where it belongs")
    return f"{before}{begin}{block()}{end}{after}"


def write() -> bool:
    """Bring README.md up to date; whether it changed."""
    path = paths.PROJECT / "README.md"
    text = path.read_text(encoding="utf-8")
    now = current(text)
    if now != text:
        files.write_bytes(path, now.encode())
    return now != text
