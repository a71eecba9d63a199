package mesh

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	transcoder "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	jwt "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"istio.io/istio/pkg/test"
)

const host = "checkup.example.com"

// The fewest replicas a service runs with: below 100 divided by it, maxEjectionPercent ejects nobody.
const fewestReplicas = 2

// What every method is to be given, as the proxy that counts has it: the gateway, and inside of the mesh whoever calls
// Hospital. 0 is no timeout.
var wantedTimeouts = map[string]map[string]time.Duration{
	"gateway": {
		"hospital.v1.HospitalService/CreateHospital":               10 * time.Second,
		"hospital.v1.HospitalService/GetHospital":                  3 * time.Second,
		"hospital.v1.HospitalService/ListHospitals":                3 * time.Second,
		"hospital.v1.HospitalService/UpdateHospital":               5 * time.Second,
		"hospital.v1.HospitalService/DeleteHospital":               10 * time.Second,
		"hospital.v1.HospitalService/CreateSlot":                   5 * time.Second,
		"hospital.v1.HospitalService/BatchCreateSlots":             10 * time.Second,
		"hospital.v1.HospitalService/GetSlot":                      3 * time.Second,
		"hospital.v1.HospitalService/ListSlots":                    3 * time.Second,
		"hospital.v1.HospitalService/SetSlotCapacity":              5 * time.Second,
		"hospital.v1.HospitalService/CloseSlot":                    5 * time.Second,
		"hospital.v1.HospitalService/BatchCloseSlots":              10 * time.Second,
		"hospital.v1.HospitalService/ReopenSlot":                   5 * time.Second,
		"hospital.v1.HospitalService/SearchAvailability":           5 * time.Second,
		"hospital.v1.HospitalService/WatchAvailability":            0,
		"hospital.v1.HospitalService/CreateCapacityRequest":        5 * time.Second,
		"hospital.v1.HospitalService/GetCapacityRequest":           3 * time.Second,
		"hospital.v1.HospitalService/ListCapacityRequests":         3 * time.Second,
		"hospital.v1.HospitalService/ApproveCapacityRequest":       5 * time.Second,
		"hospital.v1.HospitalService/RejectCapacityRequest":        5 * time.Second,
		"capacity.v1.CapacityService/GetCapacityClaim":             3 * time.Second,
		"capacity.v1.CapacityService/ListCapacityClaims":           3 * time.Second,
		"screening.v1.ScreeningService/CreateScreening":            8 * time.Second,
		"screening.v1.ScreeningService/GetScreening":               3 * time.Second,
		"screening.v1.ScreeningService/ListScreenings":             3 * time.Second,
		"screening.v1.ScreeningService/CancelScreening":            5 * time.Second,
		"screening.v1.ScreeningService/RescheduleScreening":        8 * time.Second,
		"screening.v1.ScreeningService/UpdateScreening":            5 * time.Second,
		"screening.v1.ScreeningService/CompleteScreening":          5 * time.Second,
		"screening.v1.ScreeningService/MarkNoShow":                 5 * time.Second,
		"reservation.v1.ReservationService/GetReservation":         6 * time.Second,
		"reservation.v1.ReservationService/ListReservations":       3 * time.Second,
		"reservation.v1.ReservationService/ListReservationHistory": 3 * time.Second,
		"mypage.v1.MyPageService/GetMyPage":                        6 * time.Second,
		"mypage.v1.MyPageService/ListMyPageItems":                  6 * time.Second,
		"mypage.v1.MyPageService/WatchMyPage":                      0,
		"marketing.v1.MarketingService/ListDemandSignals":          3 * time.Second,
		"marketing.v1.MarketingService/ProposeCapacityIncrease":    6 * time.Second,
	},
	"screening": {
		"capacity.v1.CapacityService/ReserveCapacity":      3 * time.Second,
		"capacity.v1.CapacityService/BatchReserveCapacity": 3 * time.Second,
		"capacity.v1.CapacityService/ReleaseCapacity":      3 * time.Second,
		"capacity.v1.CapacityService/GetCapacityClaim":     3 * time.Second,
		"capacity.v1.CapacityService/ListCapacityClaims":   3 * time.Second,
		"hospital.v1.HospitalService/GetHospital":          3 * time.Second,
		"hospital.v1.HospitalService/GetSlot":              3 * time.Second,
	},
	"marketing": {"hospital.v1.HospitalService/CreateCapacityRequest": 5 * time.Second},
}

