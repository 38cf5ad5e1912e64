from django.urls import path

from sessions_app import catalog_views, cost_views, life_views, views

urlpatterns = [
    path("inventory", catalog_views.InventoryView.as_view()),
    path("inventory/<str:offer_id>/compatible-templates", catalog_views.CompatibleTemplatesView.as_view()),
    path("sessions", views.SessionsView.as_view()),
    path("sessions/estimate", views.EstimateView.as_view()),
    path("sessions/<str:session_id>", views.SessionView.as_view()),
    path("sessions/<str:session_id>/done", life_views.DoneView.as_view()),
    path("sessions/<str:session_id>/extend", life_views.ExtendView.as_view()),
    path("sessions/<str:session_id>/diagnostics", life_views.DiagnosticsView.as_view()),
    path("sessions/<str:session_id>/events", life_views.EventsView.as_view()),
    path("sessions/<str:session_id>/heartbeat", life_views.HeartbeatView.as_view()),
    path("sessions/<str:session_id>/rekey", life_views.RekeyView.as_view()),
    path("costs", cost_views.CostsView.as_view()),
    path("costs/summary", cost_views.CostSummaryView.as_view()),
]
