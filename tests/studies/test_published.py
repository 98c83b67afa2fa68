"""Each published number says where it stands: in a table, in a figure, in the authors' code or data."""

import re

import pandas as pd
import pytest

from lib.system import paths

TABLES = sorted(p.name for p in paths.published().glob("*.csv"))
PLACE = re.compile(r"table( \d+|: \w| of the poster: \w)|figure( \d+)?: \w|authors' (code|data): \w")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_says_where_its_number_stands(name):
    found = pd.read_csv(paths.published() / name, keep_default_na=False)
    unknown = found[[PLACE.match(where) is None for where in found["where"]]]
    assert unknown.empty, unknown.to_string()


def test_what_was_read_by_eye_says_so():
    """Of a figure: but for what it prints in digits."""
    found = pd.concat(pd.read_csv(paths.published() / name, keep_default_na=False) for name in TABLES)
    figures = found[found["where"].str.startswith("figure")]
    assert (figures["where"].str.contains("by eye|printed")).all() and len(figures) == 5 * 4 + 4 + 5 * 5
    assert not found["where"].str.contains("by eye")[~found["where"].str.startswith("figure")].any()


def test_two_snakes_are_alike():
    """What the graphs' pairs are called: the similar ones share more top neurons than any of the others."""
    found = pd.read_csv(paths.published() / "attack_pathways.csv")
    shared = found.groupby("kind").both.agg(["min", "max"])
    assert shared["max"]["dissimilar"] < shared["min"]["similar"]
    assert set(found.pair[found.kind == "similar"]) == {"brown > black bear", "diamondback > vine snake", "vine > green snake"}
