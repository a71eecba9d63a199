package mesh

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/dynamicpb"
)

// TestExperimentConfiguration changes a value in the file that the ConfigMap is made from.
func TestExperimentConfiguration(t *testing.T) {
	r := experiment(t, "configuration", "A change of configuration")
	defer r.write()
	l := startLab(t, plan{replicas: map[string]int{"hospital": 2, "screening": 2, "reservation": 2, "mypage": 2, "marketing": 2}, spare: 2, unhurried: true})
	at, before := l.open("han-river", 300, 100_000), l.kubernetes
	after := version(t, func(config string) string { return config + "\n[mypage]\nheartbeat = \"500ms\"\n" })
	if before.configName == after.configName {
		t.Fatalf("the ConfigMap is called %s with either content, so no pod would roll", after.configName)
	}
	const look = 3 * time.Second
	r.say("`mypage.heartbeat` is set to 500 ms instead of 15 s in k8s/base/checkup.toml, and the pods roll while %d callers book, cancel and read at all five "+
		"services. What changes is counted on a stream of WatchMyPage: heartbeats within %s.", visitors, look)
	r.head = []string{"", "ConfigMap", "pods with it", "heartbeats", "calls", "failing", "availability", "agreement"}

	quiet := l.heartbeats(look)
	r.row("before", before.configName, fmt.Sprint(l.configured(before)), fmt.Sprint(quiet), "–", "–", "–", "–")
	made, err := l.rolled(at, newHistory(), after, services, 0)
	if err != nil {
		t.Error(err)
	}
	r.row(fmt.Sprintf("the rollout, %.0f s", made.took.Seconds()), "–", "–", "–", thousands(made.calls), made.failed(), made.available(), r.agreement(made.load))
	lively := l.heartbeats(look)
	r.row("after", after.configName, fmt.Sprint(l.configured(after)), fmt.Sprint(lively), "–", "–", "–", "–")
	if quiet != 0 || lively < 2 {
		t.Errorf("%d heartbeats before and %d after", quiet, lively)
	}
	if made.fine != made.calls {
		t.Errorf("the rollout: %s", made.failed())
	}
	if left := l.configured(before); left != 0 {
		t.Errorf("%d pods have the old ConfigMap", left)
	}
	r.pictures = append(r.pictures, made.picture("rollout", "the pods roll for a changed value"))
}

// configured counts the pods that run with a version's ConfigMap.
func (l *lab) configured(version *kubernetes) (count int) {
	for _, service := range services {
		for _, pod := range l.running(service) {
			if pod.version.configName == version.configName {
				count++
			}
		}
	}
	return count
}

// heartbeats counts those of a watched page within a time.
func (l *lab) heartbeats(within time.Duration) (count int) {
	l.t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(l.t.Context(), within)
	defer cancel()
	client := l.connect(l.door, l.outside("h2"))
	path, method, err := client.method("mypage.v1.MyPageService/WatchMyPage")
	if err != nil {
		l.t.Fatal(err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+l.sign("customer", "kim"))
	stream, err := client.connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		l.t.Fatal(err)
	}
	request := dynamicpb.NewMessage(method.Input())
	if err := errors.Join(protojson.Unmarshal([]byte(`{"name": "customers/kim/myPage"}`), request), stream.SendMsg(request), stream.CloseSend()); err != nil {
		l.t.Fatal(err)
	}
	heartbeat := method.Output().Fields().ByName("heartbeat")
	for snapshots := 0; ; {
		answer := dynamicpb.NewMessage(method.Output())
		if err := stream.RecvMsg(answer); err != nil {
			// whoever notices first that the time is over ends it, each in their own words
			if snapshots == 0 || time.Since(begun) < within-200*time.Millisecond {
				l.t.Errorf("the stream ended: %v", err)
			}
			return count
		}
		if answer.Has(heartbeat) {
			count++
		} else {
			snapshots++
		}
	}
}
