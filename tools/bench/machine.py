"""What a figure depends on: the machine, its load, the interpreter, the versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tools.bench.peers import Peer


def describe(peers: Sequence[Peer]) -> dict[str, Any]:
    """The machine now, and each peer's configuration and versions."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": commit(),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "peers": {
            peer.name: {"about": peer.about, "versions": peer.versions(), "command": peer.argv(0)[1:]} for peer in peers
        },
    }


def line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    load = machine["load"][0]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB, {machine['kernel']}, "
        f"Python {machine['python']}, "
        f"commit {machine['commit']}, load {load:g}, {machine['date']}"
    )


def commit() -> str:
    """What is measured as catzilla: the commit of the source tree, "unknown" outside of one."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return run.stdout.strip() or "unknown"


def cpu_model() -> str:
    """The processor's name as the kernel knows it; its architecture where it has none."""
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [text.partition(":")[2].strip() for text in facts.splitlines() if text.startswith("model name")]
    return names[0] if names and names[0] else platform.machine()
