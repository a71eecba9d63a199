package mesh

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a plot of an experiment.
type picture struct {
	name, title, x, y string
	lines             []line
	bars              []bar
	marks             []mark
	logarithmic       bool
}

type line struct {
	name   string
	points plotter.XYs
}

type bar struct {
	name  string
	value float64
}

// mark is a moment worth knowing.
type mark struct {
	name string
	x    float64
}

// Told apart by people who do not see all colours, and on paper: blue, orange, green, purple.
var colours = []color.RGBA{{0, 90, 181, 255}, {220, 90, 0, 255}, {0, 130, 90, 255}, {140, 60, 150, 255}}

func (p picture) svg() ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	drawing := plot.New()
	drawing.Title.Text, drawing.X.Label.Text, drawing.Y.Label.Text = p.title, p.x, p.y
	drawing.Legend.Top, drawing.Legend.Left = true, false
	drawing.Y.Min = 0
	drawing.Legend.Padding = vg.Points(2)
	grid := plotter.NewGrid()
	if len(p.bars) > 0 {
		grid.Vertical.Width = 0
		drawing.X.Min, drawing.X.Max = -0.5, float64(len(p.bars))-0.5
	}
	drawing.Add(grid)
	drawing.X.Tick.Marker, drawing.Y.Tick.Marker = plot.TickerFunc(plainTicks), plot.TickerFunc(plainTicks)
	for i, one := range p.lines {
		made, err := plotter.NewLine(one.points)
		if err != nil {
			return nil, err
		}
		made.Color, made.Width = colours[i%len(colours)], vg.Points(1.5)
		if i >= len(colours) {
			made.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		drawing.Add(made)
		drawing.Legend.Add(one.name+"\u00a0\u00a0\u00a0", made)
	}
	if err := p.addBars(drawing); err != nil {
		return nil, err
	}
	if err := p.addMarks(drawing); err != nil {
		return nil, err
	}
	drawing.Y.Max *= 1 + 0.12*float64(len(p.lines)) // room for the legend
	if p.logarithmic {
		drawing.Y.Scale, drawing.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		drawing.Y.Min = math.Pow(10, math.Floor(math.Log10(p.least())))
		drawing.Y.Max = math.Pow(drawing.Y.Max/drawing.Y.Min, 1.4) * drawing.Y.Min
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(18*vg.Centimeter, 8*vg.Centimeter))
	drawing.Draw(draw.Crop(draw.New(canvas), vg.Points(4), -vg.Points(8), vg.Points(4), -vg.Points(4)))
	var text bytes.Buffer
	_, err := canvas.WriteTo(&text)
	return text.Bytes(), err
}

func (p picture) addBars(drawing *plot.Plot) error {
	if len(p.bars) == 0 {
		return nil
	}
	var values plotter.Values
	var names []string
	for _, one := range p.bars {
		values, names = append(values, one.value), append(names, one.name)
	}
	made, err := plotter.NewBarChart(values, vg.Points(40))
	if err != nil {
		return err
	}
	made.Color, made.LineStyle.Width = colours[0], 0
	drawing.Add(made)
	drawing.NominalX(names...)
	return nil
}

// plainTicks writes numbers as people do.
func plainTicks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for i, tick := range ticks {
		if tick.Label != "" {
			ticks[i].Label = strconv.FormatFloat(tick.Value, 'f', -1, 64)
		}
	}
	return ticks
}

// least is the smallest value of all lines, and 1 at least: a logarithm needs one.
func (p picture) least() float64 {
	least := math.Inf(1)
	for _, one := range p.lines {
		for _, point := range one.points {
			least = min(least, point.Y)
		}
	}
	if math.IsInf(least, 1) {
		return 1
	}
	return max(1, least)
}

func (p picture) addMarks(drawing *plot.Plot) error {
	top := drawing.Y.Max * 1.12
	for _, one := range p.marks {
		made, err := plotter.NewLine(plotter.XYs{{X: one.x, Y: drawing.Y.Min}, {X: one.x, Y: top}})
		if err != nil {
			return err
		}
		made.Color, made.Dashes = color.RGBA{90, 90, 90, 255}, []vg.Length{vg.Points(2), vg.Points(2)}
		labels, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: one.x, Y: top}}, Labels: []string{" " + one.name}})
		if err != nil {
			return err
		}
		labels.TextStyle[0].Font = font.From(plot.DefaultFont, vg.Points(10))
		labels.Offset.Y = -vg.Points(10)
		drawing.Add(made, labels)
	}
	return nil
}

// perSecond counts the samples of each second.
func perSecond(samples []sample, wanted func(sample) bool) (points plotter.XYs) {
	counts := map[int]int{}
	last := 0
	for _, one := range samples {
		second := int(one.at.Seconds())
		last = max(last, second)
		if wanted(one) {
			counts[second]++
		}
	}
	for second := range last { // the last one is not whole
		points = append(points, plotter.XY{X: float64(second), Y: float64(counts[second])})
	}
	return points
}

// quantile is that part of the durations, in milliseconds; they have to be sorted.
func quantile(sorted []float64, part float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

// distribution is the curve of how many calls took at most so long: every hundredth of them.
func distribution(sorted []float64) (points plotter.XYs) {
	for percent := range 100 {
		if value := quantile(sorted, float64(percent)/100); !math.IsNaN(value) {
			points = append(points, plotter.XY{X: float64(percent), Y: max(1, value)})
		}
	}
	return points
}

// TestPictures: every kind of plot is drawn, as the XML that a page shows.
func TestPictures(t *testing.T) {
	points := plotter.XYs{{X: 0, Y: 1}, {X: 5, Y: 400}, {X: 10, Y: 900}}
	for _, one := range []picture{
		{title: "lines", x: "second", y: "answers", lines: []line{{"one", points}, {"two", points[:2]}}, marks: []mark{{"killed", 4}}},
		{title: "curves", x: "percent", y: "ms", lines: []line{{"one", points}}, logarithmic: true},
		{title: "bars", x: "replicas", y: "a second", bars: []bar{{"1", 3}, {"2", 6}}},
	} {
		drawn, err := one.svg()
		if err != nil {
			t.Errorf("%s: %v", one.title, err)
		}
		decoder, elements := xml.NewDecoder(bytes.NewReader(drawn)), 0
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", one.title, err)
			}
			if _, begins := token.(xml.StartElement); begins {
				elements++
			}
		}
		if elements < 20 || !bytes.Contains(drawn, []byte(one.title)) {
			t.Errorf("%s: a drawing of %d elements", one.title, elements)
		}
		if keep := os.Getenv("PICTURES"); keep != "" {
			if err := os.WriteFile(filepath.Join(keep, one.title+".svg"), drawn, 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}
