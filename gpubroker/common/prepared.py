"""Queries that are put into words once: Django takes ten milliseconds to write the SQL of a sum over the meter, three
to write that of a session's columns, and the database less to answer it.

The query is an ordinary one, with a :class:`Later` wherever a value is given only when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection
from django.db.models import Expression, Field, QuerySet


class Later(Expression):
    """A value, by its name, that is given when the query runs."""

    def __init__(self, name: str, output_field: Field[Any, Any]) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self]


#: What turns a column of the answer into Python.
Converters = dict[int, tuple[list[Any], Any]]
#: SQL, its parameters, and its answer's converters.
Words = tuple[str, tuple[Any, ...], Converters]
#: Where no limit is asked for: more than any table holds, as not every database knows a limit of null.
_ALL = 2**62


class Prepared:
    """``build``: makes the ``values_list`` query, anew for each kind of database. ``sliced``: it takes a ``limit`` (or
    ``None``) and an ``offset`` when it runs, as Django writes a slice's numbers into the words."""

    def __init__(self, build: Callable[[], QuerySet[Any, Any]], *, sliced: bool = False) -> None:
        self._build = build
        self._sliced = sliced
        self._words: dict[str, Words] = {}

    def rows(self, *, limit: int | None = None, offset: int = 0, **values: Any) -> list[Sequence[Any]]:
        """What it finds now."""
        sql, params, converters = self._words.get(connection.vendor) or self._write()
        given = [
            each.output_field.get_db_prep_value(values[each.name], connection) if isinstance(each, Later) else each
            for each in params
        ]
        if self._sliced:
            given += [_ALL if limit is None else limit, offset]
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            rows: list[Sequence[Any]] = cursor.fetchall()
        return rows if not converters else _converted(rows, converters)

    def _write(self) -> Words:
        compiler = self._build().query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        if self._sliced:
            sql += " LIMIT %s OFFSET %s"
        columns = [selected[0] for selected in compiler.select[: compiler.col_count]]
        words = self._words[connection.vendor] = sql, tuple(params), compiler.get_converters(columns)
        return words


def _converted(rows: Sequence[Sequence[Any]], converters: Converters) -> list[Sequence[Any]]:
    found = [list(row) for row in rows]
    for column, (steps, expression) in converters.items():
        for row in found:
            for step in steps:
                row[column] = step(row[column], expression, connection)
    return list(found)
