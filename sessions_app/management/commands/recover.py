"""Make everything due that a dead run of this host left in hand. Only for the embedded run, which is alone."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from sessions_app.drive import recover


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{recover()} rows are due")
