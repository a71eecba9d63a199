package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// startCollector starts an OpenTelemetry Collector by the configuration of k8s/collector, and the backend that it sends
// to.
func (l *lab) startCollector(program string) {
	l.t.Helper()
	var err error
	if l.backend, err = startBackend(l); err != nil {
		l.t.Fatal(err)
	}
	l.collector = address(4, 0)
	command := exec.Command(program, "--config=../../k8s/collector/otelcol.yaml")
	command.Env = []string{"POD_IP=" + l.collector, "BACKEND=" + l.backend.address}
	running, err := l.start("collector", command)
	if err != nil {
		l.t.Fatal(err)
	}
	l.eventually("the collector is ready", func() error { return errors.Join(l.healthy(13133), running.alive()) })
}

// healthy asks what the collector's probes ask.
func (l *lab) healthy(port int) error {
	client := http.Client{Timeout: time.Second}
	response, err := client.Get(fmt.Sprintf("http://%s:%d/", l.collector, port))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// backend keeps what the collector sends to it.
type backend struct {
	collectorpb.UnimplementedTraceServiceServer
	address string

	mu    sync.Mutex
	spans []span
}

// span is one with the service that made it: a process by its name, a proxy by its pod's.
type span struct {
	*tracepb.Span
	service string
}

func (s span) String() string {
	kind := map[tracepb.Span_SpanKind]string{
		tracepb.Span_SPAN_KIND_SERVER: "answers", tracepb.Span_SPAN_KIND_CLIENT: "calls", tracepb.Span_SPAN_KIND_CONSUMER: "consumes",
	}[s.Kind]
	return fmt.Sprintf("%s %s %s", s.service, kind, s.Name)
}

func (s span) trace() string  { return fmt.Sprintf("%x", s.TraceId) }
func (s span) id() string     { return fmt.Sprintf("%x", s.SpanId) }
func (s span) parent() string { return fmt.Sprintf("%x", s.ParentSpanId) }

func startBackend(l *lab) (*backend, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	made := &backend{address: listener.Addr().String()}
	server := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(server, made)
	go func() { _ = server.Serve(listener) }()
	l.t.Cleanup(server.Stop)
	return made, nil
}

func (b *backend) Export(_ context.Context, request *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		service := ""
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.Key == "service.name" {
				service = attribute.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, one := range scope.Spans {
				b.spans = append(b.spans, span{one, service})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// all returns every span so far.
func (b *backend) all() []span {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.spans)
}

// of returns the spans of one trace so far.
func (b *backend) of(trace string) []span {
	return slices.DeleteFunc(b.all(), func(one span) bool { return one.trace() != trace })
}
