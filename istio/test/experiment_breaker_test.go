package mesh

import (
	"fmt"
	"time"

	"testing"
)

// TestExperimentBreaker: what a breaker does to a hundred callers while Hospital is slow.
func TestExperimentBreaker(t *testing.T) {
	r := experiment(t, "breaker", "Breaker")
	defer r.write()
	callers, length := 100, pick(r, 60*time.Second, 6*time.Second)
	slow := manner{delay: 400 * time.Millisecond, spread: 220 * time.Millisecond}
	const tight = 10
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2}, interposed: true})
	at := l.open("han-river", 300, 100_000)
	for _, pod := range l.running("hospital") {
		pod.relay.behave(slow)
	}
	r.say("%d callers book for %s while each call of Hospital takes %s ± %s longer, with two replicas of Hospital and of Screening. Availability: the "+
		"share of answers that are a booking. Overflow: calls that a proxy refused by itself. Each proxy of Screening lets through what its rule says, so "+
		"the tight one lets %d calls be under way from both.", callers, length, slow.delay, slow.spread, 2*tight)
	r.head = []string{"rule", "bookings", "a second", "answers a second", "availability", "p50 of bookings", "p99", "p50 of refusals", "overflow", "ejections", "agreement"}

	history := newHistory()
	latencies := picture{name: "latency", title: "How long bookings took", x: "percent of bookings", y: "milliseconds at most", logarithmic: true}
	availability := picture{name: "rate", title: "Bookings a second", x: "second", y: "bookings"}
	for _, rule := range []struct {
		name   string
		limit  string
		change func(*Manifests)
	}{
		{"none", "4294967295", func(m *Manifests) {
			remove("DestinationRule", "hospital")(m)
			unset("Sidecar", "hospital", "inboundConnectionPool")(m)
		}},
		{fmt.Sprintf("tight: http2MaxRequests %d", tight), fmt.Sprint(tight), func(m *Manifests) {
			set("DestinationRule", "hospital", int64(tight), "trafficPolicy", "connectionPool", "http", "http2MaxRequests")(m)
		}},
		{"shipped: http2MaxRequests 1024", "1024", func(*Manifests) {}},
	} {
		l.apply(rule.change)
		l.limited(rule.limit)
		const overflow, ejections = "upstream_rq_(active|pending)_overflow", "ejections_enforced_total"
		overflown, ejected := l.counted(overflow, "screening", "hospital"), l.counted(ejections, "gateway", "screening")
		load := l.newTraffic(at)
		load.history = history
		load.run(callers, 0, length, (*caller).book)
		f := figure(load.seen(), nil)
		overflown, ejected = l.counted(overflow, "screening", "hospital")-overflown, l.counted(ejections, "gateway", "screening")-ejected
		l.apply(func(*Manifests) {}) // the rule counts for whoever compares, too
		l.limited("1024")
		r.row(rule.name, thousands(f.fine), aSecond(f.fine, length), aSecond(f.calls, length), f.available(), milliseconds(quantile(f.took, 0.5)),
			milliseconds(quantile(f.took, 0.99)), milliseconds(quantile(f.refusals, 0.5)), thousands(overflown), thousands(ejected), r.agreement(load))
		if f.fine == 0 {
			t.Errorf("%s: nobody got a place", rule.name)
		}
		latencies.lines = append(latencies.lines, line{rule.name, distribution(f.took)})
		availability.lines = append(availability.lines, line{rule.name, perSecond(load.seen(), func(one sample) bool { return one.state == "CONFIRMED" })})
		t.Logf("%s: %s", rule.name, f.failed())
	}
	r.pictures = append(r.pictures, availability, latencies)
}

// limited waits until the proxies that call Hospital have a breaker of that size.
func (l *lab) limited(limit string) {
	l.t.Helper()
	l.eventually("a breaker of "+limit, func() error {
		for _, proxy := range l.callersOfHospital() {
			if got := l.clusters(proxy, "hospital", "max_requests")["default_priority"]; got != limit {
				return fmt.Errorf("%s has %q", proxy, got)
			}
		}
		return nil
	})
}

// callersOfHospital names the proxies that most calls of Hospital go through.
func (l *lab) callersOfHospital() []string {
	proxies := []string{"gateway"}
	for _, pod := range l.running("screening") {
		proxies = append(proxies, pod.name)
	}
	return proxies
}
