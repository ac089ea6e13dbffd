"""Runs the calibration desk on a working day's requests and prints every answer.

A Django project without a server: real URL routing, form validation and templates, with sympy doing the analysis.
The output is the same on every run, so that two runs can be compared byte by byte.
"""
import logging
import sys

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["desk.invalid"],
    INSTALLED_APPS=["calibration"],
    LOGGING_CONFIG=None,
    ROOT_URLCONF="calibration.urls",
    SECRET_KEY="demo-signing-key-that-must-not-reach-the-disk",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    USE_TZ=True,
)
django.setup()

from django.test import Client  # noqa: E402 (needs the settings)

REQUESTS = [
    ("get", "/sensors/", {}),
    ("get", "/sensors/bridge-7/curve/", {"order": 6}),
    ("get", "/sensors/thermistor-b/curve/", {"order": 5}),
    ("get", "/sensors/no-such-sensor/curve/", {}),
    ("post", "/calibrate/", {"sensor": "bridge-7", "low": "-10", "high": "85", "order": 4}),
    ("post", "/calibrate/", {"sensor": "thermistor-b", "low": "0", "high": "40", "order": 3}),
    ("post", "/calibrate/", {"sensor": "bridge-7", "low": "50", "high": "20", "order": 99}),
]


def main():
    logging.disable()  # the refused requests are part of the show
    client = Client(HTTP_HOST="desk.invalid")
    for method, path, data in REQUESTS:
        response = getattr(client, method)(path, data)
        print(f"== {method.upper()} {path} -> {response.status_code} {response['Content-Type']}")
        print(response.content.decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