// How many calls a service may have under way, and waiting for a connection.
var wantedBreakers = map[string][2]uint32{
	"hospital": {1024, 1024}, "screening": {1024, 1024}, "reservation": {512, 512}, "mypage": {8192, 1024}, "marketing": {512, 512},
}

// Audit says everything that is wrong with the manifests: on paper, and with what Istio makes of them.
func audit(t test.Failer, manifests *Manifests) []string {
	problems := validate(manifests)
	if len(problems) > 0 {
		return problems // Istio would not take them, so there is nothing to derive
	}
	text, _ := descriptorsOf(manifests)
	contract, err := readContract(text)
	if err != nil {
		return append(problems, "the transcoder's descriptors: "+err.Error())
	}
	problems = append(problems, unknownPaths(manifests, contract)...)
	mesh, err := derive(t, manifests)
	if err != nil {
		return append(problems, err.Error())
	}
	for _, check := range []func(*Mesh, *Contract) []string{
		routing, repetition, breakers, ejection, admission, encryption, gateway, scopes, observation, availability,
	} {
		problems = append(problems, check(mesh, contract)...)
	}
	return append(problems, neighbours(t, mesh, manifests)...)
}

func descriptorsOf(manifests *Manifests) (string, bool) {
	filter := manifests.find("EnvoyFilter", "transcoder")
	if filter == nil {
		return "", false
	}
	patches, _ := spec(filter, "configPatches").([]any)
	for _, patch := range patches {
		text, found, _ := unstructured.NestedString(patch.(map[string]any), "patch", "value", "typed_config", "proto_descriptor_bin")
		if found {
			return text, true
		}
	}
	return "", false
}

// unknownPaths are those that lead to no method of the contract: a typo would be a route or a policy that never
// matches.
func unknownPaths(manifests *Manifests, contract *Contract) (problems []string) {
	visit := func(object *unstructured.Unstructured, path string) {
		if path != "/v1/" && !contract.knows(path) {
			problems = append(problems, fmt.Sprintf("%s: no method has the path %s", id(object), path))
		}
	}
	for _, object := range manifests.Objects {
		switch object.GetKind() {
		case "VirtualService":
			routes, _ := spec(object, "http").([]any)
			for _, one := range routes {
				matches, _ := one.(map[string]any)["match"].([]any)
				if len(matches) == 0 {
					problems = append(problems, id(object)+": a route that takes every method")
				}
				for _, match := range matches {
					uri, _, _ := unstructured.NestedMap(match.(map[string]any), "uri")
					for _, path := range uri {
						visit(object, path.(string))
					}
				}
			}
		case "AuthorizationPolicy":
			rules, _ := spec(object, "rules").([]any)
			for _, rule := range rules {
				targets, _ := rule.(map[string]any)["to"].([]any)
				for _, target := range targets {
					paths, _, _ := unstructured.NestedStringSlice(target.(map[string]any), "operation", "paths")
					for _, path := range paths {
						visit(object, path)
					}
				}
			}
		}
	}
	return problems
}

func pathOf(method string) string { return "/checkup." + method }

