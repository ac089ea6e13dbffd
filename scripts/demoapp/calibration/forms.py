"""What may be asked of the desk."""
from django import forms

from .curves import RESPONSES


class CurveForm(forms.Form):
    order = forms.IntegerField(min_value=2, max_value=12, required=False)


class CalibrationForm(forms.Form):
    sensor = forms.ChoiceField(choices=[(name, name) for name in RESPONSES])
    low = forms.DecimalField(min_value=-40, max_value=125)
    high = forms.DecimalField(min_value=-40, max_value=125)
    order = forms.IntegerField(min_value=2, max_value=12)

    def clean(self):
        cleaned = super().clean()
        low, high = cleaned.get("low"), cleaned.get("high")
        if low is not None and high is not None and low >= high:
            raise forms.ValidationError("the range is empty: low must be below high")
        return cleaned
