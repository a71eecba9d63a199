package mesh

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gonum.org/v1/plot/plotter"
)

// TestExperimentEjection: one of three replicas of Hospital answers UNAVAILABLE for a while.
func TestExperimentEjection(t *testing.T) {
	r := experiment(t, "ejection", "Ejection")
	defer r.write()
	callers, pause := 10, 20*time.Millisecond
	before, ill, after := pick(r, 8*time.Second, 3*time.Second), pick(r, 8*time.Second, 3*time.Second), pick(r, 8*time.Second, 2*time.Second)
	l := startLab(t, plan{replicas: map[string]int{"hospital": 3, "screening": 2}, interposed: true})
	load, raised := l.newTraffic(l.open("han-river", 300, 100_000)), l.open("raised", 1, 100)
	watch := l.watch()
	patient := l.running("hospital")[1]

	var fell, healed, returned time.Duration
	raisers := load.raise(raised)
	load.runUntil(2*callers, pause, func(stop chan<- struct{}) {
		defer close(stop)
		time.Sleep(before)
		fell = time.Since(load.began)
		patient.relay.ill.Store(true)
		time.Sleep(ill)
		patient.relay.ill.Store(false)
		healed = time.Since(load.began)
		seen := patient.relay.seen.Load()
		if err := within(time.Minute, func() error {
			if patient.relay.seen.Load() == seen {
				return fmt.Errorf("%s gets no calls since it is well again", patient.name)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		returned = time.Since(load.began)
		time.Sleep(after)
	}, func(c *caller) {
		if c.number%2 == 0 {
			c.book()
		} else {
			raisers(c)
		}
	})
	watch.stop()
	last := time.Unix(0, patient.relay.lastRefusal.Load()).Sub(load.began)

	r.say("%d callers book and %d admins add places to a slot, each with a pause of %s, on three replicas of Hospital, of which one answers UNAVAILABLE "+
		"for %s. Adding places is a write that no proxy repeats, so its callers see what a replica answers; taking a place is repeated at another replica. "+
		"The rule is the shipped one: 5 in a row, 15 s.", callers, callers, pause, ill)
	r.say("The ill replica answered %s calls before every proxy had left it alone, the last %d ms after its first; it was well for %.1f s when the first call came back to it.",
		thousands(int(patient.relay.refused.Load())), (last - fell).Milliseconds(), (returned - healed).Seconds())
	r.say("How long each proxy left it alone: %s.", watch.times())
	samples := load.seen()
	r.head = []string{"the replica is", "writes", "failing", "bookings", "failing", "p99 of bookings"}
	for _, phase := range []struct {
		name     string
		from, to time.Duration
	}{{"well", 0, fell}, {"ill, until the last call it got", fell, last + 50*time.Millisecond}, {"left alone", last + 50*time.Millisecond, returned}, {"back", returned, time.Hour}} {
		of := func(what string) figures {
			return figure(samples, func(one sample) bool { return one.what == what && one.at >= phase.from && one.at < phase.to })
		}
		writes, bookings := of("raise"), of("book")
		r.row(phase.name, thousands(writes.calls), thousands(writes.calls-writes.fine), thousands(bookings.calls), thousands(bookings.calls-bookings.fine),
			milliseconds(quantile(bookings.took, 0.99)))
		if failed := writes.calls - writes.fine + bookings.calls - bookings.fine; failed > 0 && phase.name != "ill, until the last call it got" {
			t.Errorf("%s: %s, %s", phase.name, writes.failed(), bookings.failed())
		}
	}
	if patient.relay.refused.Load() < 5 {
		t.Errorf("the ill replica was asked only %d times, so nothing was tried", patient.relay.refused.Load())
	}
	r.say("Agreement: %s; %s.", r.agreement(load), load.raisedAsTold(r, raised))
	r.pictures = append(r.pictures, picture{
		name: "calls", title: "Calls of each replica of Hospital", x: "second", y: "calls a second", lines: watch.lines,
		marks: []mark{{"ill", fell.Seconds()}, {"well", healed.Seconds()}, {"called again", returned.Seconds()}},
	})
}

// raise is what an admin does: adds a place to a slot, by a call that no proxy repeats.
func (l *traffic) raise(at *opened) func(*caller) {
	admin := l.lab.sign("admin", "lee")
	return func(c *caller) {
		request := newRequest()
		l.history.mu.Lock()
		l.history.raised = append(l.history.raised, request)
		l.history.mu.Unlock()
		_, _ = c.call("raise", "hospital.v1.HospitalService/SetSlotCapacity", admin, raiseBody(at, request))
	}
}

func raiseBody(at *opened, request string) string {
	return fmt.Sprintf(`{"name": %q, "delta": 1, "requestId": %q}`, at.slots[0], request)
}

// raisedAsTold repeats every request, which adds nothing where it was carried out, and counts the places.
func (l *traffic) raisedAsTold(r *report, at *opened) string {
	admin, client := l.lab.sign("admin", "lee"), l.lab.connect(l.lab.door, l.lab.outside("h2"))
	for _, request := range l.history.raised {
		if err := l.insist(func(ctx context.Context) error {
			_, err := client.call(ctx, "hospital.v1.HospitalService/SetSlotCapacity", admin, raiseBody(at, request))
			return err
		}); err != nil {
			r.t.Errorf("a write asked for again: %v", err)
			return "**a write cannot be settled**"
		}
	}
	answer, err := client.call(r.t.Context(), getSlotCall, "", fmt.Sprintf(`{"name": %q}`, at.slots[0]))
	if err != nil {
		r.t.Error(err)
		return "**the slot cannot be read**"
	}
	if wanted := fmt.Sprint(100 + len(l.history.raised)); textOf(answer, "capacity") != wanted {
		r.t.Errorf("the slot has %s places instead of %s", textOf(answer, "capacity"), wanted)
	}
	return fmt.Sprintf("the slot has %s places, 100 and one for each of %s writes, all asked for again", textOf(answer, "capacity"), thousands(len(l.history.raised)))
}

// watch follows how many calls each replica of Hospital gets, and for how long each proxy that calls them has ejected
// one.
type watch struct {
	over    atomic.Bool
	done    chan struct{}
	lines   []line
	ejected map[string][2]time.Time // by proxy: since when, until when
}

func (l *lab) watch() *watch {
	made := &watch{done: make(chan struct{}), ejected: map[string][2]time.Time{}}
	proxies, pods := l.callersOfHospital(), l.running("hospital")
	for _, pod := range pods {
		made.lines = append(made.lines, line{name: pod.name})
	}
	go func() {
		defer close(made.done)
		began, looked, before := time.Now(), time.Now(), make([]int64, len(pods))
		for ; !made.over.Load(); time.Sleep(100 * time.Millisecond) {
			made.eject(l, proxies)
			passed := time.Since(looked)
			if passed < time.Second {
				continue
			}
			looked = time.Now()
			for i, pod := range pods {
				seen := pod.relay.seen.Load()
				made.lines[i].points = append(made.lines[i].points,
					plotter.XY{X: looked.Sub(began).Seconds() - passed.Seconds()/2, Y: float64(seen-before[i]) / passed.Seconds()})
				before[i] = seen
			}
		}
	}()
	return made
}

// eject looks which proxies have ejected a replica.
func (w *watch) eject(l *lab, proxies []string) {
	for _, proxy := range proxies {
		is, was := total(l.stats(proxy, "cluster.outbound.*hospital.*ejections_active")) > 0, w.ejected[proxy]
		switch {
		case is && was[0].IsZero():
			w.ejected[proxy] = [2]time.Time{time.Now(), {}}
		case !is && !was[0].IsZero() && was[1].IsZero():
			w.ejected[proxy] = [2]time.Time{was[0], time.Now()}
		}
	}
}

func (w *watch) stop() {
	w.over.Store(true)
	<-w.done
}

// times says for how long each proxy had ejected one, looked at ten times a second.
func (w *watch) times() string {
	text := ""
	for _, proxy := range slices.Sorted(maps.Keys(w.ejected)) {
		span := w.ejected[proxy]
		if text != "" {
			text += ", "
		}
		if span[1].IsZero() {
			text += proxy + " to the end"
			continue
		}
		text += fmt.Sprintf("%s %.1f s", proxy, span[1].Sub(span[0]).Seconds())
	}
	return text
}
