"""All paths. No trailing slashes (one is tolerated, see PathMiddleware), except in the admin."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from gpubroker import health, metrics
from gpubroker.common.login import ThrottledLogin
from gpubroker.console import pages

admin.site.extra_urls = pages.urls  # type: ignore[attr-defined]  # the theme's site asks for it
admin.site.login_form = ThrottledLogin
admin.site.site_header = "GPU Broker"
admin.site.site_title = "GPU Broker"
admin.site.index_title = "What runs, what it costs, what is owed"
admin.site.index_template = "console/start.html"

urlpatterns = [
    path("health", health.health),
    path("ready", health.ready),
    path("metrics", metrics.metrics),
    path("metrics/process", metrics.process),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/v1/", include("billing.urls")),
    path("api/v1/", include("offers.urls")),
    path("api/v1/", include("templates_app.urls")),
    path("api/v1/", include("sessions_app.urls")),
    # Browsers ask for it on every page that names none.
    path("favicon.ico", RedirectView.as_view(url="/static/drf_spectacular_sidecar/swagger-ui-dist/favicon-32x32.png")),
    path("", RedirectView.as_view(url="/admin/", permanent=False)),
]

handler400 = "gpubroker.common.errors.bad_request"
handler403 = "gpubroker.console.refusals.forbidden"
handler404 = "gpubroker.console.refusals.not_found"
handler500 = "gpubroker.common.errors.server_error"
