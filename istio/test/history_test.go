package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// booking is one request, with what its caller was told.
type booking struct {
	customer, token, slot, request, cancellation string
	pending                                      bool // accept_pending
	name                                         string
}

func (b *booking) body() string {
	return fmt.Sprintf(`{"screening": {"customer": "customers/%s", "slot": %q}, "requestId": %q, "acceptPending": %v}`, b.customer, b.slot, b.request, b.pending)
}

func (b *booking) cancelBody() string {
	return fmt.Sprintf(`{"name": %q, "requestId": %q}`, b.name, b.cancellation)
}

// history is what callers were told about bookings: what has to be there in the end, and nothing else.
type history struct {
	mu       sync.Mutex
	callers  int
	active   map[string]*booking // told CONFIRMED, and not cancelled since
	waiting  map[string]*booking // told PENDING
	refusals int
	unsure   []*booking // booked or not: nobody knows
	undone   []*booking // cancelled or not
	raised   []string   // requests for one more place
}

func newHistory() *history {
	return &history{active: map[string]*booking{}, waiting: map[string]*booking{}}
}

func (l *history) newcomer() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.callers++
	return l.callers
}

// definite says whether an error is the service's own word that nothing was done.
func definite(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition, codes.Unauthenticated:
		return true
	case codes.ResourceExhausted:
		return reasonOf(err) != ""
	}
	// HOSPITAL_UNAVAILABLE promises that the booking is none unless its caller asks again.
	return reasonOf(err) == "HOSPITAL_UNAVAILABLE"
}

func (l *history) booked(one *booking, answer *dynamicpb.Message, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		one.name = textOf(answer, "name")
		if textOf(answer, "state") == "PENDING" {
			l.waiting[one.name] = one
		} else {
			l.active[one.name] = one
		}
	case definite(err):
		l.refusals++
	default:
		l.unsure = append(l.unsure, one)
	}
}

func (l *history) cancelled(one *booking, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		delete(l.active, one.name)
	case !definite(err):
		l.undone = append(l.undone, one)
	}
}

// settle asks again, with the same request_id, about everything whose outcome its caller does not know.
func (l *traffic) settle() error {
	client := l.lab.connect(l.lab.door, l.lab.outside("h2"))
	unsure, undone := l.history.unsure, l.history.undone
	l.history.unsure, l.history.undone = nil, nil
	for _, one := range unsure {
		if err := l.insist(func(ctx context.Context) error {
			answer, err := client.call(ctx, bookCall, one.token, one.body())
			if err == nil || definite(err) && reasonOf(err) != "HOSPITAL_UNAVAILABLE" {
				l.history.booked(one, answer, err)
				return nil
			}
			return err
		}); err != nil {
			return fmt.Errorf("the booking %s of %s: %w", one.request, one.customer, err)
		}
	}
	for _, one := range undone {
		if err := l.insist(func(ctx context.Context) error {
			_, err := client.call(ctx, "screening.v1.ScreeningService/CancelScreening", one.token, one.cancelBody())
			if err == nil {
				l.history.cancelled(one, nil)
			}
			return err
		}); err != nil {
			return fmt.Errorf("the cancellation of %s: %w", one.name, err)
		}
	}
	return nil
}

func (l *traffic) insist(ask func(context.Context) error) error {
	return within(30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		return ask(ctx)
	})
}

// list reads all bookings in a state, as an auditor.
func (l *traffic) list(state string) (map[string]bool, error) {
	client, found, page := l.lab.connect(l.lab.door, l.lab.outside("h2")), map[string]bool{}, ""
	for {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		answer, err := client.call(ctx, "screening.v1.ScreeningService/ListScreenings", l.auditor,
			fmt.Sprintf(`{"pageSize": 1000, "pageToken": %q, "filter": "state=%s"}`, page, state))
		cancel()
		if err != nil {
			return nil, err
		}
		rows := answer.Get(answer.Descriptor().Fields().ByName("screenings")).List()
		for i := range rows.Len() {
			row := rows.Get(i).Message()
			found[row.Get(row.Descriptor().Fields().ByName(protoreflect.Name("name"))).String()] = true
		}
		if page = textOf(answer, "next_page_token"); page == "" {
			return found, nil
		}
	}
}

// compare holds what callers were told to what there is, settles before what nobody knows, and has `checkup verify`
// look. It returns the sentence for a report, or what is wrong.
func (l *traffic) compare() (string, error) {
	asked := len(l.history.unsure) + len(l.history.undone)
	if err := l.settle(); err != nil {
		return "", err
	}
	there, err := l.list("CONFIRMED")
	if err != nil {
		return "", err
	}
	var lost, more []error
	for name := range l.history.active {
		if !there[name] {
			lost = append(lost, fmt.Errorf("%s was answered CONFIRMED and is not", name))
		}
	}
	for name := range there {
		if l.history.active[name] == nil {
			more = append(more, fmt.Errorf("%s is CONFIRMED and nobody was told", name))
		}
	}
	if err := errors.Join(errors.Join(lost[:min(3, len(lost))]...), errors.Join(more[:min(3, len(more))]...)); err != nil {
		return "", fmt.Errorf("%d lost, %d too many of %d: %w", len(lost), len(more), len(there), err)
	}
	if out, err := l.lab.run("verify", "--settle", "60s"); err != nil {
		return "", fmt.Errorf("checkup verify: %w: %s", err, out)
	}
	return fmt.Sprintf("%s bookings, %d of them or of cancellations asked for again", thousands(len(there)), asked), nil
}

func thousands(value int) string {
	text := fmt.Sprint(value)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
