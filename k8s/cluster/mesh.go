package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	meshDocument = "istio/README.md"
	meshApply    = "kubectl apply -k istio"
	// The namespace of another team of the same mesh.
	neighbour = "neighbour"
)

// The namespaces that are checkup's.
var ours = []string{"checkup", "istio-ingress"}

// installMesh follows istio/README.md on a cluster where neither checkup nor Istio is. Another team is there before
// what is checkup's is applied.
func installMesh(c *Cluster) error {
	if err := c.get("/api/v1/namespaces/checkup", nil); err == nil {
		if err := c.gone("checkup"); err != nil {
			return err
		}
	}
	for _, one := range []string{"crt", "key"} {
		made, err := os.ReadFile(filepath.Join(c.directory, "keys", "host."+one))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.tree, "tls."+one), made, 0o600); err != nil {
			return err
		}
	}
	blocks, err := c.blocks(meshDocument, "Install")
	if err != nil {
		return err
	}
	if !slices.Contains(blocks[0], meshApply) {
		return fmt.Errorf("%s does not have the command %s under Install", meshDocument, meshApply)
	}
	for _, command := range blocks[0] {
		if command == meshApply {
			if err := c.newNeighbour(); err != nil {
				return err
			}
		}
		if err := c.follow([]string{command}); err != nil {
			return err
		}
	}
	if c.told, err = c.toldMesh(false); err != nil {
		return err
	}
	return errors.Join(c.neighbourKept("with istio/"), c.eventually(patience, c.meshSpread))
}

// newNeighbour is another team with a pod that has a sidecar, and keeps in mind how everybody else's things are.
func (c *Cluster) newNeighbour() error {
	if err := c.call("POST", "/api/v1/namespaces", object{"metadata": object{"name": neighbour, "labels": object{"istio-injection": "enabled"}}}, nil); err != nil {
		return err
	}
	if _, err := c.shell("kubectl -n " + neighbour + " create deployment other --image=registry.example/other:1 --replicas=2 && " + neighbourRolled); err != nil {
		return err
	}
	var err error
	c.before, err = c.elsewhere()
	return err
}

const neighbourRolled = "kubectl -n " + neighbour + " rollout status deployment/other --timeout=60s"

// toldMesh is every object of Istio's kinds, in checkup's namespaces or in all the others.
func (c *Cluster) toldMesh(others bool) (map[string]string, error) {
	found := map[string]string{}
	for _, group := range []string{"extensions.istio.io", "networking.istio.io", "security.istio.io", "telemetry.istio.io"} {
		versions := object{}
		if err := c.get("/apis/"+group, &versions); err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, version := range items(versions, "versions") {
			path := "/apis/" + text(version, "groupVersion")
			kinds := object{}
			if err := c.get(path, &kinds); err != nil {
				return nil, err
			}
			for _, kind := range items(kinds, "resources") {
				name := text(kind, "name")
				if seen[name] || strings.Contains(name, "/") { // the latter is a status
					continue
				}
				seen[name] = true
				all, err := c.list(path + "/" + name)
				if err != nil {
					return nil, err
				}
				for _, one := range all {
					if slices.Contains(ours, namespaceOf(one)) != others {
						found[name+" "+namespaceOf(one)+"/"+nameOf(one)] = encoded(at(one, "spec"))
					}
				}
			}
		}
	}
	return found, nil
}

// elsewhere is what others have: what the mesh is told outside of checkup's namespaces, namespaces with their labels,
// policies of the network, and the neighbour's pods, which nobody makes anew.
func (c *Cluster) elsewhere() (map[string]string, error) {
	found, err := c.toldMesh(true)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies", "/apis/apps/v1/namespaces/" + neighbour + "/deployments",
		"/api/v1/namespaces/" + neighbour + "/pods", "/api/v1/namespaces/" + neighbour + "/services"} {
		all, err := c.list(kind)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if !slices.Contains(ours, namespaceOf(one)) && !slices.Contains(ours, nameOf(one)) {
				found[filepath.Base(kind)+" "+namespaceOf(one)+"/"+nameOf(one)] = encoded([]any{at(one, "metadata", "labels"), at(one, "spec")})
			}
		}
	}
	return found, nil
}

func (c *Cluster) neighbourKept(when string) error {
	now, err := c.elsewhere()
	if err != nil {
		return err
	}
	return same("what others have, "+when, c.before, now)
}

// meshSpread: the control plane and the gateway survive a node and a zone.
func (c *Cluster) meshSpread() error {
	return errors.Join(c.spread("istio-system", "app", "istiod"), c.spread("istio-ingress", "istio", "ingressgateway"))
}

