"""Measures catzilla beside its peers: `python -m tools.bench --help`."""
