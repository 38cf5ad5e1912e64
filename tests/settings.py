"""The product's own settings, with a data directory that vanishes and no real provider."""

import atexit
import os
import shutil
import tempfile

_data_dir = tempfile.mkdtemp(prefix="gpubroker-test-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)
os.environ["GPUBROKER_DATA_DIR"] = _data_dir
os.environ["GPUBROKER_ENV_FILE"] = ""
for _name in list(os.environ):
    if _name.startswith(("VASTAI_", "LOWCODEAPI_", "TENSORDOCK_")):
        os.environ.pop(_name)
for _name in ("DEPLOYMENT_ID", "SERVER_HOST", "API_AUTH", "REDIS_URL"):
    os.environ.pop(_name, None)
if os.environ.get("DATABASE_URL"):
    # tests.with_servers gives a real PostgreSQL; the deployed path then wants its secrets.
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 40)
    os.environ.setdefault("ENCRYPTION_KEYS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
os.environ.setdefault("API_AUTH", "open")
os.environ.setdefault("DEPLOYMENT_ID", "testdep")
os.environ.setdefault("LOG_FORMAT", "text")
# A test may call as often as it likes; the tests of the limit set their own.
os.environ.setdefault("API_RATE_PER_MINUTE", "0")

from gpubroker.settings import *  # noqa: E402, F403

if EMBEDDED:  # noqa: F405
    # A file, not memory: threads of one test must see one database, and WAL is what runs in production.
    DATABASES["default"]["TEST"] = {"NAME": os.path.join(_data_dir, "test.sqlite3")}  # noqa: F405
CELERY_BROKER_URL = "memory://"
# Each test client has a chain of middleware of its own: it must not read all static files' names each time.
WHITENOISE_AUTOREFRESH = True
# Another thread does not see what a test's own transaction wrote.
INVENTORY_WATCH = METRICS_FLUSH = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
