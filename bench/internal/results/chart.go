package results

import (
	"bytes"
	"image/color"
	"regexp"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

// Chart is a figure of one case as bars.
type Chart struct {
	File   string // without .svg
	Title  string
	Case   string
	Column int
}

// Theme is what a chart's colours are for.
type Theme struct {
	Name               string
	text, ours, others color.Color
	floors             color.Color
}

// Themes are those in which each chart is drawn.
var Themes = []Theme{
	{"light", rgb(0x1f2328), rgb(0x0969da), rgb(0x8c959f), rgb(0xd0d7de)},
	{"dark", rgb(0xe6edf3), rgb(0x4493f8), rgb(0x7d8590), rgb(0x3d444d)},
}

func rgb(v uint32) color.Color {
	return color.NRGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 255}
}

// fonts are what the letters are measured with; the page's own are shown.
var fonts = regexp.MustCompile(`font-family:[^;]*;`)

// Draw returns the chart as SVG, nil if nothing was measured.
func (r *Results) Draw(c Chart, t Theme, peers []peer.Peer) ([]byte, error) {
	peers = r.measured([]cases.Case{{Name: c.Case}}, peers)
	if len(peers) == 0 {
		return nil, nil
	}
	const row = 17 // points
	bars := make([]plotter.Values, 3)
	for i := range bars {
		bars[i] = make(plotter.Values, len(peers))
	}
	names, labels := make([]string, len(peers)), plotter.XYLabels{}
	most := 0.0
	for i, p := range peers {
		y := len(peers) - 1 - i // the first is on top
		v := r.Median(c.Case, p.Info().Name, c.Column)
		kind := 1
		switch {
		case ours(p):
			kind = 0
		case p.Info().Floor:
			kind = 2
		}
		bars[kind][y], names[y], most = v, p.Info().Name, max(most, v)
		labels.XYs = append(labels.XYs, plotter.XY{X: v, Y: float64(y)})
		labels.Labels = append(labels.Labels, " "+Number(v))
	}
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.Title.Text, p.Title.Padding = c.Title, 6
	for kind, fill := range []color.Color{t.ours, t.others, t.floors} {
		b, err := plotter.NewBarChart(bars[kind], row-5)
		if err != nil {
			return nil, err
		}
		b.Horizontal, b.Color, b.LineStyle.Width = true, fill, 0
		p.Add(b)
	}
	l, err := plotter.NewLabels(labels)
	if err != nil {
		return nil, err
	}
	for i := range l.TextStyle {
		l.TextStyle[i].YAlign, l.TextStyle[i].Color = draw.YCenter, t.text
		l.TextStyle[i].Font = sans(10)
	}
	p.Add(l)
	p.NominalY(names...)
	p.HideX()
	p.X.Min, p.X.Max = 0, most*1.12 // room for the numbers
	p.Title.TextStyle.Font, p.Title.TextStyle.Color = sans(12), t.text
	p.Y.Tick.Label.Font, p.Y.Tick.Label.Color = sans(10), t.text
	canvas := vgsvg.New(560, vg.Length(row*len(peers)+30))
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	return fonts.ReplaceAll(out.Bytes(), []byte("font-family:system-ui,sans-serif;")), nil
}

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: plot.DefaultFont.Typeface, Variant: "Sans", Size: size}
}
