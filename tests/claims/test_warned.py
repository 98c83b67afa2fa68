import threading

import pandas as pd

from lib.claims import warned


def test_what_is_told_is_collected_once_and_said(capsys):
    with warned.collected() as found:
        warned.tell("net", "PGD", 0.1, ["zero", "zero"])
        warned.tell("net", "PGD", 0.1, ("zero",))
        warned.tell("net", "PGD", 0.2, ["zero"])
        warned.tell("net", "Square", 0.1, [])
    warned.tell("net", "PGD", 0.3, ["nobody listens"])
    assert found == [("net", "PGD", 0.1, "zero"), ("net", "PGD", 0.2, "zero")]
    assert capsys.readouterr().err.splitlines() == [
        "  net, PGD, eps 0.1: zero",
        "  net, PGD, eps 0.2: zero",
        "  net, PGD, eps 0.3: nobody listens",
    ]


def test_blocks_and_threads_have_their_own():
    def work(name, into):
        with warned.collected() as found:
            warned.tell(name, "PGD", 0, ["w"])
        into[name] = found

    into = {}
    with warned.collected() as outer:
        threads = [threading.Thread(target=work, args=(n, into)) for n in "ab"]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        work("c", into)
    assert outer == [] and {n: [w.network for w in f] for n, f in into.items()} == {"a": ["a"], "b": ["b"], "c": ["c"]}


def test_tables_are_sorted_unique_and_typed(tmp_path):
    rows = [warned.Warned("b", "PGD", 0.1, "x"), warned.Warned("a", "PGD", 0.2, "x"), warned.Warned("b", "PGD", 0.1, "x")]
    found = warned.joined([warned.table(rows), warned.table(rows[:1]), warned.table([])])
    assert found.network.to_list() == ["a", "b"] and list(found) == ["network", "attack", "eps", "warning"]
    none = warned.table([])
    none.to_parquet(tmp_path / "none.parquet")
    assert pd.read_parquet(tmp_path / "none.parquet").dtypes.to_list() == found.dtypes.to_list()