// routing: every public method leads from the gateway to its service within its time, no other does, and inside of the
// mesh the same for the calls there are.
func routing(mesh *Mesh, contract *Contract) (problems []string) {
	longest, err := defaultOf("server", "max_deadline")
	if err != nil {
		return []string{err.Error()}
	}
	for _, caller := range slices.Sorted(maps.Keys(wantedTimeouts)) {
		at := "hospital.checkup.svc.cluster.local"
		if caller == "gateway" {
			at = host
		}
		for _, method := range contract.Methods {
			wanted, listed := wantedTimeouts[caller][strings.TrimPrefix(method.Path, "/checkup.")]
			if caller == "marketing" || caller == "screening" {
				if method.Service != "hospital" || !listed {
					continue
				}
			}
			found := look(mesh.Proxies[caller].Routes, at, method.Path)
			if !listed {
				if found != nil {
					problems = append(problems, fmt.Sprintf("%s: %s has a route and should have none", caller, method.Path))
				}
				if method.Public {
					problems = append(problems, fmt.Sprintf("%s: nobody said how long %s may take", caller, method.Path))
				}
				continue
			}
			if found == nil {
				problems = append(problems, fmt.Sprintf("%s: %s has no route", caller, method.Path))
				continue
			}
			to := fmt.Sprintf("outbound|%d||%s.checkup.svc.cluster.local", port, method.Service)
			if found.GetRoute().GetCluster() != to || mesh.Proxies[caller].Clusters[to] == nil {
				problems = append(problems, fmt.Sprintf("%s: %s leads to %s", caller, method.Path, found.GetRoute().GetCluster()))
			}
			got := timeout(found)
			if method.Streams && got != 0 {
				problems = append(problems, fmt.Sprintf("%s: the stream %s ends after %s", caller, method.Path, got))
			}
			if !method.Streams && (got == 0 || got > longest) {
				problems = append(problems, fmt.Sprintf("%s: %s is not bounded within %s", caller, method.Path, longest))
			}
			if got != wanted || found.GetRoute().GetMaxGrpcTimeout().AsDuration() != wanted { //nolint:staticcheck // what Istio writes
				problems = append(problems, fmt.Sprintf("%s: %s may take %s instead of %s", caller, method.Path, got, wanted))
			}
			if whole := found.GetRoute().GetMaxStreamDuration(); whole == nil || whole.GetMaxStreamDuration().AsDuration() != wanted ||
				whole.GetGrpcTimeoutHeaderMax() == nil || whole.GetGrpcTimeoutHeaderMax().AsDuration() != wanted {
				problems = append(problems, fmt.Sprintf("%s: a caller's deadline for %s is held against the pod: %v instead of %s", caller, method.Path, whole, wanted))
			}
		}
	}
	problems = append(problems, deadlinesInside(mesh)...)
	for _, path := range reflection {
		if found := look(mesh.Proxies["gateway"].Routes, host, path); found == nil || timeout(found) != 0 {
			problems = append(problems, "gateway: "+path+" has no route without a timeout")
		}
	}
	if found := look(mesh.Proxies["gateway"].Routes, host, "/v1/hospitals"); found.GetTypedPerFilterConfig()["envoy.filters.http.cors"] == nil {
		problems = append(problems, "gateway: browsers cannot call /v1/hospitals")
	}
	return append(problems, timeoutsFit(mesh)...)
}

// deadlinesInside: at a pod the service alone keeps its caller's deadline. The sidecar's answer would be held against
// the pod.
func deadlinesInside(mesh *Mesh) (problems []string) {
	for _, service := range services {
		taken := chains(mesh.Proxies[service].Listeners, "virtualInbound", port)
		for _, chain := range taken {
			virtuals := httpOf(chain).GetRouteConfig().GetVirtualHosts()
			if len(virtuals) != 1 || len(virtuals[0].GetRoutes()) == 0 {
				problems = append(problems, service+": what comes in has no route")
				continue
			}
			first := virtuals[0].GetRoutes()[0].GetRoute()
			if first.GetMaxStreamDuration().GetGrpcTimeoutHeaderMax() != nil || first.GetMaxStreamDuration() == nil ||
				first.GetMaxGrpcTimeout() != nil || //nolint:staticcheck // what Istio writes
				first.GetCluster() != fmt.Sprintf("inbound|%d||", port) || first.GetTimeout().AsDuration() != 0 {
				problems = append(problems, fmt.Sprintf("%s: its sidecar keeps its callers' deadlines: %v", service, first))
			}
		}
	}
	return problems
}

