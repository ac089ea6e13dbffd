"""The desk's three pages."""
from django.http import Http404, HttpResponseBadRequest, JsonResponse
from django.shortcuts import render

from . import curves
from .forms import CalibrationForm, CurveForm


def sensors(request):
    return render(request, "calibration/sensors.html", {"sensors": sorted(curves.RESPONSES)})


def curve(request, sensor):
    if sensor not in curves.RESPONSES:
        raise Http404(sensor)
    form = CurveForm(request.GET)
    if not form.is_valid():
        return HttpResponseBadRequest(form.errors.as_text())
    order = form.cleaned_data["order"] or 4
    return render(request, "calibration/curve.html", curves.describe(sensor, order))


def calibrate(request):
    form = CalibrationForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors.get_json_data()}, status=400)
    return JsonResponse(curves.calibrate(**form.cleaned_data))
