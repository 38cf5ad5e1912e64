"""The WSGI entry of the web processes."""

import os

from django.core.wsgi import get_wsgi_application

from gpubroker.common import lifeline
from gpubroker.common.bodies import KnownLength

lifeline.start()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")

application = KnownLength(get_wsgi_application())
