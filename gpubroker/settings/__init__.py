"""Django settings, all driven by the environment (see env.py). Nothing here is for one place only:
the embedded run, the tests and a deployment differ by environment alone."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import dj_database_url
from cryptography.fernet import Fernet

from gpubroker.settings import env as _env
from gpubroker.settings.console import UNFOLD as UNFOLD

_read = _env.Reader()

BASE_DIR = _env.BASE_DIR
DATA_DIR = _env.data_dir(_read)
UNKNOWN_SETTINGS = _env.unknown_names()

# --- where we run -----------------------------------------------------------------------------
DATABASE_URL = _read.text("DATABASE_URL")
REDIS_URL = _read.text("REDIS_URL")
#: Embedded: no services given, so SQLite and the bundled queue under DATA_DIR.
EMBEDDED = not DATABASE_URL
SERVER_HOST = _read.text("SERVER_HOST", "127.0.0.1")
SERVER_PORT = _read.integer("SERVER_PORT", 8080, least=1, most=65535)
DEBUG = _read.boolean("DEBUG", False)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


SERVER_IS_LOOPBACK = _is_loopback(SERVER_HOST)
API_AUTH = _read.choice("API_AUTH", "open" if SERVER_IS_LOOPBACK and EMBEDDED else "key", ("open", "key"))
if API_AUTH == "open" and not SERVER_IS_LOOPBACK and not _read.boolean("ALLOW_OPEN_API", False):
    raise _env.SettingsError(
        f"API_AUTH=open on SERVER_HOST={SERVER_HOST} would let anyone on the network rent machines on your account; "
        "use API_AUTH=key, or set ALLOW_OPEN_API=1 if you really mean it."
    )

#: Requests per minute and key, or per address on the open API; 0: no limit.
API_RATE_PER_MINUTE = _read.integer("API_RATE_PER_MINUTE", 600, least=0, most=1_000_000)
#: How many proxies of our own stand in front: only then are X-Forwarded-For and X-Forwarded-Proto believed.
TRUSTED_PROXIES = _read.integer("TRUSTED_PROXIES", 0, least=0, most=10)
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
#: People reach us by https only: cookies are marked so, and browsers are told to insist (HSTS).
SECURE = _read.boolean("SECURE", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE

# --- secrets ----------------------------------------------------------------------------------
if EMBEDDED:
    SECRET_KEY = _read.text("SECRET_KEY") or _env.kept_secret(DATA_DIR / "secret_key", _env.new_secret_key)
    ENCRYPTION_KEYS = _read.texts("ENCRYPTION_KEYS") or [
        _env.kept_secret(DATA_DIR / "encryption_key", lambda: Fernet.generate_key().decode())
    ]
else:
    SECRET_KEY = _read.text("SECRET_KEY")
    ENCRYPTION_KEYS = _read.texts("ENCRYPTION_KEYS")
    if not SECRET_KEY:
        raise _env.SettingsError("SECRET_KEY must be set when DATABASE_URL is: 50 random characters, kept secret.")
    if not ENCRYPTION_KEYS:
        raise _env.SettingsError(
            "ENCRYPTION_KEYS must be set when DATABASE_URL is: make one with `gpubroker make-encryption-key`."
        )
for _key in ENCRYPTION_KEYS:
    try:
        Fernet(_key)
    except ValueError:
        raise _env.SettingsError(
            "ENCRYPTION_KEYS: each must be 32 bytes in url-safe base64; make one with `gpubroker make-encryption-key`."
        ) from None

# --- providers --------------------------------------------------------------------------------
VASTAI_API_KEY = _read.token("VASTAI_API_KEY")
VASTAI_BASE_URL = _read.url("VASTAI_BASE_URL", "https://console.vast.ai")
#: The way to the Vast.ai account: its own API with its key, or the LowCodeAPI gateway, which holds the key.
VASTAI_TRANSPORT = _read.choice("VASTAI_TRANSPORT", "native", ("native", "lowcodeapi"))
LOWCODEAPI_API_TOKEN = _read.token("LOWCODEAPI_API_TOKEN")
LOWCODEAPI_BASE_URL = _read.url("LOWCODEAPI_BASE_URL", "https://api.lowcodeapi.com/vastai")
#: The v2 API asks for the token alone. The Authorization ID belongs to the older API and is never sent.
TENSORDOCK_API_TOKEN = _read.token("TENSORDOCK_API_TOKEN")
TENSORDOCK_AUTH_ID = _read.token("TENSORDOCK_AUTH_ID")
TENSORDOCK_BASE_URL = _read.url("TENSORDOCK_BASE_URL", "https://dashboard.tensordock.com/api/v2")
#: Tried first at every create; where a host refuses it, other images of TensorDock's own follow.
TENSORDOCK_DEFAULT_IMAGE = _read.text("TENSORDOCK_DEFAULT_IMAGE", "ubuntu2404") or "ubuntu2404"
if TENSORDOCK_AUTH_ID and not TENSORDOCK_API_TOKEN:
    raise _env.SettingsError("TENSORDOCK_AUTH_ID is set and TENSORDOCK_API_TOKEN is not; the token is what is needed.")
if TENSORDOCK_AUTH_ID and TENSORDOCK_AUTH_ID == TENSORDOCK_API_TOKEN:
    raise _env.SettingsError("TENSORDOCK_API_TOKEN holds the Authorization ID; the token is the other value.")
if not re.fullmatch(r"ubuntu[0-9]{4}(?:_[a-z0-9]+)*", TENSORDOCK_DEFAULT_IMAGE):
    raise _env.SettingsError(
        "TENSORDOCK_DEFAULT_IMAGE must be one of TensorDock's Ubuntu images, such as ubuntu2404 or "
        f"ubuntu2404_ml_everything, not {TENSORDOCK_DEFAULT_IMAGE!r}."
    )
DEPLOYMENT_ID = _read.text("DEPLOYMENT_ID")
if DEPLOYMENT_ID and not re.fullmatch(r"[a-z0-9]{4,20}", DEPLOYMENT_ID):
    raise _env.SettingsError(
        f"DEPLOYMENT_ID must be 4 to 20 lower-case letters or digits (it stands in labels), not {DEPLOYMENT_ID!r}."
    )
SANDBOX = _read.choice("SANDBOX", "auto", ("auto", "on", "off"))
if VASTAI_TRANSPORT == "lowcodeapi" and not LOWCODEAPI_API_TOKEN and SANDBOX != "on":
    raise _env.SettingsError("VASTAI_TRANSPORT=lowcodeapi needs LOWCODEAPI_API_TOKEN, the token that begins with at_.")
#: The embedded run brings its own marketplace when no real one is configured.
PROVIDER_CONFIGURED = bool(VASTAI_API_KEY or VASTAI_TRANSPORT == "lowcodeapi" or TENSORDOCK_API_TOKEN)
SANDBOX_ON = SANDBOX == "on" or (SANDBOX == "auto" and EMBEDDED and not PROVIDER_CONFIGURED)
#: Of the sandbox's vendors, the one that the broker rents from; Vast.ai has two ways to it.
SANDBOX_PROVIDER = _read.choice("SANDBOX_PROVIDER", "all", ("all", "vastai", "lowcodeapi", "tensordock"))
if SANDBOX_PROVIDER != "all" and not SANDBOX_ON:
    raise _env.SettingsError(
        f"SANDBOX_PROVIDER={SANDBOX_PROVIDER} chooses among the sandbox's vendors, and the sandbox is off: set "
        "SANDBOX=on, or leave it out."
    )
PROVIDER_PACE = _read.number("PROVIDER_PACE", 0.1 if SANDBOX_ON else 1.0, least=0, most=100)

# --- promises and their clocks ----------------------------------------------------------------
INVENTORY_REFRESH_SECONDS = _read.number("INVENTORY_REFRESH_SECONDS", 60, least=1, most=86_400)
#: A thread of each web process keeps its inventory current, so that requests never wait for the database.
INVENTORY_WATCH = True
INVENTORY_BACKOFF_SECONDS = _read.number("INVENTORY_BACKOFF_SECONDS", 300, least=1, most=86_400)
RECONCILE_SECONDS = _read.number("RECONCILE_SECONDS", 300, least=1, most=86_400)
ORPHAN_GRACE_SECONDS = _read.number("ORPHAN_GRACE_SECONDS", 900, least=0, most=86_400)
#: A sweep that would end more than this share of the machines ends nothing and asks a person.
SWEEP_HOLD_SHARE = _read.number("SWEEP_HOLD_SHARE", 0.3, least=0.01, most=1)
STARTUP_SWEEP_SECONDS = _read.number("STARTUP_SWEEP_SECONDS", 120, least=1, most=3_600)
SSH_VERIFY_SECONDS = _read.number("SSH_VERIFY_SECONDS", 600, least=1, most=7_200)
SSH_CHECK_SECONDS = _read.number("SSH_CHECK_SECONDS", 2, least=0.1, most=60)
#: Does our key still open a running machine's door? Where idleness is watched, a look a minute tells that as well.
KEY_CHECK_SECONDS = _read.number("KEY_CHECK_SECONDS", 1800, least=1, most=86_400)
HARD_MAX_HOURS = _read.integer("HARD_MAX_HOURS", 12, least=1, most=8_760)
CREATE_WAIT_SECONDS = _read.number("CREATE_WAIT_SECONDS", 20, least=0, most=60)
DESTROY_WAIT_SECONDS = _read.number("DESTROY_WAIT_SECONDS", 10, least=0, most=60)
#: How long a vendor's listing may lag behind a create: a lost answer is looked up for this long (rule I2).
LISTING_LAG_SECONDS = _read.number("LISTING_LAG_SECONDS", 60, least=1, most=3_600)
#: Webhooks go to public addresses only, unless this run is to tell its own machine or network.
WEBHOOK_ALLOW_PRIVATE = _read.boolean("WEBHOOK_ALLOW_PRIVATE", False)

#: Provider balances are read this often; a runway of less than so many hours is told to staff (0: never).
BALANCE_POLL_SECONDS = _read.number("BALANCE_POLL_SECONDS", 300, least=10, most=86_400)
BALANCE_WARNING_HOURS = _read.number("BALANCE_WARNING_HOURS", 24, least=0, most=8_760)
#: A new session is refused where the provider's credit is less than so many times what is promised; 0: never.
PROVIDER_CREDIT_MARGIN = _read.number("PROVIDER_CREDIT_MARGIN", 1.1, least=0, most=10)
#: On what a session may still cost, when its budget promises it: prices are quoted in one place and billed in another.
BUDGET_MARGIN_PERCENT = _read.integer("BUDGET_MARGIN_PERCENT", 5, least=0, most=100)

# --- Django -----------------------------------------------------------------------------------
ALLOWED_HOSTS = _read.texts("ALLOWED_HOSTS") or (
    ["localhost", "127.0.0.1", "[::1]", SERVER_HOST] if SERVER_IS_LOOPBACK else ["*"]
)
CSRF_TRUSTED_ORIGINS = _read.texts("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "gpubroker.urls"
WSGI_APPLICATION = "gpubroker.wsgi.application"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = ["gpubroker.settings.formats"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
#: Seconds in which a request's body has to come, from its first byte to its last.
REQUEST_BODY_SECONDS = _read.integer("REQUEST_BODY_SECONDS", 20, least=1, most=600)

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_prometheus",
    "gpubroker.common",
    "offers",
    "templates_app",
    "billing",
    "sessions_app",
]

MIDDLEWARE = [
    "gpubroker.common.traffic.TrafficMiddleware",
    "gpubroker.common.middleware.RequestIdMiddleware",
    "gpubroker.common.middleware.SecurityHeadersMiddleware",
    "gpubroker.common.middleware.BodyMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gpubroker.common.middleware.PathMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "gpubroker" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
# WhiteNoise serves the packages' own files, so the embedded run needs no collectstatic step.
WHITENOISE_USE_FINDERS = True

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

DATABASES: dict[str, Any]
if EMBEDDED:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATA_DIR / "gpubroker.sqlite3",
            "CONN_MAX_AGE": 60,
            "OPTIONS": {
                # IMMEDIATE takes the write lock at BEGIN: without it, 13 % of concurrent writers met
                # "database is locked".
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=134217728;",
            },
        }
    }
else:
    try:
        # Looked at before each use by a request or a task: a restarted database must cost nobody an error.
        DATABASES = {"default": dict(dj_database_url.parse(DATABASE_URL, conn_max_age=60, conn_health_checks=True))}
    except ValueError:
        raise _env.SettingsError(
            "DATABASE_URL must look like postgresql://user:password@host:5432/name; it could not be read."
        ) from None
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        # A server that is gone without a word is noticed in seconds, not in the quarter of an hour that TCP takes.
        _noticed: dict[str, Any] = {
            "connect_timeout": 5, "tcp_user_timeout": 15_000,
            "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
        }  # fmt: skip
        DATABASES["default"]["OPTIONS"] = {**_noticed, **DATABASES["default"].get("OPTIONS", {})}

# --- queue ------------------------------------------------------------------------------------
# Under the supervisor the bundled Valkey's address comes in as REDIS_URL.
CELERY_BROKER_URL = REDIS_URL or "memory://"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = CELERY_BROKER_CONNECTION_RETRY = True
#: For ever, once a second: see gpubroker.queueing.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Destroys first: see QUEUES. A dead queue must not hold a request, so its sockets are impatient.
    "queue_order_strategy": "priority",
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "health_check_interval": 25,
    # Of whoever sends: what cannot be sent now need not be, as the rows are due.
    "max_retries": 0,
}
#: Celery would close a thread's database connection after each task; gpubroker.celery looks after them instead.
CELERY_DB_REUSE_MAX = 2**31
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_ROUTES = {
    "sessions_app.tasks.drive_debts": {"queue": "destroy"},
    "sessions_app.tasks.tick": {"queue": "tick"},
    "sessions_app.tasks.drive_rental": {"queue": "create"},
    "sessions_app.tasks.drive_session": {"queue": "ssh"},
    "sessions_app.tasks.drive_sessions": {"queue": "ssh"},
    "sessions_app.tasks.watch": {"queue": "ssh"},
}
TICK_SECONDS = _read.number("TICK_SECONDS", 0.5, least=0.05, most=60)
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    # Each expires quickly, so that a worker that was away meets no backlog: the rows carry what is due.
    "tick": {"task": "sessions_app.tasks.tick", "schedule": TICK_SECONDS, "options": {"expires": 5}},
    "offers": {"task": "offers.tasks.refresh_due", "schedule": 1.0, "options": {"expires": 5}},
    "templates": {"task": "templates_app.tasks.sync_due", "schedule": 10.0, "options": {"expires": 10}},
    "webhooks": {"task": "billing.tasks.deliver", "schedule": 1.0, "options": {"expires": 5}},
    "ledger": {"task": "billing.tasks.accrue", "schedule": 20.0, "options": {"expires": 20}},
    "balances": {"task": "billing.tasks.read_balances", "schedule": 5.0, "options": {"expires": 5}},
    "charges": {"task": "sessions_app.tasks.fetch_charges", "schedule": 5.0, "options": {"expires": 5}},
    "budgets": {"task": "sessions_app.tasks.budgets", "schedule": 2.0, "options": {"expires": 5}},
    "webhooks-purge": {"task": "billing.tasks.purge_webhooks", "schedule": 600.0, "options": {"expires": 300}},
}

# --- API --------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["gpubroker.common.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["gpubroker.common.parsers.StrictJSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["billing.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["gpubroker.common.permissions.Scoped"],
    "DEFAULT_THROTTLE_CLASSES": ["gpubroker.common.ratelimit.PerCaller"],
    "DEFAULT_METADATA_CLASS": "gpubroker.common.schema.Methods",
    "UNAUTHENTICATED_USER": None,
    # Answers are JSON: `?format=` is an unknown parameter like any other.
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "gpubroker.common.errors.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "COERCE_DECIMAL_TO_STRING": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GPU Broker",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    # Words, common headers and errors, links: gpubroker/openapi.py.
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "gpubroker.openapi.complete"],
    "SERVE_INCLUDE_SCHEMA": False,
    # Schema and docs are open: they tell no more than the README does.
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {
        "deepLinking": True, "displayRequestDuration": True, "docExpansion": "list", "filter": True,
        "persistAuthorization": False, "tryItOutEnabled": True, "defaultModelsExpandDepth": 0,
    },
    "SCHEMA_PATH_PREFIX": r"/api/v1",
}  # fmt: skip

# --- logs -------------------------------------------------------------------------------------
LOG_LEVEL = _read.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error", "critical")).upper()
LOG_FORMAT = _read.choice("LOG_FORMAT", "auto", ("auto", "text", "json"))
LOGGING_CONFIG = "gpubroker.common.logs.configure"
LOGGING = {"level": LOG_LEVEL, "format": LOG_FORMAT}
PROMETHEUS_EXPORT_MIGRATIONS = False
#: A thread of each process adds what it has counted to the shared counters.
METRICS_FLUSH = True
