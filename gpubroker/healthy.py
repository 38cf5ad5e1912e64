"""``python -m gpubroker.healthy web|lifecycle``: is this container well? Exit code 0 or 1, and one sentence.

``web`` asks the web server of this container whether it is ready. ``lifecycle`` is for worker and beat, which nobody
can ask: it looks in the database whether somebody's tick came lately, which takes both of them. With several workers
it tells that one of them works, not which.
"""

from __future__ import annotations

import http.client
import os
import sys

#: A container is not restarted for being unwell, so this may be as impatient as the people who look.
SECONDS = 4.0


def web() -> str:
    """Empty when ready, else what is wrong."""
    from gpubroker import settings

    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced
    host = everywhere.get(settings.SERVER_HOST, settings.SERVER_HOST)
    connection = http.client.HTTPConnection(host, settings.SERVER_PORT, timeout=SECONDS)
    try:
        connection.request("GET", "/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"the web server does not answer: {error}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"/ready says {status}"


def lifecycle() -> str:
    """Empty when the scheduler ticks, else what is wrong."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    from django.db import DatabaseError

    from gpubroker.health import ticking

    try:
        return "" if ticking() else "no tick has come lately"
    except DatabaseError as error:
        return f"the database does not answer: {type(error).__name__}"


def main(arguments: list[str]) -> int:
    looks = {"web": web, "lifecycle": lifecycle}
    if len(arguments) != 1 or arguments[0] not in looks:
        sys.stderr.write("usage: python -m gpubroker.healthy web|lifecycle\n")
        return 2
    problem = looks[arguments[0]]()
    sys.stdout.write(f"{problem or 'well'}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
