"""Raises the bound on open files: ten thousand connections need as many descriptors on both sides."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Lifts this process and those it will start to the hard limit, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