// timeoutsFit: what a service waits for inside has to fit into what its caller waits.
func timeoutsFit(mesh *Mesh) (problems []string) {
	shorter := func(inside time.Duration, what, caller, at, path string) {
		if found := look(mesh.Proxies[caller].Routes, at, path); timeout(found) <= inside {
			problems = append(problems, fmt.Sprintf("%s: %s is cut off after %s, before %s (%s)", caller, path, timeout(found), what, inside))
		}
	}
	hospital := "hospital.checkup.svc.cluster.local"
	whole, err := defaultOf("screening", "hospital_timeout")
	attempt, err2 := defaultOf("screening", "hospital_attempt")
	if err != nil || err2 != nil {
		return []string{fmt.Sprint(err, err2)}
	}
	shorter(whole, "screening.hospital_timeout", "gateway", host, book)
	shorter(whole, "screening.hospital_timeout", "gateway", host, move)
	shorter(attempt, "screening.hospital_attempt", "screening", hospital, reserve)
	shorter(attempt, "screening.hospital_attempt", "screening", hospital, reserveAll)
	shorter(attempt, "screening.hospital_attempt", "screening", hospital, release)
	const view = 5 * time.Second // the contract: a consistent read waits that long at most
	for _, method := range []string{"mypage.v1.MyPageService/GetMyPage", "mypage.v1.MyPageService/ListMyPageItems", "reservation.v1.ReservationService/GetReservation"} {
		shorter(view, "the wait for a view", "gateway", host, pathOf(method))
	}
	return problems
}

// defaultOf reads a duration out of the binary's default configuration.
func defaultOf(section, key string) (time.Duration, error) {
	value, err := settingOf(filepath.Join("..", "..", "crates", "bin", "checkup", "src", "default.toml"), section, key)
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.ReplaceAll(value, " ", ""))
}

// settingOf reads a text or a number out of a document of the configuration.
func settingOf(file, section, key string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	_, after, found := strings.Cut(string(text), "\n["+section+"]\n")
	if !found {
		return "", fmt.Errorf("%s has no section %s", file, section)
	}
	after, _, _ = strings.Cut(after, "\n[")
	value := regexp.MustCompile(`(?m)^` + key + ` = "?([^"\n]+)"?$`).FindStringSubmatch(after)
	if value == nil {
		return "", fmt.Errorf("%s has no %s.%s", file, section, key)
	}
	return value[1], nil
}

// repetition: nothing is sent twice but what may be, and then to another replica and within a budget.
func repetition(mesh *Mesh, contract *Contract) (problems []string) {
	if mesh.Config.GetDefaultHttpRetryPolicy() == nil || mesh.Config.GetDefaultHttpRetryPolicy().GetAttempts() != 0 {
		problems = append(problems, "install.yaml: the mesh repeats calls by default")
	}
	repeatable := map[string]bool{}
	for _, method := range contract.Methods {
		repeatable[method.Path] = method.Repeatable()
	}
	for name, proxy := range mesh.Proxies {
		for _, config := range proxy.Routes {
			for _, virtual := range config.VirtualHosts {
				for _, one := range virtual.Routes {
					policy := one.GetRoute().GetRetryPolicy()
					if policy == nil {
						continue
					}
					path := one.GetMatch().GetPath()
					if !repeatable[path] {
						problems = append(problems, fmt.Sprintf("%s: %s%s is repeated", name, path, one.GetMatch().GetPrefix()))
					}
					if policy.GetNumRetries().GetValue() > 2 {
						problems = append(problems, fmt.Sprintf("%s: %s is repeated %d times", name, path, policy.GetNumRetries().GetValue()))
					}
					if len(policy.GetRetryHostPredicate()) == 0 {
						problems = append(problems, fmt.Sprintf("%s: %s is repeated at the replica that failed", name, path))
					}
					if try := policy.GetPerTryTimeout(); try != nil && !strings.Contains(policy.RetryOn, "gateway-error") {
						problems = append(problems, fmt.Sprintf("%s: %s ends after one try of %s", name, path, try.AsDuration()))
					}
					if strings.Contains(policy.RetryOn, "cancelled") || strings.Contains(policy.RetryOn, "5xx") {
						problems = append(problems, fmt.Sprintf("%s: %s is repeated on %s", name, path, policy.RetryOn))
					}
				}
			}
		}
	}
	for _, caller := range []string{"gateway", "screening"} {
		for _, method := range contract.Methods {
			at := map[bool]string{true: host, false: "hospital.checkup.svc.cluster.local"}[caller == "gateway"]
			_, listed := wantedTimeouts[caller][strings.TrimPrefix(method.Path, "/checkup.")]
			if !listed || !method.Repeatable() {
				continue
			}
			if look(mesh.Proxies[caller].Routes, at, method.Path).GetRoute().GetRetryPolicy() == nil {
				problems = append(problems, fmt.Sprintf("%s: %s could be repeated and is not", caller, method.Path))
			}
		}
	}
	return problems
}

