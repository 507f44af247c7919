"""The benchmark: systems beside each other on this machine's loopback, one report, never a failed build.

`python -m bench` (or `make bench`) measures; `python -m bench.cost` (or `make cost`) counts calls. Nothing here is part
of the installed package; processes are started by `tests.support.child`.
"""
