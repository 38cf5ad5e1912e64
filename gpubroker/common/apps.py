from django.apps import AppConfig


class CommonConfig(AppConfig):
    name = "gpubroker.common"
    label = "common"
    verbose_name = "Broker"

    def ready(self) -> None:
        # Here and not in gpubroker/__init__.py: the supervisor imports the package but needs no Celery (30 MB).
        import gpubroker.celery  # noqa: F401
