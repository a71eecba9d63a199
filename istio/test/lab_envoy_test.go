package mesh

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// proxy starts an Envoy that is configured as Istio's agent would have it.
func (l *lab) proxy(name, kind, ip, namespace, account string, labels, runtime map[string]string) error {
	secrets, err := l.serveSecrets(account, namespace)
	if err != nil {
		return err
	}
	l.mu.Lock()
	admin, known := l.sidecars[name]
	if !known {
		admin = address(2, len(l.sidecars))
		l.sidecars[name] = admin
	}
	l.mu.Unlock()
	values := map[string]any{}
	for key, value := range runtime {
		values[key] = value
		if value == "true" { // as the agent does
			values[key] = true
		}
	}
	ads := map[string]any{"ads": map[string]any{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	bootstrap := map[string]any{
		"node": map[string]any{
			"id": fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", kind, ip, name, namespace, namespace), "cluster": name,
			"metadata": map[string]any{
				"ISTIO_VERSION": "1.31.0", "CLUSTER_ID": "Kubernetes", "NAMESPACE": namespace, "SERVICE_ACCOUNT": account,
				"LABELS": labels, "INSTANCE_IPS": ip, "INTERCEPTION_MODE": "NONE", "PROXY_CONFIG": map[string]any{},
			},
		},
		"dynamic_resources": map[string]any{
			"lds_config": ads, "cds_config": ads,
			"ads_config": map[string]any{
				"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "xds-grpc"}}},
			},
		},
		"static_resources": map[string]any{"clusters": []any{
			static("xds-grpc", l.xds), static("sds-grpc", fmt.Sprintf("127.0.0.1:%d", secrets)),
		}},
		"layered_runtime": map[string]any{"layers": []any{map[string]any{"name": "pod", "static_layer": values}}},
		"admin":           map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": admin, "port_value": 9901}}},
	}
	text, err := json.Marshal(bootstrap)
	if err != nil {
		return err
	}
	file := filepath.Join(l.dir, name+"-envoy.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	// The last two as the agent has them: how long a drain takes, and that it begins at once.
	envoy, err := l.start(name+"-envoy", exec.Command(l.envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
		"--drain-time-s", "45", "--drain-strategy", "immediate"))
	for _, pods := range l.pods {
		for _, pod := range pods {
			if pod.name == name {
				pod.mu.Lock()
				pod.envoy = envoy
				pod.mu.Unlock()
			}
		}
	}
	return err
}

// static is a cluster of Envoy's that speaks HTTP/2 to one address.
func static(name, address string) map[string]any {
	to, port, _ := net.SplitHostPort(address)
	return map[string]any{
		"name": name, "type": "STATIC", "connect_timeout": "1s",
		"typed_extension_protocol_options": map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
			"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
			"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}},
		}},
		"load_assignment": map[string]any{"cluster_name": name, "endpoints": []any{map[string]any{"lb_endpoints": []any{map[string]any{
			"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": to, "port_value": json.Number(port)}}}}}}}},
	}
}

// page reads one of an Envoy's admin pages.
func (l *lab) page(name, path string) (string, error) {
	l.mu.Lock()
	admin := l.sidecars[name]
	l.mu.Unlock()
	response, err := http.Get(fmt.Sprintf("http://%s:9901/%s", admin, path))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// stats reads an Envoy's counters whose names match.
func (l *lab) stats(name, filter string) map[string]int {
	text, err := l.page(name, "stats?filter="+url.QueryEscape(filter))
	if err != nil {
		l.t.Errorf("the counters of %s: %v", name, err)
	}
	counters := map[string]int{}
	for line := range strings.Lines(text) {
		var value int
		key, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if _, err := fmt.Sscan(rest, &value); err == nil {
			counters[key] = value
		}
	}
	return counters
}

func total(counters map[string]int) (sum int) {
	for _, value := range counters {
		sum += value
	}
	return sum
}

// counted sums counters over the sidecars of services, or the gateway's.
func (l *lab) counted(filter string, of ...string) (sum int) {
	for _, name := range of {
		if name == "gateway" {
			sum += total(l.stats(name, filter))
		}
		for _, pod := range l.running(name) {
			sum += total(l.stats(pod.name, filter))
		}
	}
	return sum
}

// clusters reads what an Envoy knows of the replicas of a service: for each address one of the figures of that page.
func (l *lab) clusters(name, service, figure string) map[string]string {
	text, err := l.page(name, "clusters")
	if err != nil {
		l.t.Errorf("the clusters of %s: %v", name, err)
	}
	found := map[string]string{}
	for line := range strings.Lines(text) {
		parts := strings.Split(strings.TrimSpace(line), "::")
		if len(parts) == 4 && strings.HasPrefix(parts[0], "outbound|8080||"+service+".") && parts[2] == figure {
			found[parts[1]] = parts[3]
		}
	}
	return found
}

// drain is what the agent asks its Envoy for when a pod begins to go.
func (l *lab) drain(name string) error {
	l.mu.Lock()
	admin := l.sidecars[name]
	l.mu.Unlock()
	response, err := http.Post(fmt.Sprintf("http://%s:9901/drain_listeners?inboundonly&graceful&skip_exit", admin), "", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the sidecar of %s does not drain: %s", name, response.Status)
	}
	return nil
}
