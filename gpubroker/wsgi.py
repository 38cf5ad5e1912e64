"""The WSGI entry of the web processes."""

import os

from django.core.wsgi import get_wsgi_application

from gpubroker.common import lifeline
from gpubroker.common.bodies import Bodies, Workers
from gpubroker.common.mediatype import PlainMediaType

lifeline.start()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
#: Set by ``roles.web``.
WEB_THREADS = int(os.environ.get("GPUBROKER_WEB_THREADS", "32"))

application = Bodies(Workers(PlainMediaType(get_wsgi_application()), WEB_THREADS))
