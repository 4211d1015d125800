package main

import (
	"context"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The pictures show what Grafana shows, from the same queries. They are for docs/operating, so that
// a reader sees the dashboards without a Grafana.

const (
	columns     = 3
	panelWidth  = 420 // points
	panelHeight = 230
	// rateInterval replaces $__rate_interval: four intervals of scrapes, as Grafana computes it.
	rateInterval = "1m"
)

// draw writes a picture of the dashboard from begin to end into dir.
func (m *monitor) draw(ctx context.Context, d dashboard, begin, end time.Time, dir string) error {
	rows := (len(d.panels) + columns - 1) / columns
	c := vgimg.NewWith(vgimg.UseWH(columns*panelWidth, vg.Length(rows)*panelHeight), vgimg.UseDPI(72))
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: 12, PadY: 12, PadTop: 6, PadBottom: 6, PadLeft: 6, PadRight: 6}
	canvas := draw.New(c)
	for i, p := range d.panels {
		drawn, err := m.plot(ctx, p, promv1.Range{Start: begin, End: end, Step: max(end.Sub(begin)/200, scrapeInterval)})
		if err != nil {
			return fmt.Errorf("draw %q: %w", p.title, err)
		}
		drawn.Draw(tiles.At(canvas, i%columns, i/columns))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, d.uid+".png"))
	if err != nil {
		return err
	}
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

func (m *monitor) plot(ctx context.Context, p panel, r promv1.Range) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text = p.title
	drawn.Title.TextStyle.Font.Size = 12
	drawn.X.Tick.Marker = plot.TimeTicks{Format: "15:04"}
	drawn.Y.Tick.Marker = unitTicks{p.unit}
	drawn.Y.Min, drawn.X.Min, drawn.X.Max = 0, float64(r.Start.Unix()), float64(r.End.Unix())
	drawn.Legend.Top = true
	drawn.Legend.TextStyle.Font.Size = 7
	drawn.Add(plotter.NewGrid())
	lines := 0
	for _, q := range p.queries {
		value, _, _, err := m.QueryRange(ctx, strings.ReplaceAll(q.expr, "$__rate_interval", rateInterval), r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.expr, err)
		}
		series, ok := value.(model.Matrix)
		if !ok {
			return nil, fmt.Errorf("%s: a %s is not a range of values", q.expr, value.Type())
		}
		for _, s := range series {
			line, err := plotter.NewLine(points(s))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", q.expr, err)
			}
			line.Color = palette[lines%len(palette)]
			line.Width = 1.2
			lines++
			drawn.Add(line)
			if lines <= 12 {
				drawn.Legend.Add(q.name(s.Metric), line)
			}
		}
	}
	if lines == 0 && p.noValue != "" {
		drawn.Title.Text += ": " + p.noValue
	}
	drawn.Y.Max = max(drawn.Y.Max*1.1, 1e-9)
	return drawn, nil
}

// points returns the values that are numbers.
func points(s *model.SampleStream) plotter.XYs {
	var xys plotter.XYs
	for _, v := range s.Values {
		if y := float64(v.Value); !math.IsNaN(y) && !math.IsInf(y, 0) {
			xys = append(xys, plotter.XY{X: float64(v.Timestamp.Unix()), Y: y})
		}
	}
	return xys
}

// name returns the legend with the values of the labels.
func (q query) name(labels model.Metric) string {
	name := q.legend
	for label, value := range labels {
		name = strings.ReplaceAll(name, "{{"+string(label)+"}}", string(value))
	}
	return name
}

// unitTicks labels an axis with the unit of a panel.
type unitTicks struct{ unit string }

func (u unitTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = inUnit(t.Value, u.unit)
		}
	}
	return ticks
}

func inUnit(v float64, unit string) string {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
	switch {
	case unit == seconds && v != 0 && v < 1:
		return number(v*1000) + " ms"
	case unit == seconds && v >= 2*86400:
		return number(v/86400) + " d"
	case unit == seconds:
		return number(v) + " s"
	case unit == bytesUnit:
		return number(v/(1<<20)) + " MiB"
	case unit == ratio:
		return number(v*100) + "%"
	case unit == opsPerSecond:
		return number(v) + "/s"
	default:
		return number(v)
	}
}

var palette = []color.Color{
	color.RGBA{R: 0x1b, G: 0x5e, B: 0xa8, A: 0xff},
	color.RGBA{R: 0xd9, G: 0x8e, B: 0x04, A: 0xff},
	color.RGBA{R: 0x2e, G: 0x7d, B: 0x32, A: 0xff},
	color.RGBA{R: 0xc2, G: 0x3b, B: 0x22, A: 0xff},
	color.RGBA{R: 0x6a, G: 0x1b, B: 0x9a, A: 0xff},
	color.RGBA{R: 0x00, G: 0x83, B: 0x8f, A: 0xff},
	color.RGBA{R: 0x5d, G: 0x40, B: 0x37, A: 0xff},
	color.RGBA{R: 0x88, G: 0x88, B: 0x88, A: 0xff},
}
