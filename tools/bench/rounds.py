"""Runs a scenario: peer after peer in each round, so that a slow minute of the machine meets all of them alike."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tools.bench.clients.ask import ClientFailed
from tools.bench.peers import Peer
from tools.bench.scenario import Amount, Sample, Scenario
from tools.bench.server import ServerFailed

FAILURES = (ServerFailed, ClientFailed, ValueError, OSError, subprocess.SubprocessError)
"""What may go wrong with one peer without ending the run. Anything else is a mistake of the bench."""


@dataclass
class Measurements:
    """All samples of one peer in one scenario. A failed round leaves None, so that rounds of peers stay paired."""

    peer: Peer
    samples: list[Sample | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped: str | None = None


def run(
    scenario: Scenario, peers: Sequence[Peer], amount: Amount, progress: Callable[[str], None]
) -> list[Measurements]:
    """Measures every peer once a round; peers that cannot take part are in the result with their reason."""
    results = [Measurements(peer, skipped=peer.skip_reason(scenario.name)) for peer in peers]
    for number in range(1, amount.rounds + 1):
        for result in results:
            if result.skipped is None:
                progress(f"{scenario.name}  round {number} of {amount.rounds}  {result.peer.name}")
                _measure_once(scenario, amount, result)
    return results


def _measure_once(scenario: Scenario, amount: Amount, result: Measurements) -> None:
    try:
        result.samples.append(scenario.measure(result.peer, amount))
    except FAILURES as error:
        result.samples.append(None)
        result.errors.append(str(error) or repr(error))
