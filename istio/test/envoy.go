package mesh

import (
	"fmt"
	"strings"
	"time"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfig "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// What is read out of Envoy's configuration, the way Envoy would read it.

// chains are the filter chains that take connections to a port of a pod, and the HTTP part of each.
func chains(listeners []*listener.Listener, name string, toPort uint32) (found []*listener.FilterChain) {
	for _, one := range listeners {
		if one.Name != name {
			continue
		}
		for _, chain := range one.FilterChains {
			if toPort == 0 || chain.GetFilterChainMatch().GetDestinationPort().GetValue() == toPort {
				found = append(found, chain)
			}
		}
	}
	return found
}

func httpOf(chain *listener.FilterChain) *hcm.HttpConnectionManager {
	for _, filter := range chain.Filters {
		manager := &hcm.HttpConnectionManager{}
		if filter.GetTypedConfig().MessageIs(manager) && filter.GetTypedConfig().UnmarshalTo(manager) == nil {
			return manager
		}
	}
	return nil
}

func filterNames(manager *hcm.HttpConnectionManager) (names []string) {
	for _, filter := range manager.GetHttpFilters() {
		names = append(names, filter.Name)
	}
	return names
}

// demandsCertificate says whether a chain takes nothing but TLS with a client certificate.
func demandsCertificate(chain *listener.FilterChain) bool {
	context := &tls.DownstreamTlsContext{}
	socket := chain.GetTransportSocket()
	return socket != nil && socket.GetTypedConfig().UnmarshalTo(context) == nil &&
		context.GetRequireClientCertificate().GetValue()
}

// Call is what a policy judges by.
type Call struct {
	Identity string
	Path     string
	Claims   map[string]string
}

// admits evaluates the RBAC filters of a connection manager as Envoy does: every one of them has to let the call pass.
func admits(manager *hcm.HttpConnectionManager, call Call) (bool, error) {
	filters := 0
	for _, filter := range manager.GetHttpFilters() {
		config := &rbac.RBAC{}
		if !filter.GetTypedConfig().MessageIs(config) {
			continue
		}
		if err := filter.GetTypedConfig().UnmarshalTo(config); err != nil {
			return false, err
		}
		if config.Rules == nil {
			continue
		}
		filters++
		matched, err := matches(config.Rules, call)
		if err != nil {
			return false, err
		}
		if matched != (config.Rules.Action == rbacconfig.RBAC_ALLOW) {
			return false, nil
		}
	}
	return true, nil
}

func matches(rules *rbacconfig.RBAC, call Call) (bool, error) {
	for name, policy := range rules.Policies {
		permitted, err := anyOf(policy.Permissions, func(p *rbacconfig.Permission) (bool, error) { return permits(p, call) })
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		meant, err := anyOf(policy.Principals, func(p *rbacconfig.Principal) (bool, error) { return means(p, call) })
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if permitted && meant {
			return true, nil
		}
	}
	return false, nil
}

func anyOf[T any](all []T, holds func(T) (bool, error)) (bool, error) {
	for _, one := range all {
		if held, err := holds(one); held || err != nil {
			return held, err
		}
	}
	return false, nil
}

func allOf[T any](all []T, holds func(T) (bool, error)) (bool, error) {
	for _, one := range all {
		if held, err := holds(one); !held || err != nil {
			return false, err
		}
	}
	return true, nil
}

// What is not known here is an error and not a guess.
func permits(permission *rbacconfig.Permission, call Call) (bool, error) {
	again := func(one *rbacconfig.Permission) (bool, error) { return permits(one, call) }
	switch rule := permission.Rule.(type) {
	case *rbacconfig.Permission_Any:
		return rule.Any, nil
	case *rbacconfig.Permission_AndRules:
		return allOf(rule.AndRules.Rules, again)
	case *rbacconfig.Permission_OrRules:
		return anyOf(rule.OrRules.Rules, again)
	case *rbacconfig.Permission_NotRule:
		held, err := again(rule.NotRule)
		return !held, err
	case *rbacconfig.Permission_UrlPath:
		return equals(rule.UrlPath.GetPath(), call.Path)
	}
	return false, fmt.Errorf("unknown permission %T", permission.Rule)
}

func means(principal *rbacconfig.Principal, call Call) (bool, error) {
	again := func(one *rbacconfig.Principal) (bool, error) { return means(one, call) }
	switch rule := principal.Identifier.(type) {
	case *rbacconfig.Principal_Any:
		return rule.Any, nil
	case *rbacconfig.Principal_AndIds:
		return allOf(rule.AndIds.Ids, again)
	case *rbacconfig.Principal_OrIds:
		return anyOf(rule.OrIds.Ids, again)
	case *rbacconfig.Principal_NotId:
		held, err := again(rule.NotId)
		return !held, err
	case *rbacconfig.Principal_Authenticated_:
		return equals(rule.Authenticated.GetPrincipalName(), "spiffe://"+call.Identity)
	case *rbacconfig.Principal_Metadata:
		path := rule.Metadata.GetPath()
		if len(path) != 2 || path[0].GetKey() != "payload" {
			return false, fmt.Errorf("unknown metadata %v", rule.Metadata)
		}
		claim, there := call.Claims[path[1].GetKey()]
		if !there {
			return false, nil
		}
		return anyOf(rule.Metadata.GetValue().GetOrMatch().GetValueMatchers(), func(value *matcher.ValueMatcher) (bool, error) {
			if value.GetStringMatch() == nil {
				return false, nil // a claim that is a list
			}
			return equals(value.GetStringMatch(), claim)
		})
	}
	return false, fmt.Errorf("unknown principal %T", principal.Identifier)
}

func equals(pattern *matcher.StringMatcher, text string) (bool, error) {
	switch pattern := pattern.GetMatchPattern().(type) {
	case *matcher.StringMatcher_Exact:
		return pattern.Exact == text, nil
	case *matcher.StringMatcher_Prefix:
		return strings.HasPrefix(text, pattern.Prefix), nil
	case *matcher.StringMatcher_Suffix:
		return strings.HasSuffix(text, pattern.Suffix), nil
	}
	return false, fmt.Errorf("unknown pattern %v", pattern)
}

// look finds the route that a call to a host takes: the first that matches.
func look(routes []*route.RouteConfiguration, host, path string) *route.Route {
	for _, config := range routes {
		for _, virtual := range config.VirtualHosts {
			if !strings.Contains(strings.Join(virtual.Domains, " ")+" ", host+" ") {
				continue
			}
			for _, one := range virtual.Routes {
				exact, prefix := one.GetMatch().GetPath(), one.GetMatch().GetPrefix()
				if (exact != "" && exact == path) || (prefix != "" && strings.HasPrefix(path, prefix)) {
					return one
				}
			}
		}
	}
	return nil
}

// timeout is what bounds a call, 0 for nothing.
func timeout(one *route.Route) time.Duration {
	return one.GetRoute().GetTimeout().AsDuration()
}

// hashedBy names the header whose calls go to one replica.
func hashedBy(action *route.RouteAction) string {
	var headers []string
	for _, policy := range action.GetHashPolicy() {
		headers = append(headers, policy.GetHeader().GetHeaderName())
	}
	return strings.Join(headers, ",")
}

// filterConfig finds an HTTP filter's own configuration, also where it came through an EnvoyFilter.
func filterConfig(manager *hcm.HttpConnectionManager, name string) *hcm.HttpFilter {
	for _, filter := range manager.GetHttpFilters() {
		if filter.Name == name {
			return filter
		}
	}
	return nil
}
