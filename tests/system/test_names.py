"""Tables of names: found, refused with what comes close, extended."""

from typing import NamedTuple

import pytest

from lib.system.names import Table, close


class Row(NamedTuple):
    name: str
    label: str


@pytest.fixture
def table():
    return Table("fruit", (Row("apple", "Apple"), Row("apricot", "Apricot")))


def test_a_name_is_found_or_refused_with_what_comes_close(table):
    assert table.find("apple").label == "Apple" and list(table) == ["apple", "apricot"] and "pear" not in table
    with pytest.raises(ValueError, match=r"unknown fruit 'aple'; did you mean apple.*There are apple, apricot"):
        table.find("aple")
    assert close("aprikot", table)[0] == "apricot" and close("zzz", table) == []


def test_menus_show_labels(table):
    assert table.labels("apricot") == {"apricot": "Apricot"} and table.menu("apple") == {"Apple": "apple"}
    with pytest.raises(ValueError, match="called alike"):
        table.plus(Row("other", "Apple")).menu("apple", "other")


def test_a_row_is_added_once(table):
    table.add(Row("pear", "Pear"))
    assert table.find("pear").label == "Pear" and [r.name for r in table.rows] == ["apple", "apricot", "pear"]
    with pytest.raises(ValueError, match="there is fruit 'pear' already"):
        table.add(Row("pear", "Another"))
    assert "plum" in table.plus(Row("plum", "Plum")) and "plum" not in table
