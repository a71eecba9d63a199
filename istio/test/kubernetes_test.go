package mesh

import (
	"fmt"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// The registry of these tests says of the five services what k8s/ says: names, labels, accounts and ports. Where they
// part, the mesh would select other pods than there are.
func TestAgreesWithKubernetes(t *testing.T) {
	const base = "../../k8s/base"
	if _, err := os.Stat(base); err != nil {
		t.Skip("there is no k8s/ beside istio/")
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), base)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string, kinds ...string) *unstructured.Unstructured {
		for _, object := range objects {
			for _, kind := range kinds {
				if object.GetKind() == kind && object.GetName() == name && object.GetNamespace() == "checkup" {
					return object
				}
			}
		}
		t.Fatalf("no %v %s in the namespace checkup", kinds, name)
		return nil
	}
	for _, name := range services {
		ports, _ := spec(find(name, "Service"), "ports").([]any)
		grpc := false
		for _, one := range ports {
			one := one.(map[string]any)
			grpc = grpc || (one["name"] == "grpc" && one["appProtocol"] == "grpc" && fmt.Sprint(one["port"]) == fmt.Sprint(port))
		}
		if !grpc {
			t.Errorf("Service %s has no port grpc %d: %v", name, port, ports)
		}
		find(name, "ServiceAccount")
		pods := find(name, "Deployment", "StatefulSet")
		if account := spec(pods, "template", "spec", "serviceAccountName"); account != name {
			t.Errorf("pods of %s run as %v", name, account)
		}
		// Or one customer who calls off many calls ends everybody's: loopback_deadlines_test.go.
		runtime := readWorkload(pods).runtime
		if number(runtime["overload.premature_reset_total_stream_count"]) < 1<<30 || runtime["envoy.reloadable_features.http2_use_oghttp2"] != "true" {
			t.Errorf("sidecars of %s end connections that are everybody's: %v", name, runtime)
		}
		labels, _ := spec(pods, "template", "metadata", "labels").(map[string]any)
		if labels["app.kubernetes.io/name"] != name {
			t.Errorf("pods of %s are labelled %v", name, labels)
		}
	}
}
