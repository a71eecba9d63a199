package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// TestLoopbackLimit has a bucket of five, so that a slow machine empties it too.
func TestLoopbackLimit(t *testing.T) {
	l := startLab(t, plan{})
	call := l.dial(l.door, l.outside("h2"))
	limited := func() (count int) {
		for range 50 {
			if _, err := call("hospital.v1.HospitalService/ListHospitals", "", `{}`); err != nil {
				count++
				refused(t, err, codes.ResourceExhausted, "")
			}
		}
		return count
	}
	if count := limited(); count > 0 {
		t.Errorf("the shipped bucket refused %d of 50 calls", count)
	}
	l.apply(edit("EnvoyFilter", "rate-limit", "configPatches", func(patches []any) {
		config := patches[0].(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)["typed_config"].(map[string]any)
		config["token_bucket"] = map[string]any{"max_tokens": int64(5), "tokens_per_fill": int64(5), "fill_interval": "1s"}
	}))
	l.eventually("a bucket of five does not last for 50 calls", func() error {
		if limited() == 0 {
			return errors.New("all passed")
		}
		return nil
	})
}

// TestLoopbackAffinity books at many dates with two replicas of Hospital and of Screening on one database: all calls
// for a date go to one Hospital, whichever Screening they come from. The binary names the slot in every call, and
// Screening's proxy hashes it: told to take turns instead, the same calls meet both.
func TestLoopbackAffinity(t *testing.T) {
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2}})
	o := l.open("han-river", 40, 1000)
	used, spread := map[string]bool{}, 0
	for day := range 20 {
		at := l.reached(o, day)
		if len(at) != 1 {
			t.Errorf("calls for %s went to %v", o.slots[day], at)
		}
		used[strings.Join(at, " ")] = true
	}
	if len(used) != 2 {
		t.Errorf("dates are spread over %v", used)
	}
	l.apply(set("DestinationRule", "hospital", map[string]any{"simple": "ROUND_ROBIN"}, "trafficPolicy", "loadBalancer"))
	l.eventually("the sidecars take turns", func() error {
		for _, pod := range l.running("screening") {
			text, err := l.page(pod.name, "config_dump?resource=dynamic_active_clusters&name_regex=outbound.*hospital.*")
			if err != nil || strings.Contains(text, "RING_HASH") {
				return errors.Join(err, fmt.Errorf("%s still hashes", pod.name))
			}
		}
		return nil
	})
	for day := 20; day < 40; day++ {
		if len(l.reached(o, day)) == 2 {
			spread++
		}
	}
	if spread < 15 {
		t.Errorf("without a hash only %d of 20 dates met both replicas, so this test would not see one that does not hash", spread)
	}
}

// reached books six times at a date and tells which Hospitals were asked.
func (l *lab) reached(o *opened, day int) (at []string) {
	l.t.Helper()
	before := l.calls()
	call := l.dial(l.door, l.outside("h2"))
	for i := range 6 {
		customer := fmt.Sprintf("c-%d-%d", day, i)
		_, err := call(bookCall, l.sign("customer", customer), fmt.Sprintf(`{"screening": {"customer": "customers/%s", "slot": %q}}`, customer, o.slots[day]))
		if err != nil {
			l.t.Errorf("a booking at %s: %v", o.slots[day], err)
		}
	}
	for address, calls := range l.calls() {
		if calls != before[address] {
			at = append(at, address)
		}
	}
	slices.Sort(at)
	return at
}

// calls counts what the proxies of Screening have sent to each replica of Hospital.
func (l *lab) calls() map[string]int {
	counted := map[string]int{}
	for _, pod := range l.running("screening") {
		for address, calls := range l.clusters(pod.name, "hospital", "rq_total") {
			counted[address] += number(calls)
		}
	}
	return counted
}

// TestLoopbackHistory shows that the instruments of the experiments see what they are for: the history a booking that
// is lost or that nobody was told of, and the relay before Hospital changes no answer.
func TestLoopbackHistory(t *testing.T) {
	l := startLab(t, plan{interposed: true})
	at := l.open("han-river", 3, 1)
	calls := l.newTraffic(at)
	c := &caller{traffic: calls, number: 1, client: l.connect(l.door, l.outside("h2"))}
	for range 3 {
		c.book()
	}
	c.cancel()
	if agreed, err := calls.compare(); err != nil || len(calls.history.active) != 2 {
		t.Fatalf("two of three bookings are left: %s %v", agreed, err)
	}
	_, err := l.connect(l.door, l.outside("h2")).call(t.Context(), bookCall, l.sign("customer", "late"), fmt.Sprintf(`{"screening": {"customer": "customers/late", "slot": %q}}`, c.mine[0].slot))
	refused(t, err, codes.FailedPrecondition, "SLOT_FULL")
	if seen := l.running("hospital")[0].relay.seen.Load(); seen < 4 {
		t.Errorf("the relay saw %d calls", seen)
	}
	forgotten := c.mine[0]
	delete(calls.history.active, forgotten.name)
	if _, err := calls.compare(); err == nil || !strings.Contains(err.Error(), "nobody was told") {
		t.Errorf("a booking that nobody was told of: %v", err)
	}
	calls.history.active[forgotten.name], calls.history.active["screenings/none"] = forgotten, forgotten
	if _, err := calls.compare(); err == nil || !strings.Contains(err.Error(), "answered CONFIRMED and is not") {
		t.Errorf("a booking that was lost: %v", err)
	}
}
