#!/usr/bin/env python
"""Django's own commands: ``python manage.py <command>``. The product's command is ``gpubroker``."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    from django.core.management import execute_from_command_line

    from gpubroker.failures import SettingsError

    try:
        execute_from_command_line(sys.argv)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
