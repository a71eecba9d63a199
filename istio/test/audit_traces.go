package mesh

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	tracing "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	mutation "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	uuid "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
)

// observation: what a proxy answers by itself is logged, and traces go to the collector that the services send theirs
// to.
func observation(mesh *Mesh, _ *Contract) (problems []string) {
	collector, share, err := tracingOfServices()
	if err != nil {
		return []string{err.Error()}
	}
	for name, proxy := range mesh.Proxies {
		if name == "neighbour" {
			continue
		}
		at, toPort := "virtualInbound", uint32(port)
		if name == "gateway" {
			at, toPort = "0.0.0.0_8443", 0
		}
		for _, chain := range chains(proxy.Listeners, at, toPort) {
			manager := httpOf(chain)
			if len(manager.GetAccessLog()) != 1 {
				problems = append(problems, name+": logs nothing")
			}
			problems = append(problems, traces(name, manager, collector, share)...)
		}
	}
	if len(mesh.Config.GetDefaultConfig().GetProxyStatsMatcher().GetInclusionRegexps()) == 0 {
		problems = append(problems, "install.yaml: the counters of breakers are left out")
	}
	return problems
}

// tracingOfServices is what a cluster tells the services: the collector, as a proxy's cluster is named, and of a
// hundred traces that begin in a service how many are kept.
func tracingOfServices() (collector string, share float64, err error) {
	file := filepath.Join("..", "..", "k8s", "base", "checkup.toml")
	endpoint, err := settingOf(file, "telemetry", "otlp_endpoint")
	if err != nil {
		return "", 0, err
	}
	ratio, err := settingOf(file, "telemetry", "trace_ratio")
	if err != nil {
		return "", 0, err
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(endpoint, "http://"))
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", file, err)
	}
	share, err = strconv.ParseFloat(ratio, 64)
	return fmt.Sprintf("outbound|%s||%s.svc.cluster.local", port, host), 100 * share, err
}

// traces: a proxy sends its spans to the collector, and the gateway alone decides which calls are traced.
func traces(name string, manager *hcm.HttpConnectionManager, collector string, share float64) (problems []string) {
	config := &tracing.OpenTelemetryConfig{}
	if provider := manager.GetTracing().GetProvider(); provider.GetTypedConfig() == nil || provider.GetTypedConfig().UnmarshalTo(config) != nil {
		return []string{name + ": traces nothing"}
	}
	if to := config.GetGrpcService().GetEnvoyGrpc().GetClusterName(); to != collector {
		problems = append(problems, fmt.Sprintf("%s: sends spans to %s, and services to %s", name, to, collector))
	}
	if decides := decidesByRequestID(manager); decides != (name == "gateway") {
		problems = append(problems, fmt.Sprintf("%s: decides by itself what is traced: %v", name, decides))
	}
	if length := manager.GetTracing().GetMaxPathTagLength(); length.GetValue() != 1 {
		problems = append(problems, fmt.Sprintf("%s: spans have %d characters of a path, which may name a customer", name, length.GetValue()))
	}
	if name == "gateway" && !dropsEarly(manager, "x-client-trace-id") {
		problems = append(problems, "gateway: callers may have their calls traced")
	}
	if sampled := manager.GetTracing().GetRandomSampling().GetValue(); name == "gateway" && sampled != share {
		problems = append(problems, fmt.Sprintf("gateway: has %v of a hundred calls traced, and services %v", sampled, share))
	}
	return problems
}

// dropsEarly says whether a header of the caller's goes before anything else looks at the request.
func dropsEarly(manager *hcm.HttpConnectionManager, header string) bool {
	for _, extension := range manager.GetEarlyHeaderMutationExtensions() {
		config := &mutation.HeaderMutation{}
		if extension.GetTypedConfig().UnmarshalTo(config) != nil {
			continue
		}
		for _, one := range config.GetMutations() {
			if one.GetRemove() == header {
				return true
			}
		}
	}
	return false
}

// decidesByRequestID says whether a proxy samples by x-request-id, which no service hands on, instead of by what
// `traceparent` says.
func decidesByRequestID(manager *hcm.HttpConnectionManager) bool {
	config := &uuid.UuidRequestIdConfig{}
	extension := manager.GetRequestIdExtension().GetTypedConfig()
	if extension == nil || extension.UnmarshalTo(config) != nil {
		return true // Envoy's default
	}
	return config.GetUseRequestIdForTraceSampling() == nil || config.GetUseRequestIdForTraceSampling().GetValue()
}
