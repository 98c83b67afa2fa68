"""Tables of things that people choose by name: looked up in one way, refused in one way, shown in menus in one way."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    """What a row has at least: `name` is what is typed and kept in tables, `label` is what people read."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


Row = TypeVar("Row", bound=Named)


def close(name: str, known: Iterable[str], n: int = 4) -> list[str]:
    """The known names that are like a name, the closest first."""
    return difflib.get_close_matches(name, list(known), n=n, cutoff=0.4)


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The refusal of a name, with the close matches and all names."""
    known = list(known)
    found = close(name, known)
    meant = f"did you mean {' or '.join(found)}? " if found else ""
    return ValueError(f"unknown {what} {name!r}; {meant}There are {', '.join(known)}")


class Table(Generic[Row]):
    """Rows by name, in order; `what` is what a row is called where a name is refused."""

    def __init__(self, what: str, rows: Iterable[Row]) -> None:
        self.what, self.rows = what, tuple(rows)
        self._by_name = {row.name: row for row in self.rows}
        if len(self._by_name) < len(self.rows):
            raise ValueError(f"two rows of the table of {what}s have one name: {', '.join(r.name for r in self.rows)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def find(self, name: str) -> Row:
        """The row of a name. Raises ValueError for an unknown one, with the close matches and all names."""
        if name in self._by_name:
            return self._by_name[name]
        raise unknown(self.what, name, self._by_name)

    def labels(self, *names: str) -> dict[str, str]:
        """Some rows' labels by name, in the order given. Raises ValueError as `find`."""
        return {name: self.find(name).label for name in names}

    def menu(self, *names: str) -> dict[str, str]:
        """Some rows' names by label: what a menu takes. Raises ValueError as `find`, and for two of one label."""
        found = {label: name for name, label in self.labels(*names).items()}
        if len(found) < len(names):
            raise ValueError(f"two of {', '.join(names)} are called alike, so that a menu could not tell them apart")
        return found

    def add(self, row: Row) -> None:
        """A further row below the others. Raises ValueError for a name that is taken."""
        if row.name in self._by_name:
            raise ValueError(f"there is {self.what} {row.name!r} already; call yours something else")
        self.rows = (*self.rows, row)
        self._by_name[row.name] = row

    def plus(self, *rows: Row) -> "Table[Row]":
        """This table and further rows below it."""
        return Table(self.what, (*self.rows, *rows))
