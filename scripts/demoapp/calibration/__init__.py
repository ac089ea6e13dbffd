"""The calibration desk: which temperature a sensor's reading means, derived symbolically."""
