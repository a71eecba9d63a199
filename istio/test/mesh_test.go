// Package mesh holds the manifests of ../ to what they are for: by Istio's schemas and validation, and by the Envoy
// configuration that Istio's own control plane makes of them. Needs no cluster and no network.
package mesh

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"istio.io/istio/pkg/log"
)

// The control plane tells at length what it does; a test tells what went wrong.
func TestMain(m *testing.M) {
	options := log.DefaultOptions()
	options.SetDefaultOutputLevel(log.OverrideScopeName, log.NoneLevel)
	if err := log.Configure(options); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func shipped(t *testing.T) *Manifests {
	t.Helper()
	manifests, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

func TestWhatIsShippedIsRight(t *testing.T) {
	manifests := shipped(t)
	if len(manifests.Objects) < 20 {
		t.Fatalf("only %d objects were rendered", len(manifests.Objects))
	}
	for _, problem := range audit(t, manifests) {
		t.Error(problem)
	}
}

// Every rule of the audit is known to see what it is for: each mutant breaks one thing, and has to be found out by the
// words that belong to it.
func TestMutantsAreFoundOut(t *testing.T) {
	mutants := []struct {
		name   string
		mutate func(*Manifests)
		found  string
	}{
		{"a field that does not exist", set("DestinationRule", "hospital", 50.0, "trafficPolicy", "outlierDetection", "maxEjectionPercnt"), "unknown field"},
		{"a number out of its range", set("DestinationRule", "hospital", int64(300), "trafficPolicy", "outlierDetection", "maxEjectionPercent"), "is not in range"},
		{"errors counted by a field that Istio ignores", func(m *Manifests) {
			unset("DestinationRule", "hospital", "trafficPolicy", "outlierDetection", "consecutiveGatewayErrors")(m)
			set("DestinationRule", "hospital", int64(5), "trafficPolicy", "outlierDetection", "consecutiveErrors")(m)
		}, "deprecated"},
		{"nothing counted", unset("DestinationRule", "mypage", "trafficPolicy", "outlierDetection", "consecutiveGatewayErrors"), "not by gateway errors"},
		{"ejection by defects", unset("DestinationRule", "hospital", "trafficPolicy", "outlierDetection", "consecutive5xxErrors"), "by defects"},
		{"a share of which nobody is ejected", set("DestinationRule", "screening", int64(49), "trafficPolicy", "outlierDetection", "maxEjectionPercent"), "a share of 49 %"},
		{"a share that may be everybody", set("DestinationRule", "screening", int64(100), "trafficPolicy", "outlierDetection", "maxEjectionPercent"), "a share of 100 %"},
		{"no breaker at callers", unset("DestinationRule", "hospital", "trafficPolicy", "connectionPool", "http", "http2MaxRequests"), "screening: breaker of hospital"},
		{"no breaker at the pod", unset("Sidecar", "hospital", "inboundConnectionPool"), "hospital itself: breaker of hospital"},
		{"a rule for another host", set("DestinationRule", "reservation", "reservations.checkup.svc.cluster.local", "host"), "gateway: breaker of reservation"},
		{"a limit of connections", set("DestinationRule", "hospital", int64(1), "trafficPolicy", "connectionPool", "tcp", "maxConnections"), "limit of connections"},
		{"no retry budget", unset("DestinationRule", "hospital", "trafficPolicy", "retryBudget"), "no retry budget"},
		{"slots spread over replicas", set("DestinationRule", "hospital", map[string]any{"simple": "LEAST_REQUEST"}, "trafficPolicy", "loadBalancer"), "instead of a hash"},
		{"slots by another header", set("DestinationRule", "hospital", "slot", "trafficPolicy", "loadBalancer", "consistentHash", "httpHeaderName"), "is not sent by checkup-slot"},
		{"no warm-up", unset("DestinationRule", "screening", "trafficPolicy", "loadBalancer", "warmup"), "without a warm-up"},

		{"a typo in the path of a route", path("VirtualService", "screening", "CreateScreening", "CreateScreenings"), "no method has the path"},
		{"a typo in the path of a policy", path("AuthorizationPolicy", "screening-from-gateway", "CancelScreening", "CancelScreenin"), "no method has the path"},
		{"a method without a route", edit("VirtualService", "screening", "http", func(routes []any) {
			last := routes[len(routes)-1].(map[string]any)
			last["match"] = last["match"].([]any)[:2]
		}), "MarkNoShow has no route"},
		{"a route for what is internal", path("VirtualService", "hospital", "CapacityService/GetCapacityClaim", "CapacityService/ReserveCapacity"), "has a route and should have none"},
		{"a route that takes everything", edit("VirtualService", "marketing", "http", func(routes []any) { delete(routes[1].(map[string]any), "match") }), "takes every method"},
		{"a route to another service", onRoute("screening", "reads", "route", []any{map[string]any{"destination": map[string]any{
			"host": "reservation.checkup.svc.cluster.local", "port": map[string]any{"number": int64(8080)}}}}), "GetScreening leads to"},
		{"a route to another port", onRoute("screening", "reads", "route", []any{map[string]any{"destination": map[string]any{
			"host": "screening.checkup.svc.cluster.local", "port": map[string]any{"number": int64(50051)}}}}), "GetScreening leads to"},
		{"a timeout on a stream", onRoute("mypage", "streams", "timeout", "60s"), "ends after 1m0s"},
		{"no timeout on a call", onRoute("screening", "writes", "timeout", nil), "is not bounded"},
		{"deadlines of callers held against pods", remove("EnvoyFilter", "deadlines"), "its sidecar keeps its callers' deadlines"},
		{"a deadline of callers longer than the route's", func(m *Manifests) {
			for _, object := range m.Objects {
				if object.GetKind() == "EnvoyFilter" && object.GetName() == "deadlines" && object.GetNamespace() == "istio-ingress" {
					spec(object, "configPatches").([]any)[0].(map[string]any)["patch"].(map[string]any)["value"] = map[string]any{
						"route": map[string]any{"max_stream_duration": map[string]any{"max_stream_duration": "9s", "grpc_timeout_header_max": "9s"}}}
				}
			}
		}, "instead of 3s"},
		{"a booking cut off while it waits for Hospital", onRoute("screening", "booking", "timeout", "5s"), "before screening.hospital_timeout"},
		{"a move cut off while it waits for Hospital", edit("VirtualService", "screening", "http", func(routes []any) {
			booking, writes := routes[1].(map[string]any), routes[2].(map[string]any)
			matches := booking["match"].([]any)
			booking["match"], writes["match"] = matches[:1], append(writes["match"].([]any), matches[1])
		}), "RescheduleScreening is cut off after 5s, before screening.hospital_timeout"},
		{"a place cut off while it is asked for", onRoute("hospital-mesh", "places", "timeout", "2s"), "before screening.hospital_attempt"},
		{"a view cut off while it catches up", onRoute("mypage", "consistent-reads", "timeout", "3s"), "before the wait for a view"},
		{"a booking repeated", onRoute("screening", "booking", "retries", map[string]any{"attempts": int64(2)}), "CreateScreening is repeated"},
		{"a proposal repeated", onRoute("marketing", "proposals", "retries", map[string]any{"attempts": int64(1), "retryOn": "unavailable"}), "ProposeCapacityIncrease is repeated"},
		{"a stream repeated", onRoute("mypage", "streams", "retries", map[string]any{"attempts": int64(1), "retryOn": "unavailable"}), "WatchMyPage is repeated"},
		{"repeated at the replica that failed", retries("hospital-mesh", "places", func(policy map[string]any) { delete(policy, "retryIgnorePreviousHosts") }), "repeated at the replica that failed"},
		{"one try that ends the call", retries("hospital", "reads", func(policy map[string]any) { policy["retryOn"] = "unavailable" }), "ends after one try"},
		{"a read that nobody repeats", onRoute("reservation", "reads", "retries", map[string]any{"attempts": int64(0)}), "could be repeated"},
		{"everything repeated by default", install(nil, "meshConfig", "defaultHttpRetryPolicy"), "repeats calls by default"},

		{"a missing policy", remove("AuthorizationPolicy", "hospital-from-screening"), "sa/screening with the token \"\" to /checkup.capacity.v1.CapacityService/ReserveCapacity: false"},
		{"nothing refused by default", remove("AuthorizationPolicy", "deny-all"), "stranger admits"},
		{"a door for everybody", set("AuthorizationPolicy", "mypage-from-gateway", []any{map[string]any{}}, "rules"), "mypage admits cluster.local/ns/checkup/sa/stranger"},
		{"places for the gateway", path("AuthorizationPolicy", "hospital-from-gateway", "CapacityService/GetCapacityClaim", "CapacityService/ReserveCapacity"), "istio-ingressgateway-service-account with the token \"an auditor's\" to /checkup.capacity.v1.CapacityService/ReserveCapacity: true"},
		{"claims for everybody", edit("AuthorizationPolicy", "hospital-from-gateway", "rules", func(rules []any) { delete(rules[2].(map[string]any), "when") }), "with the token \"a customer's\" to /checkup.capacity.v1.CapacityService/GetCapacityClaim: true"},
		{"another identity of the gateway", func(m *Manifests) {
			edit("AuthorizationPolicy", "marketing-from-gateway", "rules", func(rules []any) {
				sources := rules[0].(map[string]any)["from"].([]any)[0].(map[string]any)["source"].(map[string]any)
				sources["principals"] = []any{"cluster.local/ns/istio-ingress/sa/istio-ingressgateway"}
			})(m)
		}, "ListDemandSignals: false"},
		{"a policy for another pod", set("AuthorizationPolicy", "reservation-from-gateway", "reservations", "selector", "matchLabels", "app.kubernetes.io/name"), "reservation admits"},
		{"plaintext", set("PeerAuthentication", "default", "PERMISSIVE", "mtls", "mode"), "what is not mutual TLS"},
		{"no encryption asked for", remove("PeerAuthentication", "default"), "what is not mutual TLS"},
		{"no tokens checked", remove("RequestAuthentication", "tokens"), "checks no tokens"},
		{"tokens of another issuer", edit("RequestAuthentication", "tokens", "jwtRules", func(rules []any) { rules[0].(map[string]any)["issuer"] = "somebody" }), "another issuer"},
		{"tokens that are not passed on", edit("RequestAuthentication", "tokens", "jwtRules", func(rules []any) { delete(rules[0].(map[string]any), "forwardOriginalToken") }), "or keeps them"},
		{"a key that is none", edit("RequestAuthentication", "tokens", "jwtRules", func(rules []any) { rules[0].(map[string]any)["jwks"] = "from jwks.json" }), "jwks parse error"},

		{"no REST", remove("EnvoyFilter", "transcoder"), "descriptors"},
		{"REST of an internal service", transcode(func(config map[string]any) {
			config["services"] = append(config["services"].([]any), "checkup.capacity.v1.CapacityService")
		}), "gateway: translates"},
		{"errors not translated", transcode(func(config map[string]any) { delete(config, "convert_grpc_status") }), "without descriptors, errors or routes"},
		{"paths and parameters of no method sent on", transcode(func(config map[string]any) { delete(config, "request_validation_options") }), "sends on what no method has"},
		{"a body that may name another resource", transcode(func(config map[string]any) {
			delete(config["request_validation_options"].(map[string]any), "reject_binding_body_field_collisions")
		}), "a body may name another resource"},
		{"a + that is no space", transcode(func(config map[string]any) { delete(config, "query_param_unescape_plus") }), "a + in a query is no space"},
		{"pages of Envoy's default size", transcode(func(config map[string]any) { delete(config, "max_response_body_size") }), "a page may have 0 bytes"},
		{"requests of a small size", transcode(func(config map[string]any) { config["max_request_body_size"] = int64(1000) }), "a request may have 1000 bytes"},
		{"half of REST understood", remove("EnvoyFilter", "strict"), "half understood is not refused"},
		{"strict after the transcoder", set("EnvoyFilter", "strict", int64(5), "priority"), "envoy.filters.http.grpc_json_transcoder is out of place"},
		{"errors as text", remove("EnvoyFilter", "errors"), "no error of its own has the code 3"},
		{"errors of gRPC as JSON", edit("EnvoyFilter", "errors", "configPatches", func(patches []any) {
			value := patches[0].(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)["typed_config"].(map[string]any)
			mapper := value["local_reply_config"].(map[string]any)["mappers"].([]any)[1].(map[string]any)
			mapper["filter"] = mapper["filter"].(map[string]any)["and_filter"].(map[string]any)["filters"].([]any)[1]
		}), "a proxy's own answers to gRPC"},
		{"no browsers for REST", remove("VirtualService", "rest"), "browsers cannot call /v1/hospitals"},
		{"no gRPC-web", remove("EnvoyFilter", "grpc-web"), "grpc_web is out of place"},
		{"no limit", remove("EnvoyFilter", "rate-limit"), "has no rate limit"},
		{"a limit behind what it protects", edit("EnvoyFilter", "rate-limit", "configPatches", func(patches []any) {
			match := patches[0].(map[string]any)["match"].(map[string]any)["listener"].(map[string]any)["filterChain"].(map[string]any)["filter"].(map[string]any)
			match["subFilter"] = map[string]any{"name": "envoy.filters.http.router"}
			patches[0].(map[string]any)["patch"].(map[string]any)["operation"] = "INSERT_BEFORE"
		}), "limits last"},
		{"a limit that callers repeat against", edit("EnvoyFilter", "rate-limit", "configPatches", func(patches []any) {
			delete(patches[0].(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)["typed_config"].(map[string]any), "rate_limited_as_resource_exhausted")
		}), "a limited call is UNAVAILABLE"},
		{"no browsers", onRoute("screening", "booking", "corsPolicy", nil), "browsers cannot call"},

		{"a way to everybody", set("Sidecar", "screening", []any{map[string]any{"hosts": []any{"./*"}}}, "egress"), "screening reaches"},
		{"no scope", remove("Sidecar", "default"), "stranger reaches"},
		{"a way out", install("ALLOW_ANY", "meshConfig", "outboundTrafficPolicy", "mode"), "let out what they do not know"},
		{"no traces", install([]any{}, "meshConfig", "extensionProviders"), "traces nothing"},
		{"spans for somebody else", func(m *Manifests) {
			provider := spec(m.Install[0], "meshConfig", "extensionProviders").([]any)[0].(map[string]any)["opentelemetry"].(map[string]any)
			provider["service"], provider["port"] = "hospital.checkup.svc.cluster.local", int64(port)
		}, "sends spans to outbound|8080||hospital"},
		{"another share at the gateway", set("Telemetry", "gateway", []any{map[string]any{
			"providers": []any{map[string]any{"name": "otel"}}, "randomSamplingPercentage": int64(5)}}, "tracing"), "has 5 of a hundred calls traced, and services 1"},
		{"spans that name customers", func(m *Manifests) {
			delete(spec(m.Install[0], "meshConfig", "extensionProviders").([]any)[0].(map[string]any)["opentelemetry"].(map[string]any), "maxTagLength")
		}, "gateway: spans have 0 characters of a path"},
		{"traces for whoever asks", remove("EnvoyFilter", "traces"), "callers may have their calls traced"},
		{"traces that end at the next proxy", edit("Telemetry", "traces", "tracing", func(all []any) {
			delete(all[0].(map[string]any), "useRequestIdForTraceSampling")
		}), "screening: decides by itself"},
		{"no log", unset("Telemetry", "gateway", "accessLogging"), "logs nothing"},
		{"no counters", install(nil, "meshConfig", "defaultConfig", "proxyStatsMatcher"), "counters of breakers"},
		{"mutual TLS for every team", func(m *Manifests) { must(m, "PeerAuthentication", "default").SetNamespace("istio-system") }, "another team's pod takes other calls"},
		{"logs of every team", func(m *Manifests) { must(m, "Telemetry", "traces").SetNamespace("istio-system") }, "is in a namespace that is not checkup's"},
		{"one control plane", install(int64(1), "components", "pilot", "k8s", "hpaSpec", "minReplicas"), "istiod runs 1 times"},
		{"control planes on one node", install([]any{}, "components", "pilot", "k8s", "overlays"), "istiod is not spread"},
		{"one gateway", onGateway(func(k8s map[string]any) { k8s["hpaSpec"].(map[string]any)["minReplicas"] = int64(1) }), "istio-ingressgateway runs 1 times"},
		{"gateways that end calls", onGateway(func(k8s map[string]any) { delete(k8s, "podAnnotations") }), "a gateway that goes ends calls after 0s"},
		{"gateways on one node, and killed while they drain", onGateway(func(k8s map[string]any) { delete(k8s, "overlays") }), "a gateway is killed after"},
		{"no gateway", install([]any{}, "components", "ingressGateways"), "no gateway"},
		{"a profile with a typo", install(true, "meshConfg"), "unknown field"},
	}
	whole := shipped(t)
	for _, mutant := range mutants {
		t.Run(strings.ReplaceAll(mutant.name, " ", "-"), func(t *testing.T) {
			broken := whole.clone()
			mutant.mutate(broken)
			problems := audit(t, broken)
			for _, problem := range problems {
				if strings.Contains(problem, mutant.found) {
					return
				}
			}
			t.Errorf("nobody said %q, but:\n%s", mutant.found, strings.Join(problems, "\n"))
		})
	}
}

// The ways to break a manifest. Each of them panics where there is nothing to break, so that no mutant is the shipped
// manifest.

func must(manifests *Manifests, kind, name string) *unstructured.Unstructured {
	object := manifests.find(kind, name)
	if object == nil {
		panic("there is no " + kind + " " + name)
	}
	return object
}

func set(kind, name string, value any, path ...string) func(*Manifests) {
	return func(m *Manifests) {
		if err := unstructured.SetNestedField(must(m, kind, name).Object, value, append([]string{"spec"}, path...)...); err != nil {
			panic(err)
		}
	}
}

func unset(kind, name string, path ...string) func(*Manifests) {
	return func(m *Manifests) {
		object := must(m, kind, name)
		if spec(object, path...) == nil {
			panic("nothing to unset")
		}
		unstructured.RemoveNestedField(object.Object, append([]string{"spec"}, path...)...)
	}
}

// edit changes a list of a spec in place.
func edit(kind, name, list string, change func([]any)) func(*Manifests) {
	return func(m *Manifests) { change(spec(must(m, kind, name), list).([]any)) }
}

func remove(kind, name string) func(*Manifests) {
	return func(m *Manifests) {
		object := must(m, kind, name)
		var rest []*unstructured.Unstructured
		for _, other := range m.Objects {
			if other != object {
				rest = append(rest, other)
			}
		}
		m.Objects = rest
	}
}

// path changes a method's path in a route or policy.
func path(kind, name, from, to string) func(*Manifests) {
	return func(m *Manifests) {
		object := must(m, kind, name)
		text, err := object.MarshalJSON()
		if err != nil || !strings.Contains(string(text), from+`"`) {
			panic("no path ends with " + from)
		}
		if err := object.UnmarshalJSON([]byte(strings.ReplaceAll(string(text), from+`"`, to+`"`))); err != nil {
			panic(err)
		}
	}
}

// onRoute changes a field of a named route; nil takes it away.
func onRoute(service, name, field string, value any) func(*Manifests) {
	return edit("VirtualService", service, "http", func(routes []any) {
		for _, one := range routes {
			if one := one.(map[string]any); one["name"] == name {
				one[field] = value
				if value == nil {
					delete(one, field)
				}
				return
			}
		}
		panic("there is no route " + name)
	})
}

func retries(service, name string, change func(map[string]any)) func(*Manifests) {
	return edit("VirtualService", service, "http", func(routes []any) {
		for _, one := range routes {
			if one := one.(map[string]any); one["name"] == name {
				change(one["retries"].(map[string]any))
				return
			}
		}
		panic("there is no route " + name)
	})
}

func transcode(change func(map[string]any)) func(*Manifests) {
	return edit("EnvoyFilter", "transcoder", "configPatches", func(patches []any) {
		value := patches[0].(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)
		change(value["typed_config"].(map[string]any))
	})
}

// onGateway changes what the profile says of the gateway's pods.
func onGateway(change func(map[string]any)) func(*Manifests) {
	return func(m *Manifests) {
		gateways := spec(m.Install[0], "components", "ingressGateways").([]any)
		change(gateways[0].(map[string]any)["k8s"].(map[string]any))
	}
}

// install changes the profile; nil takes a field away.
func install(value any, path ...string) func(*Manifests) {
	return func(m *Manifests) {
		at := append([]string{"spec"}, path...)
		if value == nil {
			unstructured.RemoveNestedField(m.Install[0].Object, at...)
		} else if err := unstructured.SetNestedField(m.Install[0].Object, value, at...); err != nil {
			panic(err)
		}
	}
}
