package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

// The position in a trace that a caller from outside is at.
const outsidePosition = "00f067aa0ba902b7"

// What a booking's trace is made of, each below the one that it is a consequence of: the proxies at the door and beside
// the services, the services, and the consumers of the booking's event.
var bookingTrace = []struct{ span, below string }{
	{"gateway answers", ""},
	{"gateway calls", "gateway answers"},
	{"screening-0 answers", "gateway calls"},
	{"screening answers checkup.screening.v1.ScreeningService/CreateScreening", "screening-0 answers"},
	{"screening-0 calls", "screening answers"},
	{"hospital-0 answers", "screening-0 calls"},
	{"hospital answers checkup.capacity.v1.CapacityService/ReserveCapacity", "hospital-0 answers"},
	{"reservation consumes reservation-screenings screening_confirmed", "screening answers"},
	{"mypage consumes mypage-screenings screening_confirmed", "screening answers"},
	{"marketing consumes marketing-screening screening_confirmed", "screening answers"},
}

// tree says what is wrong with a trace: what is missing, what hangs elsewhere than it should, and what hangs nowhere.
func tree(spans []span) error {
	byID := map[string]span{}
	for _, one := range spans {
		byID[one.id()] = one
	}
	var wrong []error
	for _, wanted := range bookingTrace {
		found := false
		for _, one := range spans {
			if !strings.HasPrefix(one.String(), wanted.span) {
				continue
			}
			found = true
			above, known := byID[one.parent()]
			if wanted.below == "" && one.parent() != outsidePosition || wanted.below != "" && (!known || !strings.HasPrefix(above.String(), wanted.below)) {
				wrong = append(wrong, fmt.Errorf("%s hangs below %q (%s) instead of %q", one, above, one.parent(), wanted.below))
			}
		}
		if !found {
			wrong = append(wrong, fmt.Errorf("no span %q", wanted.span))
		}
	}
	for _, one := range spans {
		if _, known := byID[one.parent()]; !known && one.parent() != outsidePosition {
			wrong = append(wrong, fmt.Errorf("%s hangs below %s, which nobody sent", one, one.parent()))
		}
	}
	if len(wrong) > 0 {
		wrong = append(wrong, fmt.Errorf("the spans are %q", spans))
	}
	return errors.Join(wrong...)
}

// tracedOf100 sets how many of a hundred calls the gateway has traced.
func tracedOf100(percentage int64) func(*Manifests) {
	return set("Telemetry", "gateway", []any{map[string]any{
		"providers": []any{map[string]any{"name": "otel"}}, "randomSamplingPercentage": percentage}}, "tracing")
}

// bookIn books a place with further headers.
func (l *lab) bookIn(customer, slot string, headers ...string) {
	l.t.Helper()
	_, err := l.connect(l.door, l.outside("h2")).call(metadata.AppendToOutgoingContext(l.t.Context(), headers...), bookCall, l.sign("customer", customer),
		fmt.Sprintf(`{"screening": {"customer": "customers/%s", "slot": %q}}`, customer, slot))
	if err != nil {
		l.t.Fatal(err)
	}
}

// from is the header of a caller who is in a trace, and wants its spans or not.
func from(trace string, sampled bool) string {
	if sampled {
		return "00-" + trace + "-" + outsidePosition + "-01"
	}
	return "00-" + trace + "-" + outsidePosition + "-00"
}

// TestLoopbackTrace follows one booking: what the gateway's proxy, both services' proxies, both services and every
// consumer of the event did for it reaches the collector as one trace, each below what it is a consequence of, and the
// logs of all of them name it. The gateway, and it alone, has the setting to trace every call: what the others do
// follows from that.
func TestLoopbackTrace(t *testing.T) {
	l := startLab(t, plan{
		settings: map[string][]string{"": {"telemetry.filter=info,relay=debug,runtime=debug", "telemetry.format=json"}},
		change:   tracedOf100(100),
	})
	o := l.open("han-river", 3, 10)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	l.bookIn("kim-minji", o.slots[0], "traceparent", from(trace, true))
	l.eventually("one trace", func() error { return errors.Join(tree(l.backend.of(trace)), l.logged(trace)) })
	for _, one := range l.backend.of(trace) {
		t.Logf("%s %s below %s", one.id(), one, one.parent())
	}
	for _, one := range l.backend.all() {
		if strings.Contains(one.Span.String(), "opentelemetry.proto.collector") {
			t.Errorf("the sending of spans is traced: %s", one)
		}
	}
	t.Run("nobody's name is in it", func(t *testing.T) { nameless(t, l) })
	t.Run("a proxy that does not hand it on is seen", func(t *testing.T) { broken(t, l, o.slots[1]) })
}

