"""Where the messages of rooms get their positions, and who hears of them: the contract, and one broker.

Everything that a broker of your own is written with has its name here.
"""

from __future__ import annotations

from catzilla._core.publication import Kind, Position, Publication
from catzilla.brokers.base import Broker, BrokerClosed, Replay, Retention
from catzilla.brokers.memory import MemoryBroker

__all__ = ["Broker", "BrokerClosed", "Kind", "MemoryBroker", "Position", "Publication", "Replay", "Retention"]
