"""The WSGI entry of the web processes."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from gpubroker import pinned
from gpubroker.common import lifeline

pinned.keep_to_one_core()
lifeline.start()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
#: Set by ``roles.web``.
WEB_THREADS = int(os.environ.get("GPUBROKER_WEB_THREADS", "32"))

django = get_wsgi_application()

# What follows knows settings and models, which Django has loaded only now.
from gpubroker.common.bodies import Bodies, Workers  # noqa: E402
from gpubroker.common.mediatype import PlainMediaType  # noqa: E402
from gpubroker.fast import Fast  # noqa: E402
from gpubroker.leaving import Leaving  # noqa: E402
from gpubroker.reads import Reads  # noqa: E402

application = Leaving(Fast(Bodies(Workers(Reads(PlainMediaType(django)), WEB_THREADS))))
if "GPUBROKER_WEB_THREADS" in os.environ:
    application.listen()
