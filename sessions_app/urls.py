from django.urls import path

from sessions_app import cost_views, views

urlpatterns = [
    path("sessions", views.SessionsView.as_view()),
    path("sessions/<str:session_id>", views.SessionView.as_view()),
    path("sessions/<str:session_id>/done", views.DoneView.as_view()),
    path("costs", cost_views.CostsView.as_view()),
    path("costs/summary", cost_views.CostSummaryView.as_view()),
]