// clustersOf are what calls of a service go through: in its callers' proxies, and in its own for what comes in.
func clustersOf(mesh *Mesh, service string) (outbound, inbound map[string]*cluster.Cluster) {
	outbound, inbound = map[string]*cluster.Cluster{}, map[string]*cluster.Cluster{}
	callers := []string{"gateway"}
	if service == "hospital" {
		callers = append(callers, "screening", "marketing")
	}
	for _, caller := range callers {
		outbound[caller] = mesh.Proxies[caller].Clusters[fmt.Sprintf("outbound|%d||%s.checkup.svc.cluster.local", port, service)]
	}
	inbound[service+" itself"] = mesh.Proxies[service].Clusters[fmt.Sprintf("inbound|%d||", port)]
	return outbound, inbound
}

// breakers: every proxy on the way of a call has a limit, and it is the one that was chosen.
func breakers(mesh *Mesh, _ *Contract) (problems []string) {
	for _, service := range services {
		outbound, inbound := clustersOf(mesh, service)
		for at, one := range merged(outbound, inbound) {
			for _, limits := range one.GetCircuitBreakers().GetThresholds() {
				calls, waiting := limits.GetMaxRequests().GetValue(), limits.GetMaxPendingRequests().GetValue()
				if wanted := wantedBreakers[service]; calls != wanted[0] || waiting != wanted[1] {
					problems = append(problems, fmt.Sprintf("%s: breaker of %s is %d, %d waiting", at, service, calls, waiting))
				}
				if limits.GetMaxConnections().GetValue() < 1<<31 {
					problems = append(problems, fmt.Sprintf("%s: %s has a limit of connections, which is none for gRPC", at, service))
				}
				if outbound[at] != nil && limits.GetRetryBudget().GetBudgetPercent().GetValue() != 20 {
					problems = append(problems, fmt.Sprintf("%s: %s has no retry budget", at, service))
				}
			}
			if len(one.GetCircuitBreakers().GetThresholds()) == 0 {
				problems = append(problems, fmt.Sprintf("%s: %s has no breaker", at, service))
			}
			if outbound[at] != nil && one.GetConnectTimeout().AsDuration() > 2*time.Second {
				problems = append(problems, fmt.Sprintf("%s: a connection to %s may take %s", at, service, one.GetConnectTimeout().AsDuration()))
			}
		}
		for caller, one := range outbound {
			problems = append(problems, balancing(mesh, service, caller, one)...)
		}
	}
	return problems
}

func merged(maps_ ...map[string]*cluster.Cluster) map[string]*cluster.Cluster {
	all := map[string]*cluster.Cluster{}
	for _, one := range maps_ {
		maps.Copy(all, one)
	}
	return all
}

