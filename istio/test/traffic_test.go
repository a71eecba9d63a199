package mesh

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"
)

// opened is a hospital whose dates can be booked.
type opened struct {
	name  string
	slots []string
}

// open registers a hospital with so many dates from next week on.
func (l *lab) open(name string, days, capacity int) *opened {
	l.t.Helper()
	made := &opened{name: "hospitals/" + name}
	var slots []string
	for day := range days {
		date := time.Now().AddDate(0, 0, 7+day)
		made.slots = append(made.slots, made.name+"/slots/"+date.Format("2006-01-02"))
		slots = append(slots, fmt.Sprintf(`{"date": {"year": %d, "month": %d, "day": %d}, "capacity": %d}`, date.Year(), date.Month(), date.Day(), capacity))
	}
	body := fmt.Sprintf(`{"hospitalId": %q, "hospital": {"displayName": %[1]q, "timeZone": "Asia/Seoul"}, "initialSlots": [%s]}`, name, strings.Join(slots, ","))
	if _, err := l.dial(l.door, l.outside("h2"))(registerCall, l.token("admin", "lee"), body); err != nil {
		l.t.Fatal(err)
	}
	return made
}

// sample is one answer.
type sample struct {
	at     time.Duration // since the load began
	took   time.Duration
	what   string
	code   codes.Code
	reason string
	state  string // of a booking
}

// traffic is what callers have seen.
type traffic struct {
	lab     *lab
	began   time.Time
	auditor string // a token
	history *history
	at      *opened
	// Whether bookings may be answered PENDING.
	acceptPending bool

	mu      sync.Mutex
	samples []sample
}

func (l *lab) newTraffic(at *opened) *traffic {
	return &traffic{lab: l, began: time.Now(), auditor: l.sign("auditor", "kang"), history: newHistory(), at: at}
}

// caller makes one call at a time. Callers share a few connections, as people behind one proxy do.
type caller struct {
	*traffic
	number   int
	client   *client
	made     int
	customer string
	token    string
	mine     []*booking
}

// run has so many callers call, each with a pause after every answer, until the time is over or `until` is closed.
// Where a load runs again its callers are other people.
func (l *traffic) run(callers int, pause, length time.Duration, step func(*caller)) {
	l.runUntil(callers, pause, func(stop chan<- struct{}) {
		time.Sleep(length)
		close(stop)
	}, step)
}

// runUntil has callers call for as long as something else takes.
func (l *traffic) runUntil(callers int, pause time.Duration, meanwhile func(stop chan<- struct{}), step func(*caller)) {
	stop := make(chan struct{})
	var connections []*client
	for range min(callers, 8) {
		connections = append(connections, l.lab.connect(l.lab.door, l.lab.outside("h2")))
	}
	var all sync.WaitGroup
	for i := range callers {
		caller := &caller{traffic: l, number: l.history.newcomer(), client: connections[i%len(connections)]}
		all.Go(func() {
			// spread over the pause, or they would come in step
			select {
			case <-stop:
			case <-time.After(pause * time.Duration(i) / time.Duration(callers)):
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				step(caller)
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	meanwhile(stop)
	all.Wait()
}

func (l *traffic) note(one sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, one)
}

// seen are the answers so far.
func (l *traffic) seen() []sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.samples)
}

// A caller gives up after this, which is longer than any route may take.
const callTimeout = 15 * time.Second

func (c *caller) call(what, method, token, body string) (*dynamicpb.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.client.call(ctx, method, token, body)
	one := sample{at: time.Since(c.began), took: time.Since(begun), what: what, code: status.Code(err), reason: reasonOf(err)}
	if err == nil && what == "book" {
		one.state = textOf(answer, "state")
	}
	if err != nil && one.reason == "" { // a proxy's own words, of which the last tell most
		words := status.Convert(err).Message()
		one.reason = "(" + words[max(0, len(words)-60):] + ")"
	}
	c.note(one)
	return answer, err
}

// book books the next date for this caller, who is another person once all dates have had their turn. Callers begin at
// different dates, or all of them would be at the same one, and so at the same replica.
func (c *caller) book() {
	day := (c.made + 37*c.number) % len(c.at.slots)
	if c.made%len(c.at.slots) == 0 {
		c.customer = fmt.Sprintf("c%d-%d", c.number, c.made/len(c.at.slots))
		c.token = c.lab.sign("customer", c.customer)
	}
	c.made++
	one := &booking{customer: c.customer, token: c.token, slot: c.at.slots[day], request: newRequest(), pending: c.acceptPending}
	answer, err := c.call("book", bookCall, c.token, one.body())
	if c.history.booked(one, answer, err); one.name != "" {
		c.mine = append(c.mine, one)
	}
}

// cancel gives the oldest of the caller's bookings back.
func (c *caller) cancel() {
	if len(c.mine) == 0 {
		return
	}
	one := c.mine[0]
	c.mine = c.mine[1:]
	one.cancellation = newRequest()
	_, err := c.call("cancel", "screening.v1.ScreeningService/CancelScreening", one.token, one.cancelBody())
	c.history.cancelled(one, err)
}

// visit calls every service by turns, half of the calls being bookings.
func (c *caller) visit() {
	turn := c.made
	switch c.book(); turn % 5 {
	case 0:
		_, _ = c.call("slot", getSlotCall, "", fmt.Sprintf(`{"name": %q}`, c.at.slots[turn%len(c.at.slots)]))
	case 1:
		_, _ = c.call("reservations", "reservation.v1.ReservationService/ListReservations", c.token, `{"pageSize": 10}`)
	case 2:
		_, _ = c.call("page", "mypage.v1.MyPageService/GetMyPage", c.token, fmt.Sprintf(`{"name": "customers/%s/myPage"}`, c.customer))
	case 3:
		_, _ = c.call("demand", "marketing.v1.MarketingService/ListDemandSignals", c.auditor, `{"pageSize": 10}`)
	case 4:
		c.cancel()
	}
}

// newRequest makes a request_id.
func newRequest() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
