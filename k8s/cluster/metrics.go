package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const metricsAddress = "127.0.0.1:9443"

// startMetrics serves metrics.k8s.io, which autoscalers look at. Nothing runs in a pod, so a check says what its
// containers use.
func (c *Cluster) startMetrics() error {
	keys := filepath.Join(c.directory, "keys")
	server := &http.Server{Addr: metricsAddress, Handler: http.HandlerFunc(c.serveMetrics), ReadHeaderTimeout: patience}
	go func() { _ = server.ListenAndServeTLS(keys+"/server.crt", keys+"/server.key") }()
	if err := c.call("POST", "/api/v1/namespaces/kube-system/services", object{
		"metadata": object{"name": "metrics"}, "spec": object{"type": "ExternalName", "externalName": "localhost"},
	}, nil); err != nil {
		return err
	}
	return c.call("POST", "/apis/apiregistration.k8s.io/v1/apiservices", object{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": "v1beta1.metrics.k8s.io"},
		"spec": object{"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true,
			"service": object{"namespace": "kube-system", "name": "metrics", "port": 9443}},
	}, nil)
}

func (c *Cluster) serveMetrics(answer http.ResponseWriter, asked *http.Request) {
	answer.Header().Set("Content-Type", "application/json")
	write := func(value object) { _ = json.NewEncoder(answer).Encode(value) }
	parts := strings.Split(strings.Trim(asked.URL.Path, "/"), "/")
	version := object{"groupVersion": "metrics.k8s.io/v1beta1", "version": "v1beta1"}
	switch {
	case len(parts) == 2:
		write(object{"kind": "APIGroup", "apiVersion": "v1", "name": "metrics.k8s.io", "versions": []any{version}, "preferredVersion": version})
	case len(parts) == 3:
		write(object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": []any{
			object{"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": []string{"get", "list"}}}})
	case len(parts) == 6 && parts[3] == "namespaces" && parts[5] == "pods":
		pods, err := c.list("/api/v1/namespaces/" + parts[4] + "/pods?labelSelector=" + url.QueryEscape(asked.URL.Query().Get("labelSelector")))
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		if len(pods) > 0 && labelOf(pods[0], "app.kubernetes.io/name") == "hospital" {
			c.mutex.Lock()
			c.played.looks++
			c.mutex.Unlock()
		}
		all := []any{}
		for _, pod := range pods {
			names := []string{}
			for _, kind := range []string{"containers", "initContainers"} {
				for _, one := range items(pod, "spec", kind) {
					names = append(names, text(one, "name"))
				}
			}
			// Where no mesh adds a sidecar, a pod of ours has one in its metrics alone, as an autoscaler sees it.
			if parts[4] == "checkup" && !slices.Contains(names, "istio-proxy") {
				names = append(names, "istio-proxy")
			}
			var containers []any
			for _, name := range names {
				containers = append(containers, object{"name": name, "usage": object{"cpu": c.use(labelOf(pod, "app.kubernetes.io/name"), name), "memory": "40Mi"}})
			}
			all = append(all, object{"metadata": object{"name": nameOf(pod), "namespace": parts[4], "labels": at(pod, "metadata", "labels")},
				"timestamp": time.Now().UTC().Format(time.RFC3339), "window": "15s", "containers": containers})
		}
		write(object{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": object{}, "items": all})
	default:
		http.NotFound(answer, asked)
	}
}
