package mesh

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestExperimentFallback: Hospital is gone for a while, and callers accept PENDING.
func TestExperimentFallback(t *testing.T) {
	r := experiment(t, "fallback", "The fallback")
	defer r.write()
	callers, pause, gone := 40, 200*time.Millisecond, pick(r, 30*time.Second, 6*time.Second)
	before, after := pick(r, 8*time.Second, 3*time.Second), pick(r, 8*time.Second, 3*time.Second)
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2}})
	at := l.open("han-river", 300, 100_000)
	load := l.newTraffic(at)
	load.acceptPending = true
	var left, back, allReady time.Duration
	load.runUntil(callers, pause, func(stop chan<- struct{}) {
		defer close(stop)
		time.Sleep(before)
		for _, pod := range l.running("hospital") {
			pod.kill()
		}
		left = time.Since(load.began)
		time.Sleep(gone)
		back = time.Since(load.began)
		if err := l.revive("hospital"); err != nil {
			t.Error(err)
		}
		allReady = time.Since(load.began)
		time.Sleep(after)
	}, (*caller).book)
	settled, err := load.pending(back)
	if err != nil {
		t.Error(err)
	}

	samples := load.seen()
	r.say("%d callers book, with a pause of %s after each answer and `accept_pending`. After %s both replicas of Hospital are killed; they start again %s "+
		"later. Every answer has to be CONFIRMED or PENDING, and every PENDING booking has to end.", callers, pause, before, gone)
	r.say("Both replicas were ready %.1f s after they were started; the last of %s PENDING bookings was settled %.1f s after that start: %s CONFIRMED, %s REJECTED.",
		(allReady - back).Seconds(), thousands(settled.pending), settled.took.Seconds(), thousands(settled.confirmed), thousands(settled.rejected))
	r.head = []string{"Hospital", "answers", "CONFIRMED", "PENDING", "anything else", "p50", "p99"}
	for _, phase := range []struct {
		name     string
		from, to time.Duration
	}{{"there", 0, left}, {"gone", left, back}, {"back", back, time.Hour}} {
		during := func(one sample) bool { return one.at >= phase.from && one.at < phase.to }
		f := figure(samples, during)
		state := func(state string) int {
			return figure(samples, func(one sample) bool { return during(one) && one.state == state }).calls
		}
		r.row(phase.name, thousands(f.calls), thousands(state("CONFIRMED")), thousands(state("PENDING")), f.failed(),
			milliseconds(quantile(f.took, 0.5)), milliseconds(quantile(f.took, 0.99)))
		if f.fine != f.calls {
			t.Errorf("while Hospital was %s: %s", phase.name, f.failed())
		}
	}
	r.say("Agreement: %s.", r.agreement(load))
	r.pictures = append(r.pictures, picture{
		name: "answers", title: "Answers a second", x: "second", y: "answers",
		marks: []mark{{"Hospital killed", left.Seconds()}, {"started", back.Seconds()}},
		lines: []line{
			{"CONFIRMED", perSecond(samples, func(one sample) bool { return one.state == "CONFIRMED" })},
			{"PENDING", perSecond(samples, func(one sample) bool { return one.state == "PENDING" })},
			{"refused or failed", perSecond(samples, func(one sample) bool { return one.code != codes.OK })},
		},
	})
}

// revive starts the processes of pods that have crashed, as the kubelet does, and waits until they are ready.
func (l *lab) revive(service string) error {
	for _, pod := range l.running(service) {
		if err := pod.run(pod.version); err != nil {
			return err
		}
	}
	for _, pod := range l.running(service) {
		if err := pod.becomesReady(); err != nil {
			return err
		}
	}
	return nil
}

// settlement is what became of PENDING bookings.
type settlement struct {
	pending, confirmed, rejected int
	took                         time.Duration
}

// pending waits until no booking is PENDING, and holds each that was answered so to what it is then.
func (l *traffic) pending(since time.Duration) (settlement, error) {
	made := settlement{pending: len(l.history.waiting)}
	if made.pending == 0 {
		return made, fmt.Errorf("nobody was answered PENDING, so nothing was tried")
	}
	err := within(2*time.Minute, func() error {
		left, err := l.list("PENDING")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d bookings are PENDING", len(left))
		}
		return err
	})
	made.took = time.Since(l.began) - since
	if err != nil {
		return made, err
	}
	confirmed, err := l.list("CONFIRMED")
	if err != nil {
		return made, err
	}
	rejected, err := l.list("REJECTED")
	if err != nil {
		return made, err
	}
	for name, one := range l.history.waiting {
		switch {
		case confirmed[name]:
			made.confirmed++
			l.history.active[name] = one
		case rejected[name]:
			made.rejected++
		default:
			return made, fmt.Errorf("%s was answered PENDING and is neither CONFIRMED nor REJECTED", name)
		}
	}
	return made, nil
}
