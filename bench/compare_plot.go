package main

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// contenderNames are the names of the contenders in the order of the plots.
var contenderNames = []string{nameA, nameB, nameB304, nameC, nameD, nameLimit, nameLimitJSON}

// legends are the names of the contenders in the legends of plots.
var legends = map[string]string{
	nameA: "A: gRPC monolith", nameB: "B: HTTP/JSON monolith", nameB304: "B304: B with If-None-Match",
	nameC: "C: microservices", nameD: "D: C with a cache", nameLimit: nameLimit, nameLimitJSON: nameLimitJSON,
}

// plot draws the original's three plots, the CPU of a call, and the latencies at equal rates.
func (r *findings) plot(dir string) error {
	for _, p := range []struct {
		name, title, unit string
		value             func(finding) float64
		original          []curve
	}{
		{
			"throughput", "Requests a second: GetSeats of 49 seats, by concurrency", "requests a second",
			func(f finding) float64 { return f.rps },
			[]curve{original("original, gRPC", originalRPS), original("original, REST", originalREST)},
		},
		{
			"p95", "P95: GetSeats of 49 seats, by concurrency", "P95, ms (logarithmic)",
			func(f finding) float64 { return 1000 * f.p95.Seconds() },
			[]curve{original("original, gRPC", originalP95)},
		},
		{
			"p99", "P99: GetSeats of 49 seats, by concurrency", "P99, ms",
			func(f finding) float64 { return 1000 * f.p99.Seconds() }, nil,
		},
	} {
		byClients := func(f finding) float64 { return float64(f.clients) }
		curves := append(r.curves(reading, byClients, p.value), p.original...)
		c := chart{p.title, "concurrent clients", p.unit, 210, p.name != "p95"}
		if err := c.save(dir, p.name, curves); err != nil {
			return err
		}
	}
	byRate := func(f finding) float64 { return float64(f.rate) }
	curves := r.curves(atRate, byRate, func(f finding) float64 { return 1000 * f.p99.Seconds() })
	highest := 0.0
	for _, k := range r.kinds(atRate) {
		highest = max(highest, float64(k.rate))
	}
	latency := chart{
		title: "P99: GetSeats of 49 seats at equal rates", xLabel: "calls a second", yLabel: "P99, ms",
		xMax: 1.05 * highest, linear: true,
	}
	if err := latency.save(dir, "latency", curves); err != nil {
		return err
	}
	return r.plotCPU(dir)
}

// curves returns the curve of each contender.
func (r *findings) curves(scenario string, x, y func(finding) float64) (all []curve) {
	for _, name := range contenderNames {
		c := curve{name: legends[name]}
		if name == nameLimit || name == nameLimitJSON {
			c.dashes = dashed
		}
		for _, f := range r.figures {
			if f.scenario == scenario && f.contender == name {
				c.points = append(c.points, plotter.XY{X: x(f), Y: y(f)})
			}
		}
		slices.SortFunc(c.points, func(a, b plotter.XY) int { return int(a.X - b.X) })
		all = append(all, c)
	}
	return all
}

// plotCPU draws the CPU of a call as stacked bars, one part of the system on the other.
func (r *findings) plotCPU(dir string) error {
	k := r.typical(reading)
	p := plot.New()
	p.Title.Text = fmt.Sprintf("CPU of a GetSeats call by process, %d clients", k.clients)
	p.Y.Label.Text = "µs a call"
	placeLegend(p)
	var below *plotter.BarChart
	highest := 0.0
	for part := range partCount {
		var values plotter.Values
		for _, name := range contenderNames {
			f := r.find(k, name)
			values = append(values, 1e6*f.parts[part].Seconds())
			highest = max(highest, 1e6*f.parts.total().Seconds())
		}
		bars, err := plotter.NewBarChart(values, vg.Points(34))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = colors[partColors[part]], 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(partNames[part], bars)
	}
	p.NominalX(contenderNames...)
	p.X.Min, p.X.Max = -0.5, float64(len(contenderNames))-0.5
	p.Y.Min, p.Y.Max = 0, max(1, highest*1.5) // room for the legend
	p.Y.Tick.Marker = ticks{}
	return savePictures(p, dir, "cpu")
}

// partColors are the indexes in colors of the parts. The load generator is grey.
var partColors = [partCount]int{1, 3, 2, 0, 4, 5}
