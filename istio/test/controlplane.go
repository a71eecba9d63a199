package mesh

import (
	"fmt"
	"strings"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	meshconfig "istio.io/api/mesh/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	istiomesh "istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/test"
)

// The port that every service of checkup has.
const port = 8080

var services = []string{"hospital", "screening", "reservation", "mypage", "marketing"}

// Proxy is one Envoy's configuration, as Istio's control plane would send it.
type Proxy struct {
	Listeners []*listener.Listener
	Clusters  map[string]*cluster.Cluster
	Routes    []*route.RouteConfiguration
}

// Mesh is all of them: by service, `stranger` (a pod of the namespace that no policy names), `neighbour` (of another
// team) and `gateway`.
type Mesh struct {
	Config  *meshconfig.MeshConfig
	Proxies map[string]*Proxy
	// The name of the gateway's identity, as installed.
	GatewayAccount string
	// What istioctl would apply.
	Installed []*unstructured.Unstructured
}

// workload is what Istio's registry is made from: a Service, one pod and its EndpointSlice. k8s/ says them at length.
type workload struct {
	name, namespace, account string
	clusterIP, podIP         string
	labels                   string
	portName                 string
	servicePort, podPort     int
}

func (w workload) String() string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  clusterIP: %[4]s
  selector: {%[6]s}
  ports: [{name: %[7]s, port: %[8]d, targetPort: %[9]d, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s-0, namespace: %[2]s, labels: {%[6]s, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: %[3]s, containers: [{name: checkup, image: checkup}]}
status: {phase: Running, podIP: %[5]s, podIPs: [{ip: %[5]s}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-a, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints:
  - {addresses: [%[5]s], conditions: {ready: true}, targetRef: {kind: Pod, name: %[1]s-0, namespace: %[2]s}}
ports: [{name: %[7]s, port: %[9]d, protocol: TCP}]
`, w.name, w.namespace, w.account, w.clusterIP, w.podIP, w.labels, w.portName, w.servicePort, w.podPort)
}

// registry is the cluster: the five services, a pod that has no business with them, the gateway, and a collector of
// traces.
func registry(account string) string {
	var all []string
	for i, name := range append(services[:len(services):len(services)], "stranger") {
		all = append(all, workload{
			name, "checkup", name, fmt.Sprintf("10.1.0.%d", i+1), fmt.Sprintf("10.2.0.%d", i+1),
			"app.kubernetes.io/name: " + name, "grpc", port, port,
		}.String())
	}
	all = append(all,
		workload{"istio-ingressgateway", "istio-ingress", account, "10.1.1.1", "10.2.1.1", "istio: ingressgateway", "https", 443, 8443}.String(),
		workload{"neighbour", "other", "neighbour", "10.1.3.1", "10.2.3.1", "app.kubernetes.io/name: neighbour", "grpc", port, port}.String(),
		workload{"otel-collector", "observability", "otel", "10.1.2.1", "10.2.2.1", "app: otel", "grpc-otlp", 4317, 4317}.String())
	return strings.Join(all, "---")
}

// meshConfigOf finds the mesh's configuration and the gateway's account in what istioctl would install.
func meshConfigOf(installed []*unstructured.Unstructured) (config *meshconfig.MeshConfig, account string, err error) {
	for _, object := range installed {
		switch {
		case object.GetKind() == "ConfigMap" && object.GetName() == "istio":
			text, _, _ := unstructured.NestedString(object.Object, "data", "mesh")
			if config, err = istiomesh.ApplyMeshConfigDefaults(text); err != nil {
				return nil, "", err
			}
		case object.GetKind() == "Deployment" && object.GetNamespace() == "istio-ingress":
			account, _, _ = unstructured.NestedString(object.Object, "spec", "template", "spec", "serviceAccountName")
		}
	}
	if config == nil || account == "" {
		return nil, "", fmt.Errorf("install.yaml installs no control plane, or no gateway in istio-ingress")
	}
	return config, account, nil
}

// derive has Istio's control plane make Envoys' configuration of the manifests.
func derive(t test.Failer, manifests *Manifests) (*Mesh, error) {
	installed, err := manifests.installed()
	if err != nil {
		return nil, err
	}
	config, account, err := meshConfigOf(installed)
	if err != nil {
		return nil, err
	}
	text, err := encode(manifests.Objects)
	if err != nil {
		return nil, err
	}
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		ConfigString:           text,
		KubernetesObjectString: registry(account),
		MeshConfig:             config,
	})
	mesh := &Mesh{Config: config, GatewayAccount: account, Installed: installed, Proxies: map[string]*Proxy{}}
	for i, name := range append(services[:len(services):len(services)], "stranger") {
		mesh.Proxies[name] = proxyOf(server, &model.Proxy{
			Type:            model.SidecarProxy,
			ID:              name + "-0.checkup",
			ConfigNamespace: "checkup",
			IPAddresses:     []string{fmt.Sprintf("10.2.0.%d", i+1)},
			Labels:          map[string]string{"app.kubernetes.io/name": name},
			Metadata: &model.NodeMetadata{
				IstioVersion: "1.31.0", Namespace: "checkup", ClusterID: "Kubernetes", ServiceAccount: name,
				Labels: map[string]string{"app.kubernetes.io/name": name},
			},
		})
	}
	mesh.Proxies["neighbour"] = proxyOf(server, &model.Proxy{
		Type:            model.SidecarProxy,
		ID:              "neighbour-0.other",
		ConfigNamespace: "other",
		IPAddresses:     []string{"10.2.3.1"},
		Labels:          map[string]string{"app.kubernetes.io/name": "neighbour"},
		Metadata: &model.NodeMetadata{
			IstioVersion: "1.31.0", Namespace: "other", ClusterID: "Kubernetes", ServiceAccount: "neighbour",
			Labels: map[string]string{"app.kubernetes.io/name": "neighbour"},
		},
	})
	mesh.Proxies["gateway"] = proxyOf(server, &model.Proxy{
		Type:            model.Router,
		ID:              "istio-ingressgateway-0.istio-ingress",
		ConfigNamespace: "istio-ingress",
		IPAddresses:     []string{"10.2.1.1"},
		Labels:          map[string]string{"istio": "ingressgateway"},
		Metadata: &model.NodeMetadata{
			IstioVersion: "1.31.0", Namespace: "istio-ingress", ClusterID: "Kubernetes", ServiceAccount: account,
			Labels: map[string]string{"istio": "ingressgateway"},
		},
	})
	return mesh, nil
}

func proxyOf(server *xds.FakeDiscoveryServer, proxy *model.Proxy) *Proxy {
	proxy = server.SetupProxy(proxy)
	made := &Proxy{
		Listeners: server.Listeners(proxy),
		Routes:    server.Routes(proxy),
		Clusters:  map[string]*cluster.Cluster{},
	}
	for _, one := range server.Clusters(proxy) {
		made.Clusters[one.Name] = one
	}
	return made
}
