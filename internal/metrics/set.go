package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the label of what is not in a closed set.
const Other = "other"

// counters are those of one label's closed set, made at once.
type counters map[string]prometheus.Counter

// of finds a value's counter, or that of [Other].
func (c counters) of(value string) prometheus.Counter {
	if counter, ok := c[value]; ok {
		return counter
	}
	return c[Other]
}

// histograms are the same of histograms.
type histograms map[string]prometheus.Observer

func (h histograms) of(value string) prometheus.Observer {
	if one, ok := h[value]; ok {
		return one
	}
	return h[Other]
}

// maker makes metrics and registers them.
type maker struct{ to prometheus.Registerer }

const namespace = "carrel"

func (m maker) vector(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.to.MustRegister(v)
	return v
}

// counters makes one of each value of a closed set, and one of [Other].
func (m maker) counters(name, help, label string, set []string) counters {
	return curry(m.vector(name, help, label), set)
}

// curry makes the counters of the last label, which v has no value for.
func curry(v *prometheus.CounterVec, set []string, before ...string) counters {
	all := make(counters, len(set)+1)
	for _, value := range append([]string{Other}, set...) {
		all[value] = v.WithLabelValues(append(slices.Clip(before), value)...)
	}
	return all
}

// seconds makes a histogram of durations, one of each value of label's set; without a
// label it has one, of [Other].
func (m maker) seconds(name, help string, buckets []float64, label string, set []string) histograms {
	var labels []string
	if label != "" {
		labels = []string{label}
	}
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets: buckets,
		// The library's own recommendation; the bound and the hour keep a histogram of
		// wild values from growing: its resolution is halved instead.
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}, labels)
	m.to.MustRegister(v)
	if label == "" {
		return histograms{Other: v.WithLabelValues()}
	}
	all := make(histograms, len(set)+1)
	for _, value := range append([]string{Other}, set...) {
		all[value] = v.WithLabelValues(value)
	}
	return all
}

// The classic buckets, in seconds.
var (
	// stepSeconds are for parts of a start, of which most take less than a millisecond.
	stepSeconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 2.5}
	// waitSeconds are for what somebody waits for.
	waitSeconds = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	// workSeconds are for what an agent or a model does.
	workSeconds = []float64{.01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900}
)
