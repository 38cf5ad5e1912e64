from django.urls import path

from billing import views

urlpatterns = [
    path("consumers", views.ConsumersView.as_view()),
    path("keys", views.KeysView.as_view()),
    path("keys/<str:prefix>", views.KeyView.as_view()),
    path("keys/<str:prefix>/rotate", views.RotateView.as_view()),
]
