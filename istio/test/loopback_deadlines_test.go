package mesh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How many calls with deadlines of 1 to 25 ms one customer sends: half of them by a client that hangs up when its time
// is over, as those of gRPC do, half by one that names its deadline and then waits for what the mesh says.
const impatientCalls = 10_000

// TestLoopbackDeadlines: what one customer's own deadlines do to the mesh. No replica may be ejected for them, and
// nobody else's call may fail meanwhile. It takes all of three things: ../deadlines.yaml, the limits that
// k8s/base/pod.yaml lifts, and services that say in trailers what does not speak of themselves.
func TestLoopbackDeadlines(t *testing.T) {
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2, "mypage": 2}})
	o := l.open("han-river", 60, 10_000)
	proxies := []string{"gateway", "screening", "marketing"}
	const ejections, detected = "outlier_detection.ejections_(enforced_total|overflow)$", "outlier_detection.ejections_detected"
	before := l.counted(ejections, proxies...)

	load := l.newTraffic(o)
	var late [2]int64
	load.runUntil(4, 20*time.Millisecond, func(stop chan<- struct{}) {
		defer close(stop)
		late = l.impatient(o)
	}, (*caller).visit)

	t.Logf("of %d calls with short deadlines %d and %d were late", impatientCalls, late[0], late[1])
	for _, counted := range late {
		if counted < impatientCalls/20 {
			t.Error("so few were late that nothing was tried")
		}
	}
	if after := l.counted(ejections, proxies...); after != before {
		t.Errorf("%d ejections, or wishes for one", after-before)
		for _, proxy := range proxies {
			for name, count := range l.stats(l.proxyOf(proxy), detected) {
				if count > 0 {
					t.Logf("%s: %s: %d", proxy, name, count)
				}
			}
		}
	}
	failing := map[string]int{}
	for _, one := range load.seen() {
		if one.code != codes.OK {
			failing[fmt.Sprint(one.what, " ", one.code, " ", one.reason)]++
		}
	}
	if len(failing) > 0 {
		t.Errorf("others' calls failed: %v of %d", failing, len(load.seen()))
	}
}

func (l *lab) proxyOf(service string) string {
	if service == "gateway" {
		return service
	}
	return l.running(service)[0].name
}

// impatient sends the calls: bookings and reads of every service by turns.
func (l *lab) impatient(o *opened) [2]int64 {
	token := l.sign("customer", "hasty")
	client := l.connect(l.door, l.outside("h2"))
	raw := &http.Client{Transport: &http.Transport{TLSClientConfig: l.outside("h2"), ForceAttemptHTTP2: true}}
	calls := []struct{ method, request, body string }{
		{bookCall, "checkup.screening.v1.CreateScreeningRequest", ""},
		{getSlotCall, "checkup.hospital.v1.GetSlotRequest", fmt.Sprintf(`{"name": %q}`, o.slots[0])},
		{"screening.v1.ScreeningService/ListScreenings", "checkup.screening.v1.ListScreeningsRequest", `{}`},
		{"hospital.v1.HospitalService/ListSlots", "checkup.hospital.v1.ListSlotsRequest", fmt.Sprintf(`{"parent": %q}`, o.name)},
		{"mypage.v1.MyPageService/GetMyPage", "checkup.mypage.v1.GetMyPageRequest", `{"name": "customers/hasty/myPage"}`},
	}
	var next, hungUp, waited atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				i := int(next.Add(1))
				if i > impatientCalls {
					return
				}
				one, limit := calls[i%len(calls)], time.Duration(i%25+1)*time.Millisecond
				if one.body == "" {
					one.body = fmt.Sprintf(`{"screening": {"customer": "customers/hasty", "slot": %q}, "requestId": %q}`, o.slots[i%len(o.slots)], newRequest())
				}
				way := i / len(calls) % 2
				if way == 0 {
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					_, err := client.call(ctx, one.method, token, one.body)
					if status.Code(err) == codes.DeadlineExceeded {
						hungUp.Add(1)
					}
					cancel()
				} else if l.waits(raw, one.method, token, l.message(one.request, one.body), limit) {
					waited.Add(1)
				}
			}
		})
	}
	all.Wait()
	return [2]int64{hungUp.Load(), waited.Load()}
}

// waits makes a call that says its deadline and does not hang up, and tells whether the answer was that it is over.
func (l *lab) waits(client *http.Client, method, token string, message []byte, limit time.Duration) bool {
	frame := append([]byte{0, 0, 0, byte(len(message) >> 8), byte(len(message))}, message...)
	request, err := http.NewRequest(http.MethodPost, "https://"+l.door+"/checkup."+method, bytes.NewReader(frame))
	if err != nil {
		l.t.Error(err)
		return false
	}
	request.Host = host
	for name, value := range map[string]string{"content-type": "application/grpc", "te": "trailers", "grpc-timeout": fmt.Sprintf("%dm", limit.Milliseconds()), "authorization": "Bearer " + token} {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		l.t.Error(err)
		return false
	}
	defer response.Body.Close()
	// in the head of the answer where a proxy gave it, in trailers where the service did
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Header.Get("grpc-status") == "4" || response.Trailer.Get("grpc-status") == "4"
}
