package mesh

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// report is what one experiment has to say: a section of docs/measurements/operations.md and its plots, written by
// whoever measured it.
type report struct {
	t        *testing.T
	name     string
	title    string
	short    bool
	machine  string
	text     []string
	head     []string
	rows     [][]string
	pictures []picture
}

// The sections in their order.
var experiments = []string{"breaker", "ejection", "scale", "redeploy", "configuration", "fallback"}

const operationsHead = `# Operations

Written by ` + "`make experiment`" + `; do not edit. Each section is what one run of ` + "`make experiment NAME=…`" + ` measured, on one machine that callers,
services, databases, broker and an Envoy beside every process shared: trust what the rows of a table say of each other, and absolute figures
less. The mesh is the shipped one: Istio's own control plane hands the manifests of ` + "`istio/`" + ` to real Envoys with mutual TLS, processes run
with the ConfigMap and the probes of ` + "`k8s/base`" + `, on PostgreSQL and JetStream. Kubelet and Deployment controller are played by the harness
(` + "`istio/test`" + ` says how); nothing here was measured on a cluster.

` + "`agreement`" + `: after the calls, what callers were told is held to what the services say, booking by booking, and ` + "`checkup verify`" + ` reads all of
them. Callers are closed loops through the gateway: gRPC over TLS, each with its own token and a request_id in every booking.
`

// experiment begins a report, where the command asked for this one.
func experiment(t *testing.T, name, title string) *report {
	if chosen := os.Getenv("EXPERIMENT"); chosen != name && chosen != "all" {
		t.Skipf("make experiment NAME=%s runs it", name)
	}
	load := "?"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	version, err := exec.Command(tool(t, "CHECKUP"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return &report{t: t, name: name, title: title, short: os.Getenv("SHORT") != "", machine: fmt.Sprintf(
		"%s, %d cores, load average %s before it began; %s.", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), load, strings.TrimSpace(string(version)))}
}

// pick is one size of an experiment, or that of a trial.
func pick[T any](r *report, full, short T) T {
	if r.short {
		return short
	}
	return full
}

func (r *report) say(form string, values ...any) {
	r.text = append(r.text, fmt.Sprintf(form, values...))
}

func (r *report) row(cells ...string) { r.rows = append(r.rows, cells) }

// agreement compares, and makes the test fail where something does not agree.
func (r *report) agreement(load *traffic) string {
	agreed, err := load.compare()
	if err != nil {
		r.t.Errorf("what callers were told: %v", err)
		return "**not equal**: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	r.t.Log(agreed)
	return "equal: " + agreed
}

// write puts the section into the document, beside those of other experiments, whatever became of the test.
func (r *report) write() {
	document := os.Getenv("OPERATIONS")
	if document == "" {
		r.t.Fatal("OPERATIONS names no document")
	}
	stem := strings.TrimSuffix(filepath.Base(document), ".md")
	section := fmt.Sprintf("## %d. %s\n\n", slices.Index(experiments, r.name)+1, r.title)
	section += strings.Join(r.text, "\n\n") + "\n\n" + table(r.head, r.rows) + "\n"
	for _, picture := range r.pictures {
		drawn, err := picture.svg()
		if err != nil {
			r.t.Fatal(err)
		}
		file := fmt.Sprintf("%s-%s-%s.svg", stem, r.name, picture.name)
		if err := os.WriteFile(filepath.Join(filepath.Dir(document), file), drawn, 0o644); err != nil {
			r.t.Fatal(err)
		}
		section += fmt.Sprintf("![%s](%s)\n", picture.title, file)
	}
	section += "\n" + r.machine
	if r.short {
		section += " A trial with small sizes."
	}
	if r.t.Failed() {
		section += " **Not everything held: see above.**"
	}
	r.t.Logf("\n%s", section)
	before, err := os.ReadFile(document)
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	whole := operationsHead
	for _, name := range experiments {
		begin, end := "<!-- "+name+" -->\n", "\n<!-- end of "+name+" -->\n"
		if name == r.name {
			whole += "\n" + begin + section + end
		} else if old := regexp.MustCompile("(?s)" + regexp.QuoteMeta(begin) + ".*?" + regexp.QuoteMeta(end)).Find(before); old != nil {
			whole += "\n" + string(old)
		}
	}
	if err := os.WriteFile(document, []byte(whole), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func table(head []string, rows [][]string) string {
	if len(rows) == 0 {
		return ""
	}
	text := "| " + strings.Join(head, " | ") + " |\n|---|" + strings.Repeat("--:|", len(head)-1) + "\n"
	for _, row := range rows {
		text += "| " + strings.Join(row, " | ") + " |\n"
	}
	return text
}

// figures are what a table says of some answers.
type figures struct {
	calls, fine int
	took        []float64 // of those that were fine, sorted, in milliseconds
	refusals    []float64 // of the others
	failures    map[string]int
}

func figure(samples []sample, wanted func(sample) bool) figures {
	made := figures{failures: map[string]int{}}
	for _, one := range samples {
		if wanted != nil && !wanted(one) {
			continue
		}
		made.calls++
		milliseconds := float64(one.took.Microseconds()) / 1000
		if one.code == codes.OK {
			made.fine++
			made.took = append(made.took, milliseconds)
			continue
		}
		made.refusals = append(made.refusals, milliseconds)
		made.failures[strings.TrimSpace(one.what+" "+one.code.String()+" "+one.reason)]++
	}
	slices.Sort(made.took)
	slices.Sort(made.refusals)
	return made
}

// available is the share of answers that were what was asked for. It is never rounded up to all of them.
func (f figures) available() string {
	if f.fine == f.calls {
		return "100.00 %"
	}
	hundredths := int(float64(f.fine) * 10_000 / float64(f.calls))
	return fmt.Sprintf("%d.%02d %%", hundredths/100, hundredths%100)
}

func (f figures) failed() string {
	if len(f.failures) == 0 {
		return "none"
	}
	var all []string
	for what, count := range f.failures {
		all = append(all, fmt.Sprintf("%s %s", thousands(count), what))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// aSecond is how many of so many there were each second.
func aSecond(count int, length time.Duration) string {
	return thousands(int(float64(count) / length.Seconds()))
}

func milliseconds(value float64) string {
	if value != value {
		return "–"
	}
	return fmt.Sprintf("%s ms", thousands(int(value+0.5)))
}
