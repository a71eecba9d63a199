package mesh

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestExperimentScale: the same load on one, two and three replicas of Hospital, with the breaker and mutual TLS as
// shipped.
func TestExperimentScale(t *testing.T) {
	r := experiment(t, "scale", "Scale")
	defer r.write()
	callers, length := 60, pick(r, 20*time.Second, 5*time.Second)
	busy := manner{delay: 200 * time.Millisecond, spread: 110 * time.Millisecond, workers: 10}
	l := startLab(t, plan{replicas: map[string]int{"screening": 2}, spare: 2, interposed: true})
	at := l.open("han-river", 300, 100_000)
	r.say("%d callers book for %s with one, two and three replicas of Hospital; breakers, ejection and mutual TLS as shipped. Two cores cannot give "+
		"three replicas one each, so what a replica can do is bounded otherwise: it works on %d calls at a time, each for %s ± %s, which is %d a second.",
		callers, length, busy.workers, busy.delay, busy.spread, int(float64(busy.workers)/busy.delay.Seconds()))
	r.head = []string{"replicas", "bookings a second", "of one replica's", "availability", "p50", "p99", "calls of each replica", "refused by breakers", "TLS handshakes with Hospital so far", "agreement"}

	history, first := newHistory(), 0.0
	rates := picture{name: "rate", title: "Bookings a second", x: "replicas of Hospital", y: "bookings a second"}
	for replicas := 1; replicas <= 3; replicas++ {
		if replicas > 1 {
			l.grow("hospital")
		}
		l.balanced("hospital", replicas)
		var before []int64
		for _, pod := range l.running("hospital") {
			pod.relay.behave(busy)
			before = append(before, pod.relay.seen.Load())
		}
		overflown := l.counted("upstream_rq_(active|pending)_overflow", "screening", "hospital")
		load := l.newTraffic(at)
		load.history = history
		load.run(callers, 0, length, (*caller).book)
		f := figure(load.seen(), nil)
		var shares []string
		for i, pod := range l.running("hospital") {
			shares = append(shares, thousands(int(pod.relay.seen.Load()-before[i])))
		}
		rate := float64(f.fine) / length.Seconds()
		if replicas == 1 {
			first = rate
		}
		handshakes := l.counted("cluster.outbound.*hospital.*ssl.handshake", "screening")
		if handshakes == 0 {
			t.Error("Screening's proxies have spoken to Hospital's without TLS")
		}
		r.row(fmt.Sprint(replicas), fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.2f×", rate/first), f.available(), milliseconds(quantile(f.took, 0.5)),
			milliseconds(quantile(f.took, 0.99)), strings.Join(shares, ", "),
			thousands(l.counted("upstream_rq_(active|pending)_overflow", "screening", "hospital")-overflown), thousands(handshakes), r.agreement(load))
		rates.bars = append(rates.bars, bar{fmt.Sprint(replicas), rate})
		t.Logf("%d: %s", replicas, f.failed())
		if replicas > 1 && rate < 1.3*first {
			t.Errorf("%d replicas did %.0f bookings a second, and one did %.0f", replicas, rate, first)
		}
	}
	r.pictures = append(r.pictures, rates)
}

// grow starts one more replica and waits until it is available.
func (l *lab) grow(service string) {
	l.t.Helper()
	pod, err := l.free(service)
	if err == nil {
		err = errors.Join(pod.start(l.kubernetes), pod.becomesReady())
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// balanced waits until the callers of Hospital know so many replicas.
func (l *lab) balanced(service string, replicas int) {
	l.t.Helper()
	l.eventually(fmt.Sprintf("%d replicas of %s", replicas, service), func() error {
		for _, pod := range l.running("screening") {
			if known := l.clusters(pod.name, service, "rq_total"); len(known) != replicas {
				return fmt.Errorf("%s knows %v", pod.name, known)
			}
		}
		return nil
	})
}
