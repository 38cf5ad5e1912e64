"""Rows that are added to: an insert, or, where a row has the same key, its amounts plus ours. Django's own upsert can
only replace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models
from django.db.models import Q, QuerySet
from django.db.models.expressions import RawSQL

SUMS = ("microseconds", "nanos", "rest")
#: Of a repeated key the newer word holds.
REPLACED = ("failed_attempt",)
#: Rows of one statement.
TOGETHER = 500


def add_rows(model: type[models.Model], key: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """``rows``: their columns by name, all the same; no key twice."""
    if not rows:
        return
    columns = {field.attname: field for field in model._meta.concrete_fields if field.attname in rows[0]}
    one = f"({', '.join(['%s'] * len(columns))})"
    # What the database wants otherwise than Python has it; there are few different ones.
    told: dict[tuple[str, Any], Any] = {}

    def value(name: str, given: Any) -> Any:
        if given is None or isinstance(given, str | int):
            return given
        if (name, given) not in told:
            told[name, given] = columns[name].get_db_prep_save(given, connection)
        return told[name, given]

    with connection.cursor() as cursor:
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            values = [value(name, row[name]) for row in some for name in columns]
            cursor.execute(_statement(model, key, columns, f"VALUES {', '.join([one] * len(some))}"), values)


def add_selected(model: type[models.Model], key: Sequence[str], query: QuerySet[Any, Any]) -> None:
    """``query``: a ``values()`` query whose columns are called as the model's are; it must have a condition."""
    names = [*query.query.values_select, *query.query.annotation_select]
    selected, values = query.query.get_compiler(connection=connection).as_sql()
    with connection.cursor() as cursor:
        cursor.execute(_statement(model, key, names, selected), values)


def among(model: type[models.Model], ids: Sequence[int]) -> Q | RawSQL:
    """The condition that a row is one of these. On PostgreSQL they are one parameter: thousands take longer to write
    into a statement, and to read, than the statement takes to run."""
    if connection.vendor == "postgresql":
        column = f"{connection.ops.quote_name(model._meta.db_table)}.{connection.ops.quote_name('id')}"
        return RawSQL(f"{column} = ANY(%s)", [list(ids)], models.BooleanField())  # noqa: S611 - our own names
    return Q(id__in=ids)


def _statement(model: type[models.Model], key: Iterable[str], columns: Iterable[str], source: str) -> str:
    quote, table = connection.ops.quote_name, connection.ops.quote_name(model._meta.db_table)
    sets = [f"{quote(name)} = {table}.{quote(name)} + EXCLUDED.{quote(name)}" for name in SUMS]
    sets += [f"{quote(name)} = EXCLUDED.{quote(name)}" for name in REPLACED if name in columns]
    return (
        f"INSERT INTO {table} ({', '.join(quote(name) for name in columns)}) {source} "
        f"ON CONFLICT ({', '.join(quote(name) for name in key)}) DO UPDATE SET {', '.join(sets)}"
    )
