"""The part worth protecting: each sensor's response, and what follows from it."""
from functools import lru_cache

from sympy import Rational, diff, exp, integrate, latex, log, nsimplify, series, simplify, symbols

t, tau = symbols("t tau", real=True)

# Response at t degrees Celsius, relative to that at 0.
RESPONSES = {
    "bridge-7": (1 + Rational(39083, 10**7) * t - Rational(5775, 10**10) * t**2) * exp(-t / 4000),
    "thermistor-b": exp(Rational(3950) * (1 / (t + Rational(27315, 100)) - 1 / Rational(27315, 100))),
}


@lru_cache(maxsize=None)
def expansion(sensor, order):
    """The response around 0 degrees, as a polynomial below the given order."""
    return series(RESPONSES[sensor], t, 0, order).removeO()


def describe(sensor, order):
    """What the page about a sensor shows, as LaTeX."""
    response = RESPONSES[sensor]
    return {
        "sensor": sensor,
        "response": latex(response),
        "sensitivity": latex(simplify(diff(log(response), t))),
        "expansion": latex(expansion(sensor, order)),
    }


def calibrate(sensor, low, high, order):
    """The mean response between two temperatures, exactly where there is a closed form, and the expansion's error."""
    response = RESPONSES[sensor]
    polynomial = expansion(sensor, order)
    low, high = nsimplify(low), nsimplify(high)
    mean = integrate(polynomial, (t, low, high)) / (high - low)
    worst = max(abs((response - polynomial).subs(t, end).evalf(30)) for end in (low, high))
    settled = integrate(exp(-t / tau) * t, (t, 0, tau))
    return {
        "sensor": sensor,
        "mean": str(mean.evalf(20)),
        "error": str(worst.evalf(12)),
        "settling": str(simplify(settled)),
    }