// nameless calls by paths that name a person, those that no service gets to see included, and looks for the name in the
// spans.
func nameless(t *testing.T, l *lab) {
	const path = "/v1/customers/kim-minji/myPage"
	ask := func(path, trace, token string) {
		l.http("GET", path, map[string]string{"traceparent": from(trace, true), "authorization": "Bearer " + token}, nil)
	}
	token := l.sign("customer", "kim-minji")
	calls := map[string]string{
		path + "s?reason=kim-minji": "1bf92f3577b34da6a3ce929d0e0e4736", path + "?pageSiz=1": "2bf92f3577b34da6a3ce929d0e0e4736",
		path: "3bf92f3577b34da6a3ce929d0e0e4736",
	}
	for path, trace := range calls {
		ask(path, trace, token)
	}
	const refused = "0bf92f3577b34da6a3ce929d0e0e4736"
	ask(path, refused, token[:len(token)-8]+"AAAAAAAA")
	l.eventually("the gateway's spans", func() error {
		var missing []error
		for _, trace := range append(slices.Collect(maps.Values(calls)), refused) {
			if len(l.backend.of(trace)) == 0 {
				missing = append(missing, fmt.Errorf("no span of %s", trace))
			}
		}
		return errors.Join(missing...)
	})
	for _, one := range l.backend.all() {
		if strings.Contains(one.Span.String(), "kim-minji") {
			t.Errorf("%s: %s", one, one.Span)
		}
	}
}

// broken has the sidecars hand no trace on, which the test of the trace has to see.
func broken(t *testing.T, l *lab, slot string) {
	l.apply(edit("Telemetry", "traces", "tracing", func(all []any) { all[0].(map[string]any)["disableContextPropagation"] = true }))
	l.eventually("the sidecar of Screening hands nothing on", func() error {
		text, err := l.page("screening-0", "config_dump?resource=dynamic_listeners")
		if err != nil || !strings.Contains(text, "no_context_propagation") {
			return errors.Join(err, errors.New("it does"))
		}
		return nil
	})
	const trace = "5bf92f3577b34da6a3ce929d0e0e4736"
	l.bookIn("park", slot, "traceparent", from(trace, true))
	const wanted = "screening answers checkup.screening.v1.ScreeningService/CreateScreening hangs below"
	l.eventually("it is seen", func() error {
		if err := tree(l.backend.of(trace)); err == nil || !strings.Contains(err.Error(), wanted) {
			return fmt.Errorf("nobody said %q, but %v", wanted, err)
		}
		return nil
	})
}

// TestLoopbackSampling: the gateway alone decides which calls are traced, and everybody behind it follows. Callers can
// ask for less than it would have, and not for more.
func TestLoopbackSampling(t *testing.T) {
	l := startLab(t, plan{change: tracedOf100(0)})
	o := l.open("han-river", 5, 10)
	const asked, forced, declined, last = "6bf92f3577b34da6a3ce929d0e0e4736", "7bf92f3577b34da6a3ce929d0e0e4736",
		"8bf92f3577b34da6a3ce929d0e0e4736", "9bf92f3577b34da6a3ce929d0e0e4736"
	l.bookIn("kim", o.slots[0], "traceparent", from(asked, true))
	l.bookIn("lee", o.slots[1], "traceparent", from(forced, true), "x-client-trace-id", "please", "x-envoy-force-trace", "1")
	before := len(l.backend.all())
	l.apply(tracedOf100(100))
	l.eventually("the gateway traces every call", func() error {
		text, err := l.page("gateway", "config_dump?resource=dynamic_listeners")
		if err != nil || !strings.Contains(strings.ReplaceAll(text, " ", ""), "\"random_sampling\":{\n\"value\":100") {
			return errors.Join(err, errors.New("it does not"))
		}
		return nil
	})
	l.bookIn("park", o.slots[2], "traceparent", from(declined, false))
	// The last one's spans come after what there is of the others.
	l.bookIn("choi", o.slots[3], "traceparent", from(last, true))
	l.eventually("the last trace", func() error { return tree(l.backend.of(last)) })
	for what, trace := range map[string]string{"asks": asked, "insists": forced, "declines": declined} {
		if spans := l.backend.of(trace); len(spans) > 0 {
			t.Errorf("a caller who %s got %q", what, spans)
		}
	}
	if before > 0 {
		t.Errorf("%d spans although the gateway wants none: %q", before, l.backend.all()[:before])
	}
}

// logged says whose log does not name a trace: the services that were called, and the consumers that applied the event.
func (l *lab) logged(trace string) error {
	var missing []error
	for service, part := range map[string]string{
		"screening": "CreateScreening", "hospital": "ReserveCapacity", "reservation": "event applied", "mypage": "event applied", "marketing": "event applied",
	} {
		text, err := os.ReadFile(l.running(service)[0].process.log)
		if err != nil {
			return err
		}
		found := false
		for line := range strings.Lines(string(text)) {
			found = found || (json.Valid([]byte(line)) && strings.Contains(line, trace) && strings.Contains(line, part))
		}
		if !found {
			missing = append(missing, fmt.Errorf("no line of %s says %q in the trace", service, part))
		}
	}
	return errors.Join(missing...)
}
