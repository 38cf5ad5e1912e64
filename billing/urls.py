from django.urls import path

from billing import statement_views, views, webhook_views

urlpatterns = [
    path("consumers", views.ConsumersView.as_view()),
    path("keys", views.KeysView.as_view()),
    path("keys/<str:prefix>", views.KeyView.as_view()),
    path("keys/<str:prefix>/rotate", views.RotateView.as_view()),
    path("statements/<str:consumer>", statement_views.StatementView.as_view()),
    path("webhooks", webhook_views.WebhooksView.as_view()),
    path("webhooks/<str:webhook_id>", webhook_views.WebhookView.as_view()),
    path("webhooks/<str:webhook_id>/rotate", webhook_views.RotateSecretView.as_view()),
    path("webhooks/<str:webhook_id>/test", webhook_views.PingView.as_view()),
    path("webhooks/<str:webhook_id>/replay", webhook_views.ReplayView.as_view()),
    path("webhooks/<str:webhook_id>/deliveries", webhook_views.DeliveriesView.as_view()),
    path("webhooks/<str:webhook_id>/deliveries/<str:delivery_id>/redeliver", webhook_views.RedeliverView.as_view()),
]
