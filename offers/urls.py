from django.urls import path

from offers import views

urlpatterns = [
    path("inventory/<str:offer_id>", views.OfferView.as_view()),
    path("offer-health", views.OfferHealthView.as_view()),
]