// balancing: by slot, by person, or by load with a warm-up.
func balancing(mesh *Mesh, service, caller string, one *cluster.Cluster) (problems []string) {
	header := map[string]string{"hospital": "checkup-slot", "mypage": "checkup-subject"}[service]
	if header == "" {
		if one.GetLbPolicy() != cluster.Cluster_LEAST_REQUEST || one.GetLeastRequestLbConfig().GetSlowStartConfig() == nil {
			problems = append(problems, fmt.Sprintf("%s: %s is balanced by %s without a warm-up", caller, service, one.GetLbPolicy()))
		}
		return problems
	}
	if one.GetLbPolicy() != cluster.Cluster_RING_HASH {
		problems = append(problems, fmt.Sprintf("%s: %s is balanced by %s instead of a hash", caller, service, one.GetLbPolicy()))
	}
	for _, config := range mesh.Proxies[caller].Routes {
		for _, virtual := range config.VirtualHosts {
			for _, route := range virtual.Routes {
				if route.GetRoute().GetCluster() == one.GetName() && hashedBy(route.GetRoute()) != header {
					problems = append(problems, fmt.Sprintf("%s: %s is not sent by %s", caller, route.GetMatch().GetPath(), header))
				}
			}
		}
	}
	return problems
}

// ejection: by gateway errors and failed connections, never by what a defect or a refusal looks like, and of a share
// that can be.
func ejection(mesh *Mesh, _ *Contract) (problems []string) {
	for _, service := range services {
		outbound, _ := clustersOf(mesh, service)
		for at, one := range outbound {
			complain := func(what string, values ...any) {
				problems = append(problems, fmt.Sprintf("%s: ejection of %s: %s", at, service, fmt.Sprintf(what, values...)))
			}
			detection := one.GetOutlierDetection()
			if detection == nil {
				complain("there is none")
				continue
			}
			wanted := uint32(5)
			if service == "screening" {
				wanted = 20
			}
			if detection.GetConsecutiveGatewayFailure().GetValue() != wanted || detection.GetEnforcingConsecutiveGatewayFailure().GetValue() != 100 {
				complain("not by gateway errors but %v", detection)
			}
			if detection.GetEnforcingConsecutive_5Xx().GetValue() != 0 || detection.GetEnforcingConsecutive_5Xx() == nil {
				complain("by defects (5xx)")
			}
			if detection.GetEnforcingSuccessRate() == nil || detection.GetEnforcingSuccessRate().GetValue() != 0 {
				complain("by success rate")
			}
			if !detection.GetSplitExternalLocalOriginErrors() || detection.GetConsecutiveLocalOriginFailure().GetValue() != 3 {
				complain("failed connections are not counted apart")
			}
			if share := detection.GetMaxEjectionPercent().GetValue(); share < (100+fewestReplicas-1)/fewestReplicas || share >= 100 {
				complain("a share of %d %% of %d replicas", share, fewestReplicas)
			}
			if detection.GetBaseEjectionTime().AsDuration() != 15*time.Second || detection.GetInterval().AsDuration() != 5*time.Second {
				complain("for %s, looked at every %s", detection.GetBaseEjectionTime().AsDuration(), detection.GetInterval().AsDuration())
			}
		}
	}
	return problems
}

// admission: for every identity and every method, at every service, with and without tokens.
func admission(mesh *Mesh, contract *Contract) (problems []string) {
	const own = "cluster.local/ns/checkup/sa/"
	door := "cluster.local/ns/istio-ingress/sa/" + mesh.GatewayAccount
	tokens := map[string]map[string]string{
		"":                 nil,
		"a customer's":     {"role": "customer", "sub": "kim"},
		"an admin's":       {"role": "admin", "sub": "lee"},
		"an auditor's":     {"role": "auditor", "sub": "kang"},
		"marketing's":      {"role": "service", "sub": "marketing"},
		"screening's":      {"role": "service", "sub": "screening"},
		"of one marketing": {"role": "customer", "sub": "marketing"},
	}
	expected := func(identity, token string, method Method) bool {
		switch identity {
		case door:
			switch method.Path {
			case askForMore:
				return token == "marketing's"
			case getClaim, listClaims:
				return token == "an auditor's"
			}
			return method.Public
		case own + "screening":
			return slices.Contains([]string{reserve, reserveAll, release, getClaim, listClaims, getHospital, getSlot}, method.Path)
		case own + "marketing":
			return method.Path == askForMore
		}
		return false
	}
	identities := []string{door, own + "stranger", own + "default", "cluster.local/ns/istio-ingress/sa/default", "cluster.local/ns/other/sa/screening"}
	for _, service := range services {
		identities = append(identities, own+service)
	}
	methods := slices.Clone(contract.Methods)
	for _, path := range reflection {
		methods = append(methods, Method{Path: path, Service: "hospital", Public: true})
	}
	methods = append(methods, Method{Path: "/checkup.hospital.v1.HospitalService/Unknown"}, Method{Path: "/"})
	asked := 0
	for name, proxy := range mesh.Proxies {
		if name == "gateway" || name == "neighbour" {
			continue
		}
		for _, chain := range chains(proxy.Listeners, "virtualInbound", port) {
			manager := httpOf(chain)
			if manager == nil {
				problems = append(problems, name+": its port is not HTTP to its proxy")
				continue
			}
			for _, identity := range identities {
				for token, claims := range tokens {
					for _, method := range methods {
						asked++
						got, err := admits(manager, Call{Identity: identity, Path: method.Path, Claims: claims})
						wanted := method.Service == name && expected(identity, token, method)
						if err != nil || got != wanted {
							problems = append(problems, fmt.Sprintf("%s admits %s with the token %q to %s: %t %v", name, identity, token, method.Path, got, err))
						}
					}
				}
			}
		}
	}
	if asked == 0 {
		problems = append(problems, "no service takes calls")
	}
	return problems
}

