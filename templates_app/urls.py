from django.urls import path

from templates_app import views

urlpatterns = [
    path("templates", views.TemplatesView.as_view()),
    path("templates/<str:hash_id>", views.TemplateView.as_view()),
]
