"""Writing many rows, each with values of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db import connection, models


def write_each(rows: Sequence[models.Model], columns: Collection[str]) -> None:
    """Write these columns of each row by its primary key, in the order given, in the caller's transaction.

    What ``bulk_update`` does, for a fifth of its time: that builds one CASE per column over all the rows, most of it
    while the transaction already keeps others from writing; this sends one short statement with many values.
    """
    if not rows:
        return
    meta = rows[0]._meta
    mine = {field.name: field for field in meta.concrete_fields}
    fields = [*(mine[name] for name in columns), meta.pk]
    quote = connection.ops.quote_name
    *assigned, key = (f"{quote(str(field.column))} = %s" for field in fields)
    statement = f"UPDATE {quote(meta.db_table)} SET {', '.join(assigned)} WHERE {key}"  # noqa: S608 - our models' names
    values = [[field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields] for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(statement, values)
