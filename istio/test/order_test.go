package mesh

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What a reader does on an empty cluster, by the documents: the mesh first, then the pods.
func TestDocumentsInOrder(t *testing.T) {
	var all []string
	for _, document := range []string{"../README.md", "../../k8s/README.md"} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, commandsOf(string(text))...)
	}
	commands := slices.DeleteFunc(slices.Clone(all), func(command string) bool {
		return !strings.HasPrefix(command, "kubectl ") && !strings.HasPrefix(command, "istioctl ")
	})
	for _, needed := range []string{"istioctl install ", "kubectl apply -k istio", "kubectl create secret tls "} {
		if !slices.ContainsFunc(commands, func(command string) bool { return strings.HasPrefix(command, needed) }) {
			t.Errorf("istio/README.md has no command %s", needed)
		}
	}
	cluster := emptyCluster("../..")
	for _, problem := range cluster.follow(append(commands, "kubectl apply -k k8s/overlays/dev")) {
		t.Error(problem)
	}
	for _, made := range []string{"Gateway istio-ingress/checkup", "Deployment istio-ingress/istio-ingressgateway", "Deployment checkup/hospital"} {
		if !cluster.objects[made] {
			t.Errorf("nobody has made %s", made)
		}
	}
}

// The order that the documents once had, and others that fail on a real cluster, are found out.
func TestWrongOrdersAreFoundOut(t *testing.T) {
	for _, wrong := range []struct{ commands, found string }{
		{"istioctl install -f istio/install.yaml\nkubectl apply -k istio", `istioctl install -f istio/install.yaml: namespaces "istio-ingress" not found`},
		{"kubectl apply -f istio/namespace.yaml\nistioctl install -f istio/install.yaml\nkubectl apply -k istio", `kubectl apply -k istio: namespaces "checkup" not found`},
		{"kubectl apply -f istio/namespace.yaml -f k8s/base/namespace.yaml\nkubectl apply -k istio", `no matches for kind "VirtualService"`},
		{"kubectl create secret tls checkup-gateway -n istio-ingress --cert=tls.crt --key=tls.key", `namespaces "istio-ingress" not found`},
		{"kubectl apply -f istio/namespaces.yaml", "no such file"},
	} {
		problems := emptyCluster("../..").follow(commandsOf("```sh\n" + wrong.commands + "\n```\n"))
		if !slices.ContainsFunc(problems, func(problem string) bool { return strings.Contains(problem, wrong.found) }) {
			t.Errorf("nobody said %s, but %q", wrong.found, problems)
		}
	}
}
