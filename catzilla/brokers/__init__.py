"""Where the messages of rooms get their positions, and who hears of them: the contract, and one broker."""

from __future__ import annotations

from catzilla.brokers.base import Broker, BrokerClosed, Replay, Retention
from catzilla.brokers.memory import MemoryBroker

__all__ = ["Broker", "BrokerClosed", "MemoryBroker", "Replay", "Retention"]
