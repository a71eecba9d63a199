package mesh

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// A load that calls every service, heavy enough for ten thousand calls within the time that a rollout takes.
const (
	visitors     = 40
	visitorPause = 80 * time.Millisecond
)

// rollout replaces the pods of services under load, and says what callers saw of it.
type rollout struct {
	figures
	samples []sample
	took    time.Duration
	times   int
	load    *traffic
}

// rolled rolls services from one version to another, all at once as `kubectl apply` does, and again until there were so
// many calls.
func (l *lab) rolled(at *opened, history *history, to *kubernetes, names []string, calls int) (*rollout, error) {
	made := &rollout{load: l.newTraffic(at)}
	made.load.history = history
	var failed error
	made.load.runUntil(visitors, visitorPause, func(stop chan<- struct{}) {
		defer close(stop)
		for begun := time.Now(); failed == nil && (made.times == 0 || len(made.load.seen()) < calls); {
			failed = l.rollAll(names, to)
			made.times++
			made.took = time.Since(begun)
		}
		time.Sleep(time.Second) // what the last one that went did to its callers is seen too
	}, (*caller).visit)
	made.samples = made.load.seen()
	made.figures = figure(made.samples, nil)
	return made, failed
}

func (l *lab) rollAll(names []string, to *kubernetes) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			if err := l.roll(name, to); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// version is k8s/base with another configuration.
func version(t *testing.T, change func(string) string) *kubernetes {
	t.Helper()
	made, err := readKubernetes(change)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// with sets a key of the configuration file that is there already.
func with(key, value string) func(string) string {
	return func(config string) string {
		lines := strings.Split(config, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, key+" = ") {
				lines[i] = fmt.Sprintf("%s = %q", key, value)
				return strings.Join(lines, "\n")
			}
		}
		panic("checkup.toml has no " + key)
	}
}

// TestExperimentRedeploy rolls every service under load, and then shows that the measurement sees what readiness and
// drain are for.
func TestExperimentRedeploy(t *testing.T) {
	r := experiment(t, "redeploy", "Redeploy")
	defer r.write()
	calls := pick(r, 10_000, 1_000)
	const slow = 3 * time.Second
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2, "reservation": 2, "mypage": 2, "marketing": 2}, spare: 2, unhurried: true})
	at, history := l.open("han-river", 300, 100_000), newHistory()
	next := version(t, func(config string) string { return config + "\n# the next version\n" })
	unready := version(t, func(config string) string {
		return with("drain_delay", "0s")(with("drain_timeout", "0s")(config))
	})
	next.slow, unready.slow = slow, slow
	for name, workload := range unready.workloads {
		workload.startup, workload.readiness, workload.minReady = probeSpec{}, probeSpec{}, 0
		unready.workloads[name] = workload
	}
	r.say("Two replicas of each service. Every pod is replaced while %d callers book, cancel and read at all five services: by k8s/base's strategy (a new "+
		"pod is ready for minReadySeconds before an old one goes; my-page goes first and comes again on its volume), its probes, its drain and its grace. "+
		"Availability: the share of answers that were what was asked for; any error counts against it. New containers take %s longer to start than they would. The last two rows break the rollout on purpose.", visitors, slow)
	r.head = []string{"rolled", "seconds", "calls", "failing", "availability", "what failed", "agreement"}
	for _, step := range []struct {
		name     string
		to       *kubernetes
		services []string
		calls    int
		whole    bool
	}{
		{"every service, as shipped", next, services, calls, true},
		{"Hospital and Screening, new pods without probes", unready, []string{"hospital", "screening"}, 0, false},
		{"the same, old pods without a drain", next, []string{"hospital", "screening"}, 0, false},
	} {
		made, err := l.rolled(at, history, step.to, step.services, step.calls)
		if err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		name := step.name
		if made.times > 1 {
			name += fmt.Sprintf(", %d times", made.times)
		}
		r.row(name, fmt.Sprintf("%.0f", made.took.Seconds()), thousands(made.calls), thousands(made.calls-made.fine), made.available(), made.failed(), r.agreement(made.load))
		if whole := made.fine == made.calls && made.calls >= step.calls; whole != step.whole {
			t.Errorf("%s: %s of %d calls: %s", step.name, made.available(), made.calls, made.failed())
		}
		r.pictures = append(r.pictures, made.picture(fmt.Sprintf("rollout-%d", len(r.pictures)+1), step.name))
	}
}

func (r *rollout) picture(name, title string) picture {
	return picture{name: name, title: "Answers a second: " + title, x: "second", y: "answers", lines: []line{
		{"as asked for", perSecond(r.samples, func(one sample) bool { return one.code == codes.OK })},
		{"errors", perSecond(r.samples, func(one sample) bool { return one.code != codes.OK })},
	}}
}
