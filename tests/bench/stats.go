package main

import (
	"math"
	"slices"
)

// spread is the middle of some readings and how far they lie apart.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns NaNs for no readings, which no comparison takes for good.
func spreadOf(readings []float64) spread {
	if len(readings) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(readings))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1]}
}

// ratios divides round by round: what was measured in the same minute is compared, and a slow minute hits both.
// Both hold one reading per round.
func ratios(readings, base []float64) []float64 {
	quotients := make([]float64, len(readings))
	for i := range readings {
		quotients[i] = readings[i] / base[i]
	}
	return quotients
}
