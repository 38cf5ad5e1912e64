"""Many rows, each with values of its own, in one statement."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gpubroker.common import rows
from sessions_app.models import Rental
from tests.sessions_app import many

pytestmark = pytest.mark.django_db
MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
COLUMNS = ["ssh_endpoints", "price_actual", "verify_from", "status_message"]


def test_each_row_gets_its_own_values_and_nothing_else_is_written() -> None:
    first, second, third = (many.rental(None) for _ in range(3))
    first.ssh_endpoints, first.price_actual = [{"host": "h", "port": 22, "quote": 'it\'s "%s" ü'}], Decimal("0.123456")
    first.verify_from, first.status_message = MOMENT, "100 % of it"
    second.ssh_endpoints, second.price_actual, second.verify_from = [], None, None
    first.last_error = second.last_error = "never written"
    with CaptureQueriesContext(
        connection,
    ) as asked:
        rows.write_each([first, second], COLUMNS)
    assert len(asked) == 1
    kept = {rental.id: rental for rental in Rental.objects.all()}
    assert [getattr(kept[first.id], name) for name in COLUMNS] == [getattr(first, name) for name in COLUMNS]
    assert [getattr(kept[second.id], name) for name in COLUMNS] == [getattr(second, name) for name in COLUMNS]
    assert [kept[each.id].last_error for each in (first, second)] == ["", ""]
    assert [getattr(kept[third.id], name) for name in COLUMNS] == [getattr(third, name) for name in COLUMNS]


def test_nothing_to_write_asks_nothing() -> None:
    with CaptureQueriesContext(connection) as asked:
        rows.write_each([], COLUMNS)
    assert len(asked) == 0


def test_the_same_as_bulk_update_writes() -> None:
    one, other = many.rental(None), many.rental(None)
    for rental in (one, other):
        rental.ssh_endpoints, rental.price_actual = [{"port": 1, "deep": {"a": [None, True]}}], Decimal("1.5")
        rental.verify_from = MOMENT
    rows.write_each([one], COLUMNS)
    Rental.objects.bulk_update([other], COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM sessions_app_rental WHERE id IN (%s, %s)",  # noqa: S608
            [Rental._meta.pk.get_db_prep_value(each.id, connection) for each in (one, other)],
        )
        found = cursor.fetchall()
    assert len(found) == 2
    assert found[0] == found[1]
