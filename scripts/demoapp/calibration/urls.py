"""Which address shows what."""
from django.urls import path

from . import views

urlpatterns = [
    path("sensors/", views.sensors, name="sensors"),
    path("sensors/<slug:sensor>/curve/", views.curve, name="curve"),
    path("calibrate/", views.calibrate, name="calibrate"),
]
