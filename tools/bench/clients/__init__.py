"""The measuring clients. Each runs in a process of its own (`python -m tools.bench.clients NAME ARGUMENTS`), so that it
and the server share no interpreter lock; it prints its result as one line of JSON. `ask.py` is the caller's side.
"""
