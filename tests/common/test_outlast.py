"""What is told only once is written down although the database is away for a moment; without it nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DataError, InterfaceError, OperationalError, connection, transaction

from gpubroker.common.gate import DatabaseGate
from gpubroker.common.outlast import patiently
from providers.base import GateHeld


def failing(*errors: type[Exception]) -> Callable[[], str]:
    """A write that fails with each of them in turn, and then works."""
    left = iter(errors)

    def write() -> str:
        for error in left:
            raise error
        return "written"

    return write


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_the_database() -> None:
    assert patiently(failing(OperationalError, InterfaceError)) == "written"


@pytest.mark.django_db(transaction=True)
def test_it_does_not_wait_for_ever() -> None:
    with pytest.raises(OperationalError):
        patiently(failing(OperationalError), seconds=0)


@pytest.mark.django_db(transaction=True)
def test_what_the_database_refuses_is_no_outage() -> None:
    with pytest.raises(DataError):
        patiently(failing(DataError))


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_only_its_beginner_can_repeat() -> None:
    with pytest.raises(OperationalError), transaction.atomic():
        patiently(failing(OperationalError))


@pytest.mark.django_db
def test_a_gate_that_cannot_be_asked_is_closed() -> None:
    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("could not connect")

    with connection.execute_wrapper(away), pytest.raises(GateHeld) as held:
        DatabaseGate().acquire("vastai:create", 1.0)
    assert (held.value.by, held.value.reason) == ("database", "held back: the database does not answer")
