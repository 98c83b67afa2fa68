"""A study as small as it can be: do maps of two seeds of one network agree? The README's worked example of a study.

| equation | symbol | function |
|---|---|---|
| Spearman 1904 | rho | `measures.spearman` |
"""
