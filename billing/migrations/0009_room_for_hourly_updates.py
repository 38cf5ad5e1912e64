"""On PostgreSQL an update that changes no indexed column writes no index, if the row's page has room for the new
version. Each hour updates every running segment once; with full pages nearly all of these wrote nine indexes."""

from typing import Any

from django.db import migrations


def leave_room(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE billing_metersegment SET (fillfactor = 60)")


def fill_up(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE billing_metersegment RESET (fillfactor)")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0008_traffic_and_unmatched_charges"),
    ]

    operations = [migrations.RunPython(leave_room, fill_up)]
