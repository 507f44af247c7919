"""Load makers, each a program of its own on plain sockets: `python -m bench.loads.NAME …`.

Each prints JSON events, one a line; the last is `{"event": "result", …}`. Times are in seconds, sizes in bytes.
"""
