package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"istio.io/istio/pkg/test"
)

// Namespaces that this folder speaks for. Whatever else is in a cluster is other teams'.
var ours = []string{"checkup", "istio-ingress"}

// How long it takes, at most, until nobody sends new calls to a gateway that goes: its health check fails and the
// balancer looks away.
const unknown = 10 * time.Second

// object is one of those that istioctl makes.
func (m *Mesh) object(kind, name string) *unstructured.Unstructured {
	for _, object := range m.Installed {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	return nil
}

// availability: what is installed survives the loss of a pod, a node and a zone, and the gateway ends no call that it
// has let in.
func availability(mesh *Mesh, _ *Contract) (problems []string) {
	for _, one := range []struct{ name, label, value string }{{"istio-ingressgateway", "istio", "ingressgateway"}, {"istiod", "app", "istiod"}} {
		scaler, deployment := mesh.object("HorizontalPodAutoscaler", one.name), mesh.object("Deployment", one.name)
		if scaler == nil || deployment == nil {
			problems = append(problems, one.name+" is not installed, or does not scale")
			continue
		}
		if fewest := whole(spec(scaler, "minReplicas")); fewest < 2 {
			problems = append(problems, fmt.Sprintf("install.yaml: %s runs %d times, so that one lost pod is all of it", one.name, fewest))
		}
		if mesh.object("PodDisruptionBudget", one.name) == nil {
			problems = append(problems, fmt.Sprintf("install.yaml: every pod of %s may be evicted at once", one.name))
		}
		var keys []string
		constraints, _ := spec(deployment, "template", "spec", "topologySpreadConstraints").([]any)
		for _, constraint := range constraints {
			constraint := constraint.(map[string]any)
			selected, _, _ := unstructured.NestedString(constraint, "labelSelector", "matchLabels", one.label)
			if selected == one.value {
				keys = append(keys, fmt.Sprint(constraint["topologyKey"]))
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(keys)), []string{"kubernetes.io/hostname", "topology.kubernetes.io/zone"}) {
			problems = append(problems, fmt.Sprintf("install.yaml: %s is not spread over nodes and zones but over %v", one.name, keys))
		}
	}
	return append(problems, farewell(mesh)...)
}

// farewell: a gateway that is told to go lets calls in until nobody sends any, and then those under way end.
func farewell(mesh *Mesh) (problems []string) {
	deployment := mesh.object("Deployment", "istio-ingressgateway")
	if deployment == nil {
		return nil // which was said
	}
	var config struct {
		TerminationDrainDuration string `json:"terminationDrainDuration"`
	}
	annotations, _ := spec(deployment, "template", "metadata", "annotations").(map[string]any)
	text, _ := annotations["proxy.istio.io/config"].(string)
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return []string{"install.yaml: " + err.Error()}
	}
	drain, _ := time.ParseDuration(config.TerminationDrainDuration)
	longest := slices.Max(slices.Collect(maps.Values(wantedTimeouts["gateway"])))
	if needed := unknown + longest; drain < needed {
		problems = append(problems, fmt.Sprintf("install.yaml: a gateway that goes ends calls after %s, and they may need %s", drain, needed))
	}
	grace := whole(spec(deployment, "template", "spec", "terminationGracePeriodSeconds"))
	if killed := time.Duration(grace) * time.Second; killed < drain+5*time.Second {
		problems = append(problems, fmt.Sprintf("install.yaml: a gateway is killed after %s, while it drains for %s", killed, drain))
	}
	return problems
}

// whole is a number of a manifest; charts make them of one type, files of another.
func whole(value any) int64 {
	switch value := value.(type) {
	case int64:
		return value
	case float64:
		return int64(value)
	}
	return 0
}

// neighbours: a pod of another team has the same configuration with this folder and without it.
func neighbours(t test.Failer, mesh *Mesh, manifests *Manifests) (problems []string) {
	for _, object := range manifests.Objects {
		if !slices.Contains(ours, object.GetNamespace()) {
			problems = append(problems, fmt.Sprintf("%s is in a namespace that is not checkup's", id(object)))
		}
	}
	without, err := alone(t, manifests)
	if err != nil {
		return append(problems, err.Error())
	}
	with := mesh.Proxies["neighbour"]
	if len(with.Listeners) == 0 || len(with.Listeners) != len(without.Listeners) {
		return append(problems, fmt.Sprintf("another team's pod has %d listeners instead of %d", len(with.Listeners), len(without.Listeners)))
	}
	for i, one := range with.Listeners {
		if strings.HasPrefix(one.Name, "virtualInbound") && !proto.Equal(one, without.Listeners[i]) {
			problems = append(problems, "another team's pod takes other calls, or tells other things of them: "+one.Name)
		}
	}
	return problems
}

// What a neighbour has where nothing of ours is applied, by the profile that is installed.
var untouched = map[string]*Proxy{}

func alone(t test.Failer, manifests *Manifests) (*Proxy, error) {
	text, err := encode(manifests.Install)
	if err != nil {
		return nil, err
	}
	if known := untouched[text]; known != nil {
		return known, nil
	}
	mesh, err := derive(t, &Manifests{Install: manifests.Install})
	if err != nil {
		return nil, err
	}
	untouched[text] = mesh.Proxies["neighbour"]
	return untouched[text], nil
}
