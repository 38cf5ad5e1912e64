"""Queries that are put into words once: Django takes ten milliseconds to write the SQL of a sum over the meter, and the
database less to answer it.

The query is an ordinary one, with a :class:`Later` wherever a value is given only when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
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


#: SQL, its parameters, and what turns a column of its answer into Python.
Words = tuple[str, tuple[Any, ...], dict[int, tuple[list[Any], Any]]]


class Prepared:
    """``build``: makes the ``values_list`` query, anew for each kind of database."""

    def __init__(self, build: Callable[[], QuerySet[Any, Any]]) -> None:
        self._build = build
        self._words: dict[str, Words] = {}

    def rows(self, **values: Any) -> list[list[Any]]:
        """What it finds now."""
        sql, params, converters = self._words.get(connection.vendor) or self._write()
        given = [
            each.output_field.get_db_prep_value(values[each.name], connection) if isinstance(each, Later) else each
            for each in params
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, given)
            found = [list(row) for row in cursor.fetchall()]
        for column, (steps, expression) in converters.items():
            for row in found:
                for step in steps:
                    row[column] = step(row[column], expression, connection)
        return found

    def _write(self) -> Words:
        compiler = self._build().query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        columns = [selected[0] for selected in compiler.select[: compiler.col_count]]
        words = self._words[connection.vendor] = sql, tuple(params), compiler.get_converters(columns)
        return words
