package main

import (
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// DL-SMS follows the design of an earlier system, the original. These are its published figures
// with 50 and with 200 clients, over gRPC and over REST.
var (
	originalRPS  = [2]float64{340, 305}
	originalP95  = [2]float64{508, 1310} // milliseconds
	originalREST = [2]float64{2480, 2480}
)

// curve is one line of a plot.
type curve struct {
	name   string
	points plotter.XYs
	dashes []vg.Length // nil: a solid line
}

// Dashes of curves.
var (
	dashed = []vg.Length{vg.Points(5), vg.Points(3)}
	dotted = []vg.Length{vg.Points(1), vg.Points(3)}
)

// plot draws throughput and P95 of GetSeats, and P99 of the mix, by the number of clients.
func (r *report) plot(dir string) error {
	ms := func(f figure) (p95, p99 float64) { return 1000 * f.p95.Seconds(), 1000 * f.p99.Seconds() }
	reads := func(value func(figure) float64) []curve {
		return []curve{
			{name: ours, points: r.line("GetSeats", ours, value)},
			{name: limit, points: r.line("GetSeats", limit, value)},
		}
	}
	throughput := append(
		reads(func(f figure) float64 { return f.rps }), original("original, gRPC", originalRPS),
		original("original, REST", originalREST),
	)
	if err := savePlot(
		dir, "throughput", "GetSeats of 49 seats, by concurrency", "calls per second", throughput,
	); err != nil {
		return err
	}
	p95 := append(reads(func(f figure) float64 { v, _ := ms(f); return v }), original("original, gRPC", originalP95))
	if err := savePlot(dir, "p95", "GetSeats of 49 seats, by concurrency", "P95, ms (logarithmic)", p95); err != nil {
		return err
	}
	var mix []curve
	for _, kind := range mixed {
		for _, subject := range []string{ours, limit} {
			value := func(f figure) float64 { _, v := ms(f); return v }
			c := curve{name: kind.name + ", " + subject, points: r.line("mix, "+kind.name, subject, value)}
			if subject == limit {
				c.dashes = dashed
			}
			mix = append(mix, c)
		}
	}
	return savePlot(
		dir, "mix-p99", "90% reads, 8% bookings and cancels, 2% logins; one call per second and client",
		"P99, ms (logarithmic)", mix,
	)
}

// line returns the points of a scenario, sorted by the number of clients.
func (r *report) line(scenario, subject string, value func(figure) float64) plotter.XYs {
	var points plotter.XYs
	for _, f := range r.figures {
		if f.scenario == scenario && f.subject == subject {
			points = append(points, plotter.XY{X: float64(f.clients), Y: value(f)})
		}
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return int(a.X - b.X) })
	return points
}

// original returns the curve of the earlier system that DL-SMS follows. It connects the two
// published figures.
func original(name string, values [2]float64) curve {
	return curve{name, plotter.XYs{{X: 50, Y: values[0]}, {X: 200, Y: values[1]}}, dotted}
}

var colors = []color.Color{
	color.RGBA{R: 0x1b, G: 0x5e, B: 0xa8, A: 0xff},
	color.RGBA{R: 0x88, G: 0x88, B: 0x88, A: 0xff},
	color.RGBA{R: 0xc2, G: 0x3b, B: 0x22, A: 0xff},
	color.RGBA{R: 0xd9, G: 0x8e, B: 0x04, A: 0xff},
	color.RGBA{R: 0x2e, G: 0x7d, B: 0x32, A: 0xff},
	color.RGBA{R: 0x6a, G: 0x1b, B: 0x9a, A: 0xff},
	color.RGBA{R: 0x00, G: 0x83, B: 0x8f, A: 0xff},
	color.RGBA{R: 0x5d, G: 0x40, B: 0x37, A: 0xff},
	color.RGBA{A: 0xff},
}

// savePlot writes a plot by the number of clients. An axis of milliseconds is logarithmic, because the
// curves are far apart.
func savePlot(dir, name, title, unit string, curves []curve) error {
	return chart{title, "concurrent clients", unit, 210, name == "throughput"}.save(dir, name, curves)
}

// chart describes a plot of curves.
type chart struct {
	title, xLabel, yLabel string
	xMax                  float64
	linear                bool // the y axis; else it is logarithmic
}

// save writes the plot as PNG and SVG.
func (c chart) save(dir, name string, curves []curve) error {
	p := plot.New()
	p.Title.Text = c.title
	p.X.Label.Text = c.xLabel
	p.Y.Label.Text = c.yLabel
	p.X.Min, p.X.Max = 0, c.xMax
	p.X.Tick.Marker = ticks{}
	placeLegend(p)
	p.Add(plotter.NewGrid())
	lowest, highest := 0.0, 0.0
	for i, c := range curves {
		if len(c.points) == 0 {
			continue
		}
		line, points, err := plotter.NewLinePoints(c.points)
		if err != nil {
			return err
		}
		line.Color, points.Color, points.Shape = colors[i%len(colors)], colors[i%len(colors)], draw.CircleGlyph{}
		line.Width = vg.Points(1.5)
		line.Dashes = c.dashes
		p.Add(line, points)
		p.Legend.Add(c.name, line, points)
		for _, xy := range c.points {
			highest = max(highest, xy.Y)
			if lowest == 0 || xy.Y < lowest {
				lowest = xy.Y
			}
		}
	}
	if c.linear {
		p.Y.Min, p.Y.Max = 0, highest*(1.1+0.08*float64(len(curves))) // room for the legend
		p.Y.Tick.Marker = ticks{}
	} else if lowest > 0 {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.Y.Min, p.Y.Max = lowest/2, highest*8
	}
	return savePictures(p, dir, name)
}

// placeLegend puts the legend at the top right, within the plot.
func placeLegend(p *plot.Plot) {
	p.Legend.Top = true
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(-12), vg.Points(-4)
	p.Legend.Padding = vg.Points(2)
	p.Legend.ThumbnailWidth = vg.Points(30)
	p.Legend.TextStyle.Font.Size = vg.Points(10)
}

// ticks marks an axis that begins at 0, at about six round numbers.
type ticks struct{}

// Ticks implements plot.Ticker.
func (ticks) Ticks(_, highest float64) (all []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10(highest/4)))
	for _, wider := range []float64{2, 2.5, 2} {
		if highest/step > 7 {
			step *= wider
		}
	}
	for i := range int(highest/step) + 1 {
		at := float64(i) * step
		all = append(all, plot.Tick{Value: at, Label: strconv.FormatFloat(at, 'f', -1, 64)})
	}
	return all
}

// savePictures writes a plot as PNG and SVG.
func savePictures(p *plot.Plot, dir, name string) error {
	for _, format := range []string{".png", ".svg"} {
		if err := p.Save(18*vg.Centimeter, 11*vg.Centimeter, filepath.Join(dir, name+format)); err != nil {
			return err
		}
	}
	return nil
}
