package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a registry with the metrics of the Go runtime and of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Each function below registers one metric of the catalogue. It panics if the catalogue has no
// metric with this name and kind, or if the metric is already registered.

// Counter registers a counter that the caller increments.
func Counter(r prometheus.Registerer, name string) *prometheus.CounterVec {
	m := lookup(name, counter)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "dlsms", Name: m.name, Help: m.help}, m.labels)
	r.MustRegister(v)
	return v
}

// Gauge registers a gauge that the caller sets.
func Gauge(r prometheus.Registerer, name string) *prometheus.GaugeVec {
	m := lookup(name, gauge)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "dlsms", Name: m.name, Help: m.help}, m.labels)
	r.MustRegister(v)
	return v
}

// Histogram registers a histogram.
func Histogram(r prometheus.Registerer, name string) *prometheus.HistogramVec {
	m := lookup(name, histogram)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "dlsms", Name: m.name, Help: m.help, Buckets: m.buckets,
	}, m.labels)
	r.MustRegister(v)
	return v
}

// GaugeFunc registers a gauge with fixed labels. Each scrape calls value.
func GaugeFunc(r prometheus.Registerer, name string, labels prometheus.Labels, value func() float64) {
	m := lookup(name, gauge)
	r.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: "dlsms", Name: m.name, Help: m.help, ConstLabels: labels}, value))
}

// OptionalGaugeFunc registers a gauge without labels. Each scrape calls value. If ok is false, the
// gauge has no value in this scrape.
func OptionalGaugeFunc(r prometheus.Registerer, name string, value func() (v float64, ok bool)) {
	m := lookup(name, gauge)
	r.MustRegister(optionalGauge{prometheus.NewDesc(prometheus.BuildFQName("dlsms", "", m.name), m.help, nil, nil), value})
}

// optionalGauge is the collector of OptionalGaugeFunc.
type optionalGauge struct {
	desc  *prometheus.Desc
	value func() (float64, bool)
}

// Describe sends the description of the gauge.
func (g optionalGauge) Describe(descs chan<- *prometheus.Desc) { descs <- g.desc }

// Collect sends the value of the gauge, if it has one.
func (g optionalGauge) Collect(metrics chan<- prometheus.Metric) {
	if v, ok := g.value(); ok {
		metrics <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v)
	}
}

// CounterFunc registers a counter with fixed labels. Each scrape calls value.
func CounterFunc(r prometheus.Registerer, name string, labels prometheus.Labels, value func() float64) {
	m := lookup(name, counter)
	r.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Namespace: "dlsms", Name: m.name, Help: m.help, ConstLabels: labels}, value))
}