// spread: at least two pods are ready, in two zones.
func (c *Cluster) spread(namespace, label, value string) error {
	all, err := c.list("/api/v1/namespaces/" + namespace + "/pods?labelSelector=" + label + "%3D" + value)
	if err != nil {
		return err
	}
	ready, zonesOf := 0, map[string]bool{}
	for _, pod := range all {
		if condition(pod, "Ready") != "True" {
			continue
		}
		node := object{}
		if err := c.get("/api/v1/nodes/"+text(pod, "spec", "nodeName"), &node); err != nil {
			return err
		}
		ready++
		zonesOf[labelOf(node, "topology.kubernetes.io/zone")] = true
	}
	if ready < 2 || len(zonesOf) < 2 {
		return fmt.Errorf("%s has %d ready pods in %d zones", value, ready, len(zonesOf))
	}
	return nil
}

// inMesh deploys dev and prod by their document, where Istio is.
func inMesh(c *Cluster) error {
	c.migration(completes)
	if err := c.keys(); err != nil {
		return err
	}
	if _, err := c.shown(deployment, "kubectl apply -k k8s/overlays/dev"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	if err := c.sidecars(); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	// With the namespace goes what the mesh was told in it. A deployment brings it back.
	if err := c.gone("checkup"); err != nil {
		return err
	}
	if err := prod(c); err != nil {
		return err
	}
	if err := c.sidecars(); err != nil {
		return fmt.Errorf("prod: %w", err)
	}
	told, err := c.toldMesh(false)
	if err != nil {
		return err
	}
	return errors.Join(same("what the mesh is told after a deployment", c.told, told), c.analyzed())
}

// sidecars: a pod of a service has one that starts before it and ends after it, and no other pod of checkup has any.
func (c *Cluster) sidecars() error {
	all, err := c.list(pods)
	if err != nil {
		return err
	}
	var wrong []string
	services := map[string]bool{}
	for _, pod := range all {
		has := map[string]string{}
		for _, kind := range []string{"containers", "initContainers"} {
			for _, one := range items(pod, "spec", kind) {
				has[text(one, "name")] = strings.TrimSpace(kind + " " + text(one, "restartPolicy"))
			}
		}
		service := labelOf(pod, "app.kubernetes.io/component") == "service"
		switch how := has["istio-proxy"]; {
		case service && how == "":
			wrong = append(wrong, nameOf(pod)+" has no sidecar")
		case service && how != "initContainers Always":
			wrong = append(wrong, fmt.Sprintf("%s has a sidecar that does not live with it: it is one of its %s", nameOf(pod), how))
		case service:
			services[labelOf(pod, "app.kubernetes.io/name")] = true
		case how != "":
			wrong = append(wrong, nameOf(pod)+" has a sidecar and is no service")
		}
		if has["istio-init"] != "" {
			wrong = append(wrong, nameOf(pod)+" redirects its traffic itself")
		}
	}
	if len(services) != 5 {
		wrong = append(wrong, fmt.Sprintf("there are sidecars of %v alone", slices.Sorted(maps.Keys(services))))
	}
	return problems(wrong)
}

// What istioctl warns of and is so on purpose.
var accepted = []string{
	"IST0133", // an EnvoyFilter is used: mesh-check holds what becomes of each
	"IST0151", // one stands in relation to another filter: the router, which every gateway has
	"IST0175", // keys could be fetched from inside the cluster: they are in tokens.yaml, and nobody fetches any
}

// analyzed: Istio finds nothing wrong with what it was told, on this cluster.
func (c *Cluster) analyzed() error {
	said, err := c.shown(meshDocument, "istioctl analyze --all-namespaces")
	if err != nil {
		return err
	}
	var wrong []string
	for line := range strings.Lines(said) {
		code, _, _ := strings.Cut(strings.TrimPrefix(line, "Warning ["), "]")
		if strings.HasPrefix(line, "Warning [") && !slices.Contains(accepted, code) {
			wrong = append(wrong, "istioctl analyze: "+strings.TrimSpace(line))
		}
	}
	if !strings.Contains(said, "(EnvoyFilter istio-ingress/transcoder)") {
		wrong = append(wrong, "istioctl analyze says nothing of the EnvoyFilters that are there: "+said)
	}
	return problems(wrong)
}

// neighbours takes istio/ away again.
func neighbours(c *Cluster) error {
	if _, err := c.shown(meshDocument, "kubectl delete -k istio"); err != nil {
		return err
	}
	left, err := c.toldMesh(false)
	if err != nil {
		return err
	}
	if err := errors.Join(same("what is left of istio/", map[string]string{}, left), c.neighbourKept("without istio/ again")); err != nil {
		return err
	}
	// Pods of theirs are made as before.
	_, err = c.shell("kubectl -n " + neighbour + " rollout restart deployment/other && " + neighbourRolled)
	return err
}
