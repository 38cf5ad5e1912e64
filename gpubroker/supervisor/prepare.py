"""The database work of a start, in a child of its own: migrations, first admin and key.

``python -m gpubroker.supervisor.prepare FD`` writes the first admin's password and the first API key, if it made them,
to the descriptor FD: a pipe that only the supervisor reads, so that they are in no log and in no file.
"""

from __future__ import annotations

import json
import os
import secrets
import sys

from gpubroker.common import lifeline
from gpubroker.failures import SettingsError

ADMIN = "admin"
FIRST_CONSUMER = "default"


def migrate() -> None:
    """Bring the schema up to date."""
    from gpubroker import migrating

    migrating.migrate(skip_checks=True)


def first_admin() -> str:
    """Make the administrator of a new installation and return the password, else an empty string."""
    from django.contrib.auth import get_user_model

    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(15)
    users.create_superuser(username=ADMIN, password=password)
    return password


def first_key() -> str:
    """Where the API asks for a key and none was ever made: make one for the consumer ``default`` and return it."""
    from django.conf import settings

    from billing import services
    from billing.models import ApiKey

    if settings.API_AUTH != "key" or ApiKey.objects.exists():
        return ""
    return services.make_key(FIRST_CONSUMER, by="first run", name="made at the first start").secret


def main(report_to: int) -> int:
    lifeline.start()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    try:
        import django
        from django.conf import settings
        from django.db import DatabaseError

        django.setup()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        migrate()
        report: dict[str, str] = {}
        if settings.EMBEDDED:
            # WhiteNoise serves the packages' own files but still wants to see the folder.
            os.makedirs(settings.STATIC_ROOT, exist_ok=True)
            report["admin_password"] = first_admin()
            report["api_key"] = first_key()
    except DatabaseError as error:
        # Last line of the log and of the supervisor's sentence; the traceback is for the log.
        import traceback

        traceback.print_exc()
        sys.stderr.write(f"{str(error).strip().splitlines()[0]}\n")
        return 1
    os.write(report_to, json.dumps(report).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
