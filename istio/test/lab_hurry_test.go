package mesh

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// hurriedCalls is how often one customer calls with deadlines of 1 to 25 ms.
const hurriedCalls = 10_000

// TestLoopbackHurry: one customer's deadlines have no replica taken away from anybody. Half of the calls are given up by the client, which
// resets them; the others are waited for whatever their deadline is, so that the answer of the service or of a proxy is what counts.
func TestLoopbackHurry(t *testing.T) {
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2}})
	// The one place is taken, so every call that has the time goes all the way to Hospital.
	load, hurried := l.newTraffic(l.open("han-river", 60, 100_000)), l.open("hurried", 1, 1)
	token := l.sign("customer", "hurried")
	taken := fmt.Sprintf(`{"screening": {"customer": "customers/first", "slot": %q}}`, hurried.slots[0])
	if _, err := l.dial(l.door, l.outside("h2"))(bookCall, l.sign("customer", "first"), taken); err != nil {
		t.Fatal(err)
	}
	const counters = "ejections_enforced_total|ejections_detected"
	proxies := []string{"gateway", "screening", "hospital"}
	before := map[string]int{}
	for _, proxy := range proxies {
		before[proxy] = l.counted(counters, proxy)
	}
	body := func() string {
		return fmt.Sprintf(`{"screening": {"customer": "customers/hurried", "slot": %q}, "requestId": %q}`, hurried.slots[0], newRequest())
	}
	var late atomic.Int64
	load.runUntil(10, 20*time.Millisecond, func(stop chan<- struct{}) {
		defer close(stop)
		var group sync.WaitGroup
		const workers = 32
		for worker := range workers {
			resets, waits := l.connect(l.door, l.outside("h2")), &http.Client{Transport: &http.Transport{TLSClientConfig: l.outside("h2"), ForceAttemptHTTP2: true}, Timeout: 20 * time.Second}
			group.Go(func() {
				for i := worker; i < hurriedCalls; i += workers {
					deadline := time.Duration(1+i%25) * time.Millisecond
					if i%2 == 0 {
						ctx, cancel := context.WithTimeout(context.Background(), deadline)
						if _, err := resets.call(ctx, bookCall, token, body()); err != nil {
							late.Add(1)
						}
						cancel()
					} else if l.waitWhatever(waits, token, l.message("checkup.screening.v1.CreateScreeningRequest", body()), deadline) != "0" {
						late.Add(1)
					}
				}
			})
		}
		group.Wait()
	}, (*caller).visit)
	for _, proxy := range proxies {
		if counted := l.counted(counters, proxy) - before[proxy]; counted != 0 {
			t.Errorf("%s: %d ejections for the hurry of one customer", proxy, counted)
		}
	}
	if late.Load() < hurriedCalls/10 {
		t.Errorf("only %d of %d calls had too little time, so nothing was tried", late.Load(), hurriedCalls)
	}
	samples := load.seen()
	for _, one := range samples {
		switch one.code {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.Canceled, codes.Unimplemented:
			t.Errorf("a call of somebody else failed: %s after %s: %s %s", one.what, one.took, one.code, one.reason)
		}
	}
	t.Logf("%d of %d hurried calls had no answer of their own in time; %d calls of others", late.Load(), hurriedCalls, len(samples))
}

// waitWhatever names a deadline and waits for the answer all the same: the status that the service or a proxy gave.
func (l *lab) waitWhatever(client *http.Client, token string, message []byte, deadline time.Duration) string {
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://"+l.door+"/checkup."+bookCall, bytes.NewReader(frame))
	if err != nil {
		return err.Error()
	}
	request.Host = host
	for key, value := range map[string]string{
		"content-type": "application/grpc", "te": "trailers", "authorization": "Bearer " + token, "grpc-timeout": fmt.Sprintf("%dm", deadline.Milliseconds()),
	} {
		request.Header.Set(key, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	if status := response.Header.Get("grpc-status"); status != "" {
		return status
	}
	return response.Trailer.Get("grpc-status")
}
