"""A contract that cannot fail is worth nothing: each check fails for a broker with the fault that it is there to find.

And none fails for a sound broker that delivers from a thread of its own, as one that reads from a server does.
"""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from catzilla import brokers
from catzilla.brokers import Broker, BrokerClosed, Kind, MemoryBroker, Position, Publication, Replay, Retention
from catzilla.testing import BrokerContract
from tests.brokers.faulty_brokers import FAULTS, ThreadedBroker, all_checks


class TestThreadedBroker(BrokerContract):
    short_age = 0.05

    def make_broker(self) -> Broker:
        return ThreadedBroker()


def fails(broker: type[Broker], check: str) -> BaseException | None:
    """Run one check on a broker: what it raised."""

    class Contract(BrokerContract):
        patience = 0.4
        short_age = 0.05

        def make_broker(self) -> Broker:
            return broker()

    contract = Contract()
    contract.setup_method()
    try:
        getattr(contract, check)()
    except Exception as error:
        return error
    finally:
        super(type(contract.broker), contract.broker).close()
    return None


@pytest.mark.parametrize(
    ("broker", "check", "error"),
    [
        pytest.param(broker, check, error, id=f"{broker.__name__}-{check[5:]}")
        for broker, checks, error in FAULTS
        for check in checks
    ],
)
def test_a_fault_is_found(broker, check, error):
    raised = fails(broker, check)
    assert raised is not None, f"{check} takes {broker.__name__} for sound"
    assert type(raised) is error


def test_every_check_can_fail():
    shown = {check for _, checks, _ in FAULTS for check in checks}
    assert sorted(shown) == sorted(all_checks())


def named_in(hint: object) -> set[object]:
    """The classes of catzilla in a type hint, however deep."""
    if isinstance(hint, list):
        return set().union(*map(named_in, hint))
    own = {hint} if getattr(hint, "__module__", "").startswith("catzilla") else set()
    return own.union(*map(named_in, get_args(hint)))


def test_a_broker_is_written_from_public_names():
    public = {getattr(brokers, name) for name in brokers.__all__}
    hinted = [getattr(Broker, name) for name in Broker.__abstractmethods__] + [Replay, Publication.__init__]
    needed = named_in([hint for each in hinted for hint in get_type_hints(each).values()])
    assert {Kind, Position, Publication, Replay, Retention} <= needed
    assert needed | {Broker, BrokerClosed, MemoryBroker} <= public


def test_checks_that_need_a_short_age_are_skipped_and_say_so_without_one(pytester):
    pytester.makepyfile(
        """
        from catzilla.brokers import MemoryBroker
        from catzilla.testing import BrokerContract

        class TestIt(BrokerContract):
            def make_broker(self):
                return MemoryBroker()
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(passed=len(all_checks()) - 3, skipped=3)
    result.stdout.fnmatch_lines(["*TestIt.short_age is not set*"])


def test_a_suite_without_a_broker_says_what_is_missing(pytester):
    pytester.makepyfile(
        """
        from catzilla.testing import BrokerContract

        class TestIt(BrokerContract):
            pass
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider", "-x")
    result.stdout.fnmatch_lines(["*TestIt must define make_broker()*"])
