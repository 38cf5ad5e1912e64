#!/usr/bin/env python
"""Django's own commands: ``python manage.py <command>``. The product's command is ``gpubroker``."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
