package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// relay stands between a sidecar and its process and passes unary calls on as they are: at once, or as a slow, busy or
// ill Hospital would. The product's code is left alone.
type relay struct {
	address string
	to      *grpc.ClientConn
	server  *grpc.Server
	err     error

	ill     atomic.Bool
	seen    atomic.Int64 // calls that came
	refused atomic.Int64 // of those, answered UNAVAILABLE here

	lastRefusal atomic.Int64 // when, in nanoseconds

	mu      sync.Mutex
	manner  manner
	workers chan struct{}
}

// manner is how a relay slows calls down: each takes so much longer, more or less, and only so many are worked on at
// once (0: all).
type manner struct {
	delay, spread time.Duration
	workers       int
}

func newRelay(address, to string) *relay {
	connection, err := grpc.NewClient(to, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	return &relay{address: address, to: connection, err: err}
}

func (r *relay) listen(t *testing.T) error {
	listener, err := listen(r.address)
	if err = errors.Join(err, r.err); err != nil {
		return err
	}
	r.server = grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(r.handle), grpc.MaxConcurrentStreams(100_000))
	go func(server *grpc.Server, listener net.Listener) { _ = server.Serve(listener) }(r.server, listener)
	t.Cleanup(r.server.Stop)
	return nil
}

func (r *relay) close() { r.server.Stop() }

// behave changes the manner of calls that come from now on.
func (r *relay) behave(as manner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manner, r.workers = as, nil
	if as.workers > 0 {
		r.workers = make(chan struct{}, as.workers)
	}
}

func (r *relay) handle(_ any, stream grpc.ServerStream) error {
	r.seen.Add(1)
	if r.ill.Load() {
		r.refused.Add(1)
		r.lastRefusal.Store(time.Now().UnixNano())
		return status.Error(codes.Unavailable, "ill")
	}
	method, _ := grpc.MethodFromServerStream(stream)
	var request, answer []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	if err := r.wait(stream.Context()); err != nil {
		return status.FromContextError(err).Err()
	}
	came, _ := metadata.FromIncomingContext(stream.Context())
	came = came.Copy()
	for _, own := range []string{":authority", "content-type", "user-agent"} {
		came.Delete(own)
	}
	var header, trailer metadata.MD
	err := r.to.Invoke(metadata.NewOutgoingContext(stream.Context(), came), method, &request, &answer, grpc.Header(&header), grpc.Trailer(&trailer))
	stream.SetTrailer(trailer)
	if err != nil {
		return err // with its details; without a header sent, as a service's own refusal has none
	}
	if err := stream.SetHeader(header); err != nil {
		return err
	}
	return stream.SendMsg(&answer)
}

// wait takes as long as a call's turn and its work do, or until nobody waits for it any more.
func (r *relay) wait(context context.Context) error {
	r.mu.Lock()
	as, workers := r.manner, r.workers
	r.mu.Unlock()
	if workers != nil {
		select {
		case workers <- struct{}{}:
			defer func() { <-workers }()
		case <-context.Done():
			return context.Err()
		}
	}
	if as.delay == 0 {
		return nil
	}
	select {
	case <-time.After(as.delay - as.spread + rand.N(2*as.spread+1)):
		return nil
	case <-context.Done():
		return context.Err()
	}
}

// raw leaves messages as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(value any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*value.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, value any) error {
	*value.(*[]byte) = data.Materialize()
	return nil
}
