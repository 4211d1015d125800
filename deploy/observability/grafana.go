package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	gdash "github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// datasource is the uid of Prometheus in grafana/datasources.yml.
const datasource = "prometheus"

// JSON returns the dashboard as Grafana reads it.
func (d dashboard) JSON() ([]byte, error) {
	b := gdash.NewDashboardBuilder(d.title).Uid(d.uid).Tags([]string{"dlsms"}).Readonly().
		Refresh("10s").Time("now-1h", "now").Timezone("browser").Tooltip(gdash.DashboardCursorSyncCrosshair)
	for _, p := range d.panels {
		b = b.WithPanel(p.builder())
	}
	built, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.uid, err)
	}
	plain, err := json.Marshal(built)
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.uid, err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, plain, "", "  "); err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.uid, err)
	}
	indented.WriteByte('\n')
	return indented.Bytes(), nil
}

func (p panel) builder() cog.Builder[gdash.Panel] {
	source := common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr(datasource)}
	if p.stat {
		b := stat.NewPanelBuilder().Title(p.title).Description(p.description).Unit(p.unit).Datasource(source).
			NoValue(p.noValue).Span(6).Height(4)
		for i, q := range p.queries {
			b = b.WithTarget(q.builder(i).Instant())
		}
		return b
	}
	b := timeseries.NewPanelBuilder().Title(p.title).Description(p.description).Unit(p.unit).Datasource(source).
		Min(0).Span(8).Height(8).FillOpacity(10).ShowPoints(common.VisibilityModeNever)
	for i, q := range p.queries {
		b = b.WithTarget(q.builder(i).Range().Exemplar(p.exemplars))
	}
	return b
}

func (q query) builder(i int) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).RefId("ABCDEF"[i : i+1])
}
