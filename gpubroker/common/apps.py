from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate  # noqa: TID251  # the one moment when permissions can be granted


class CommonConfig(AppConfig):
    name = "gpubroker.common"
    label = "common"
    verbose_name = "Broker"

    def ready(self) -> None:
        # Here and not in gpubroker/__init__.py: the supervisor imports the package but needs no Celery (30 MB).
        import gpubroker.celery  # noqa: F401

        # Of the last app, when the permissions of all of them are there.
        last = [config for config in apps.get_app_configs() if config.models_module is not None][-1]
        post_migrate.connect(keep_roles, sender=last, dispatch_uid="gpubroker.roles")


def keep_roles(**said: Any) -> None:
    # Here: what is imported with this module is imported before there are any models.
    from gpubroker.common import roles

    roles.keep(**said)
