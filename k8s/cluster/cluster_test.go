package main

import (
	"slices"
	"strings"
	"testing"
)

func here() *Cluster { return &Cluster{tree: "../.."} }

// The documents have what the checks look for there; without this a run would find out after minutes.
func TestDocumentsHaveWhatIsRun(t *testing.T) {
	blocks, err := here().blocks(deployment, "Deploy")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(blocks[0], "kubectl apply -f k8s/base/namespace.yaml") {
		t.Errorf("%s begins with %q", deployment, blocks[0])
	}
	secrets, err := here().secrets()
	if err != nil {
		t.Fatal(err)
	}
	if len(secrets) != 11 || !slices.Equal(secrets["hospital-database"], []string{"url"}) || !slices.Equal(secrets["operator-nats"], []string{"password"}) {
		t.Errorf("%s asks for %v", deployment, secrets)
	}
	mesh, err := here().blocks(meshDocument, "Install")
	if err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []string{"istioctl install -y -f istio/install.yaml", meshApply} {
		if !slices.Contains(mesh[0], wanted) {
			t.Errorf("%s does not have %s among %q", meshDocument, wanted, mesh[0])
		}
	}
	if _, err := here().blocks(deployment, "No such heading"); err == nil {
		t.Error("a heading that is not there has commands")
	}
}

func pod(name, service, version string, ready bool) object {
	status := "False"
	if ready {
		status = "True"
	}
	return object{"metadata": object{"name": name, "labels": object{"app.kubernetes.io/name": service, "app.kubernetes.io/version": version}},
		"status": object{"conditions": []any{object{"type": "Ready", "status": status}}}}
}

// A replica that is missing for a moment is seen, and so is one too many.
func TestReplicasAreCounted(t *testing.T) {
	counted := &replicas{pods: map[string]object{"a": pod("a", "hospital", "one", true), "b": pod("b", "hospital", "one", true)}, fewest: map[string]int{}, most: map[string]int{}}
	counted.look()
	none := func(string) int { return 0 }
	wanted := map[string]int{"hospital": 2}
	counted.hear(event{"ADDED", pod("c", "hospital", "two", false)})
	counted.hear(event{"MODIFIED", pod("c", "hospital", "two", true)})
	counted.hear(event{"DELETED", pod("a", "hospital", "one", true)})
	if err := counted.within(wanted, none, 1); err != nil {
		t.Errorf("a steady rollout: %v", err)
	}
	if err := counted.within(wanted, none, 0); err == nil {
		t.Error("three pods instead of two were not seen")
	}
	counted.hear(event{"DELETED", pod("b", "hospital", "one", true)})
	counted.hear(event{"ADDED", pod("d", "hospital", "two", true)})
	if err := counted.within(wanted, none, 1); err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("one replica of two was not seen: %v", err)
	}
}

// A pod that goes is none of those that a strategy allows, however long it takes; that it is not ready any more counts.
func TestPodsThatGoAreNotCounted(t *testing.T) {
	goes := pod("a", "hospital", "one", true)
	goes["metadata"].(object)["deletionTimestamp"] = "2026-11-30T12:00:00Z"
	counted := &replicas{pods: map[string]object{"a": pod("a", "hospital", "one", true)}, fewest: map[string]int{}, most: map[string]int{}}
	counted.look()
	counted.hear(event{"MODIFIED", goes})
	counted.hear(event{"ADDED", pod("b", "hospital", "two", true)})
	if most, fewest := counted.most["hospital"], counted.fewest["hospital"]; most != 1 || fewest != 0 {
		t.Errorf("there were %d pods at most, and %d ready at least", most, fewest)
	}
}

func TestWhatIsComparedDiffers(t *testing.T) {
	before := map[string]string{"a": "1", "b": "2"}
	if err := same("nothing", before, map[string]string{"a": "1", "b": "2"}); err != nil {
		t.Error(err)
	}
	err := same("it", before, map[string]string{"a": "3", "c": "4"})
	for _, wanted := range []string{"a was 1 and is 3", "b is gone", "c is new"} {
		if err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("nobody said %q: %v", wanted, err)
		}
	}
}