// encryption: nothing comes to a pod but by mutual TLS, and nothing goes to one otherwise.
func encryption(mesh *Mesh, _ *Contract) (problems []string) {
	for name, proxy := range mesh.Proxies {
		if name == "gateway" || name == "neighbour" {
			continue
		}
		taken := chains(proxy.Listeners, "virtualInbound", port)
		if len(taken) == 0 {
			problems = append(problems, name+": its port has no chain")
		}
		for _, chain := range chains(proxy.Listeners, "virtualInbound", 0) {
			// Istio's own guard against a pod that calls itself in a circle; it leads nowhere.
			if !demandsCertificate(chain) && chain.Name != "virtualInbound-blackhole" {
				problems = append(problems, fmt.Sprintf("%s: takes what is not mutual TLS (%s)", name, chain.Name))
			}
		}
		for _, chain := range taken {
			problems = append(problems, tokens(name, httpOf(chain))...)
		}
	}
	return problems
}

// tokens: every proxy that judges by claims has checked them, and passes the token on.
func tokens(name string, manager *hcm.HttpConnectionManager) (problems []string) {
	filter := filterConfig(manager, "envoy.filters.http.jwt_authn")
	config := &jwt.JwtAuthentication{}
	if filter == nil || filter.GetTypedConfig().UnmarshalTo(config) != nil || len(config.Providers) != 1 {
		return []string{name + ": checks no tokens"}
	}
	for _, provider := range config.Providers {
		if provider.Issuer != "checkup" || !slices.Equal(provider.Audiences, []string{"checkup"}) || !provider.Forward {
			problems = append(problems, name+": checks tokens of another issuer, for others, or keeps them")
		}
		if !strings.Contains(provider.GetLocalJwks().GetInlineString(), `"crv": "Ed25519"`) {
			problems = append(problems, name+": has no key to check tokens with")
		}
		subject := len(provider.ClaimToHeaders) == 1 && provider.ClaimToHeaders[0].HeaderName == "checkup-subject" && provider.ClaimToHeaders[0].ClaimName == "sub"
		if (name == "gateway") != subject {
			problems = append(problems, name+": checkup-subject is the gateway's to set")
		}
	}
	return problems
}

