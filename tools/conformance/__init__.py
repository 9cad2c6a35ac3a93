"""Runs the Autobahn TestSuite against catzilla's WebSockets: `python -m tools.conformance --help`."""
