package mesh

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	kubecrd "istio.io/istio/pilot/pkg/config/kube/crd"
)

// onLoopback changes of the manifests what a cluster would have otherwise: no redirection of traffic (so listeners are
// named, and every pod has a Sidecar of its own), keys made here, any host.
func (l *lab) onLoopback(manifests *Manifests) (objects []*unstructured.Unstructured) {
	jwks := l.jwks()
	for _, object := range manifests.clone().Objects {
		switch object.GetKind() {
		case "Sidecar":
			if pods, known := l.pods[object.GetName()]; known {
				for _, pod := range pods {
					objects = append(objects, pod.sidecar(object.DeepCopy()))
				}
				continue
			}
		case "RequestAuthentication":
			rules := spec(object, "jwtRules").([]any)
			rules[0].(map[string]any)["jwks"] = jwks
		case "Gateway":
			servers := spec(object, "servers").([]any)
			servers[0].(map[string]any)["hosts"] = []any{"*"}
			servers[0].(map[string]any)["tls"] = map[string]any{"mode": "SIMPLE", "serverCertificate": "/lab/tls.crt", "privateKey": "/lab/tls.key"}
		case "VirtualService":
			if hosts := spec(object, "hosts").([]any); hosts[0] == host {
				setIn(object, []any{"*"}, "hosts")
			}
		}
		objects = append(objects, object)
	}
	return objects
}

// sidecar makes of a service's Sidecar the one of a pod: the same scope and limits, at addresses of its own.
func (p *pod) sidecar(object *unstructured.Unstructured) *unstructured.Unstructured {
	object.SetName(p.name)
	setIn(object, p.name, "workloadSelector", "labels", "lab")
	setIn(object, []any{map[string]any{
		"port": map[string]any{"number": int64(port), "protocol": "GRPC", "name": "grpc"}, "bind": podIP(p.index), "captureMode": "NONE",
		"defaultEndpoint": fmt.Sprintf("127.0.0.1:%d", p.behind()),
	}}, "ingress")
	var ways []any
	for _, one := range spec(object, "egress").([]any) {
		for _, reached := range one.(map[string]any)["hosts"].([]any) {
			at, name := int64(port), "grpc"
			if strings.Contains(reached.(string), "/otel-collector.") {
				at, name = 4317, "grpc-otlp"
			}
			ways = append(ways, map[string]any{
				"port": map[string]any{"number": at, "protocol": "GRPC", "name": name}, "bind": wayIP(p.index), "captureMode": "NONE",
				"hosts": []any{reached},
			})
		}
	}
	setIn(object, ways, "egress")
	return object
}

func setIn(object *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(object.Object, value, append([]string{"spec"}, path...)...); err != nil {
		panic(err)
	}
}

// apply is `kubectl apply` of a change while the mesh runs, and back again by a change that does nothing.
func (l *lab) apply(change func(*Manifests)) {
	l.t.Helper()
	wanted := l.manifests.clone()
	change(wanted)
	text, err := encode(l.onLoopback(wanted))
	if err != nil {
		l.t.Fatal(err)
	}
	configs, _, err := kubecrd.ParseInputs(text)
	if err != nil {
		l.t.Fatal(err)
	}
	store, kept := l.control.Store(), map[string]bool{}
	for _, one := range configs {
		kept[one.Key()] = true
		if store.Get(one.GroupVersionKind, one.Name, one.Namespace) == nil {
			_, err = store.Create(one)
		} else {
			_, err = store.Update(one)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	for _, one := range l.applied {
		if !kept[one.Key()] && store.Get(one.GroupVersionKind, one.Name, one.Namespace) != nil {
			if err := store.Delete(one.GroupVersionKind, one.Name, one.Namespace, nil); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	l.applied = configs
}

// registry is the cluster that Istio sees: the services, an address for each pod there may be, the gateway, a collector
// of traces.
func (l *lab) registry() string {
	var all []string
	for i, name := range services {
		all = append(all, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: checkup}
spec:
  clusterIP: 10.1.0.%[2]d
  selector: {app.kubernetes.io/name: %[1]s}
  ports: [{name: grpc, appProtocol: grpc, port: %[3]d, targetPort: %[3]d, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-a, namespace: checkup, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints: []
ports: [{name: grpc, port: %[3]d, protocol: TCP}]
`, name, i+1, port))
		for _, pod := range l.pods[name] {
			all = append(all, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: checkup, labels: {app.kubernetes.io/name: %[2]s, lab: %[1]s, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: %[2]s, containers: [{name: checkup, image: checkup}]}
status: {phase: Running, podIP: %[3]s, podIPs: [{ip: %[3]s}], conditions: [{type: Ready, status: "True"}]}
`, pod.name, name, podIP(pod.index)))
		}
	}
	gateway := workload{"istio-ingressgateway", "istio-ingress", l.account, "10.1.1.1", address(0, 99), "istio: ingressgateway", "https", 443, fixedPort(doorPort)}
	// The collector has no sidecar, so proxies speak plainly to it.
	collector := workload{"otel-collector", "observability", "otel", "10.1.2.1", l.collector, "app.kubernetes.io/name: otel-collector", "grpc-otlp", 4317, 4317}
	all = append(all, gateway.String(), strings.ReplaceAll(collector.String(), ", security.istio.io/tlsMode: istio", ""))
	return strings.Join(all, "---")
}