// gateway: what filters a call from outside goes through, in which order, and what they were given.
func gateway(mesh *Mesh, contract *Contract) (problems []string) {
	found := chains(mesh.Proxies["gateway"].Listeners, "0.0.0.0_8443", 0)
	if len(found) != 1 || httpOf(found[0]) == nil {
		return []string{fmt.Sprintf("gateway: %d chains on its port", len(found))}
	}
	manager := httpOf(found[0])
	names := filterNames(manager)
	last := -1
	for _, name := range []string{
		"envoy.filters.http.local_ratelimit", "envoy.filters.http.jwt_authn", "envoy.filters.http.cors", "envoy.filters.http.grpc_web",
		"envoy.filters.http.lua", "envoy.filters.http.grpc_json_transcoder", "envoy.filters.http.router",
	} {
		place := slices.Index(names, name)
		if place <= last {
			problems = append(problems, fmt.Sprintf("gateway: %s is out of place in %v", name, names))
		}
		last = max(last, place)
	}
	if len(names) == 0 || names[0] != "envoy.filters.http.local_ratelimit" || last != len(names)-1 {
		problems = append(problems, fmt.Sprintf("gateway: limits last or routes early: %v", names))
	}
	problems = append(problems, tokens("gateway", manager)...)

	problems = append(problems, rest(manager, contract)...)

	json := &transcoder.GrpcJsonTranscoder{}
	if filter := filterConfig(manager, "envoy.filters.http.grpc_json_transcoder"); filter == nil || filter.GetTypedConfig().UnmarshalTo(json) != nil {
		problems = append(problems, "gateway: has no transcoder")
	}
	slices.Sort(contract.services)
	if !slices.Equal(json.GetServices(), contract.services) {
		problems = append(problems, fmt.Sprintf("gateway: translates %v instead of %v", json.GetServices(), contract.services))
	}
	if len(json.GetProtoDescriptorBin()) == 0 || !json.GetConvertGrpcStatus() || json.GetMatchIncomingRequestRoute() {
		problems = append(problems, "gateway: translates without descriptors, errors or routes")
	}
	if !json.GetRequestValidationOptions().GetRejectUnknownMethod() || !json.GetRequestValidationOptions().GetRejectUnknownQueryParameters() {
		problems = append(problems, "gateway: sends on what no method has")
	}
	for _, detail := range []string{"ErrorInfo", "BadRequest", "RetryInfo", "PreconditionFailure", "ResourceInfo", "QuotaFailure", "LocalizedMessage"} {
		if !contract.messages["google.rpc."+detail] {
			problems = append(problems, "gateway: cannot translate the error detail "+detail)
		}
	}

	limit := &ratelimit.LocalRateLimit{}
	if filter := filterConfig(manager, "envoy.filters.http.local_ratelimit"); filter == nil || filter.GetTypedConfig().UnmarshalTo(limit) != nil {
		problems = append(problems, "gateway: has no rate limit")
	}
	if !limit.GetRateLimitedAsResourceExhausted() {
		problems = append(problems, "gateway: a limited call is UNAVAILABLE, which callers repeat")
	}
	if limit.GetFilterEnforced().GetDefaultValue().GetNumerator() != 100 || limit.GetTokenBucket().GetMaxTokens() == 0 {
		problems = append(problems, "gateway: the rate limit is not enforced")
	}
	for _, method := range contract.Methods {
		if route := look(mesh.Proxies["gateway"].Routes, host, method.Path); route != nil && route.GetTypedPerFilterConfig()["envoy.filters.http.cors"] == nil {
			problems = append(problems, "gateway: browsers cannot call "+method.Path)
		}
	}
	return problems
}

// scopes: a process reaches whom it has business with and nobody else.
func scopes(mesh *Mesh, _ *Contract) (problems []string) {
	for _, name := range append(services[:len(services):len(services)], "stranger") {
		wanted := []string{"outbound|4317||otel-collector.observability.svc.cluster.local"}
		if name == "screening" || name == "marketing" {
			wanted = append(wanted, fmt.Sprintf("outbound|%d||hospital.checkup.svc.cluster.local", port))
		}
		var reached []string
		for one := range mesh.Proxies[name].Clusters {
			if strings.HasPrefix(one, "outbound|") {
				reached = append(reached, one)
			}
		}
		slices.Sort(reached)
		if !slices.Equal(reached, wanted) {
			problems = append(problems, fmt.Sprintf("%s reaches %v", name, reached))
		}
	}
	if mode := mesh.Config.GetOutboundTrafficPolicy().GetMode().String(); mode != "REGISTRY_ONLY" {
		problems = append(problems, "install.yaml: sidecars let out what they do not know: "+mode)
	}
	return problems
}
