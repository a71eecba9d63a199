package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A check is a step of somebody who operates checkup, and what has to be so afterwards. They follow each other on one
// cluster.
type check struct {
	name  string
	shows string
	look  func(*Cluster) error
}

var checks = []check{
	{"dev", "dev serves without Istio, every pod admitted under restricted, and has a door", dev},
	{"prod", "prod is deployed from nothing but its Secrets", prod},
	{"admission", "what restricted refuses is refused", admission},
	{"migration", "a failed migration is told within seconds with its log, and changes nothing else", failedMigration},
	{"rollout", "the same tag goes again; no service has fewer replicas meanwhile, and who reads events goes before Screening, which tells them", rollout},
	{"configuration", "a changed setting rolls the pods and changes nothing else", configuration},
	{"broken", "a version that does not serve leaves the old one serving, touches Hospital alone, and can be taken back", broken},
	{"scale", "autoscalers follow the container and not its sidecar, up at once, and down a pod a minute after five quiet ones", scale},
	{"drain", "a drained node takes one replica of a service at a time", drain},
	{"mesh", "Istio is installed in the documented order, twice and spread, and no other team has anything changed", installMesh},
	{"sidecars", "in the mesh each service has its sidecar, admitted under restricted, and istioctl analyze is content", inMesh},
	{"neighbours", "without istio/ again, other teams have what they had", neighbours},
}

const (
	pods     = "/api/v1/namespaces/checkup/pods"
	ofUs     = "?labelSelector=app.kubernetes.io%2Fcomponent%3Dservice"
	image    = "registry.example/team/checkup:"
	registry = "registry.example/team"
)

// dev follows k8s/README.md on a cluster where nothing is.
func dev(c *Cluster) error {
	c.migration(completes)
	if _, err := c.shell("kubectl apply --server-side -f " + filepath.Join(c.programs, gatewayAPI)); err != nil {
		return err
	}
	if err := c.keys(); err != nil {
		return err
	}
	if _, err := c.shown(deployment, "kubectl apply -k k8s/overlays/dev"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	if _, err := c.shown(deployment, "kubectl apply -k k8s/door"); err != nil {
		return err
	}
	if err := c.doorLeads(); err != nil {
		return err
	}
	if _, err := c.shell("kubectl delete -k k8s/door"); err != nil {
		return err
	}
	return c.gone("checkup")
}

// keys makes what every overlay needs, by the first block of the document.
func (c *Cluster) keys() error {
	blocks, err := c.blocks(deployment, "Deploy")
	if err != nil {
		return err
	}
	return c.follow(blocks[0])
}

func (c *Cluster) gone(namespace string) error {
	if _, err := c.shell("kubectl delete namespace " + namespace + " --timeout=60s"); err != nil {
		return err
	}
	// What a claim of before has written is of no use to one of the same name.
	volumes, err := c.list("/api/v1/persistentvolumes")
	if err != nil {
		return err
	}
	for _, one := range volumes {
		if text(one, "status", "phase") == "Released" {
			if err := c.call("PATCH", "/api/v1/persistentvolumes/"+nameOf(one), object{"spec": object{"claimRef": nil}}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled: every workload has as many ready pods of its newest version as it wants, and every migration is through.
func (c *Cluster) settled() error {
	var waits []string
	for _, kind := range []string{"deployments", "statefulsets"} {
		all, err := c.list("/apis/apps/v1/namespaces/checkup/" + kind)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			waits = append(waits, "there are no "+kind)
		}
		for _, one := range all {
			wanted := number(one, "spec", "replicas")
			if number(one, "status", "observedGeneration") != number(one, "metadata", "generation") || number(one, "status", "updatedReplicas") != wanted ||
				number(one, "status", "readyReplicas") != wanted || number(one, "status", "availableReplicas") != wanted || number(one, "status", "replicas") != wanted {
				waits = append(waits, fmt.Sprintf("%s wants %d: %v", nameOf(one), wanted, at(one, "status")))
			}
		}
	}
	scalers, err := c.list("/apis/autoscaling/v2/namespaces/checkup/horizontalpodautoscalers")
	if err != nil {
		return err
	}
	for _, one := range scalers {
		if number(one, "status", "currentReplicas") < number(one, "spec", "minReplicas") {
			waits = append(waits, "the autoscaler of "+nameOf(one)+" is below its minimum")
		}
	}
	jobs, err := c.list("/apis/batch/v1/namespaces/checkup/jobs")
	if err != nil {
		return err
	}
	for _, one := range jobs {
		if condition(one, "Complete") != "True" {
			waits = append(waits, nameOf(one)+" is not complete")
		}
	}
	if len(waits) > 0 {
		return errors.New(strings.Join(waits, "; ") + c.complaints())
	}
	return nil
}

// complaints are what events warn of: why a pod was not admitted or not scheduled.
func (c *Cluster) complaints() string {
	all, err := c.list("/api/v1/namespaces/checkup/events")
	if err != nil {
		return ""
	}
	said := map[string]bool{}
	for _, one := range all {
		if text(one, "type") == "Warning" {
			said[text(one, "message")] = true
		}
	}
	if len(said) == 0 {
		return ""
	}
	return "; events: " + strings.Join(slices.Sorted(maps.Keys(said)), "; ")
}

func problems(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, "\n  "))
}

// doorLeads: every route of the door leads to a port of a Service behind which pods are ready, and each service has
// one.
func (c *Cluster) doorLeads() error {
	routes, err := c.list("/apis/gateway.networking.k8s.io/v1/namespaces/checkup/grpcroutes")
	if err != nil {
		return err
	}
	var wrong []string
	reached := map[string]bool{}
	for _, route := range routes {
		for _, rule := range items(route, "spec", "rules") {
			for _, backend := range items(rule, "backendRefs") {
				service := object{}
				if err := c.get("/api/v1/namespaces/checkup/services/"+text(backend, "name"), &service); err != nil {
					wrong = append(wrong, err.Error())
					continue
				}
				ports := items(service, "spec", "ports")
				if !slices.ContainsFunc(ports, func(port any) bool { return number(port, "port") == number(backend, "port") }) {
					wrong = append(wrong, fmt.Sprintf("the door leads to port %d of %s", number(backend, "port"), nameOf(service)))
				}
				slicesOf, err := c.list("/apis/discovery.k8s.io/v1/namespaces/checkup/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D" + nameOf(service))
				if err != nil {
					return err
				}
				for _, one := range slicesOf {
					for _, endpoint := range items(one, "endpoints") {
						if at(endpoint, "conditions", "ready") == true {
							reached[nameOf(service)] = true
						}
					}
				}
			}
		}
	}
	if len(reached) != 5 {
		wrong = append(wrong, fmt.Sprintf("the door leads to ready pods of %v alone", slices.Sorted(maps.Keys(reached))))
	}
	return problems(wrong)
}

func encoded(value any) string {
	made, _ := json.Marshal(value)
	return string(made)
}

// same compares what was with what is.
func same(what string, before, now map[string]string) error {
	var wrong []string
	for name, value := range now {
		if was, known := before[name]; !known {
			wrong = append(wrong, fmt.Sprintf("%s: %s is new", what, name))
		} else if was != value {
			wrong = append(wrong, fmt.Sprintf("%s: %s was %s and is %s", what, name, was, value))
		}
	}
	for name := range before {
		if _, known := now[name]; !known {
			wrong = append(wrong, fmt.Sprintf("%s: %s is gone", what, name))
		}
	}
	slices.Sort(wrong)
	return problems(wrong)
}

// prod makes the namespace, the keys and the Secrets that the document asks for, and deploys.
func prod(c *Cluster) error {
	if err := c.keys(); err != nil {
		return err
	}
	asked, err := c.secrets()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		values := object{}
		for _, key := range asked[name] {
			values[key] = "of-" + name
		}
		if err := c.call("POST", "/api/v1/namespaces/checkup/secrets", object{"metadata": object{"name": name}, "stringData": values}, nil); err != nil {
			return err
		}
	}
	if err := c.deploy("one"); err != nil {
		return err
	}
	return errors.Join(c.eventually(patience, c.settled), c.referred(asked))
}

// referred: every Secret that a pod takes a key from is one that the document asks for.
func (c *Cluster) referred(asked map[string][]string) error {
	all, err := c.list(pods)
	if err != nil {
		return err
	}
	var wrong []string
	for _, pod := range all {
		for _, container := range items(pod, "spec", "containers") {
			for _, one := range items(container, "env") {
				name, key := text(one, "valueFrom", "secretKeyRef", "name"), text(one, "valueFrom", "secretKeyRef", "key")
				if name != "" && !slices.Contains(asked[name], key) {
					wrong = append(wrong, fmt.Sprintf("%s takes %s from the Secret %s, which %s does not ask for", nameOf(pod), key, name, deployment))
				}
			}
		}
	}
	return problems(wrong)
}

// deploy deploys a tag as the document says.
func (c *Cluster) deploy(tag string) error {
	_, err := c.shown(deployment, "k8s/pipeline/deploy REGISTRY/checkup:TAG", "REGISTRY", registry, "TAG", tag)
	return err
}

// admission: a pod that wants what restricted refuses is not made.
func admission(c *Cluster) error {
	err := c.call("POST", "/api/v1/namespaces/checkup/pods?dryRun=All", object{
		"metadata": object{"name": "guest"}, "spec": object{"hostNetwork": true, "containers": []any{object{"name": "guest", "image": "registry.example/guest:1"}}},
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		return fmt.Errorf("checkup takes a pod with the node's network: %v", err)
	}
	return nil
}

// failedMigration deploys a tag whose migration ends as one that never will succeed.
func failedMigration(c *Cluster) error {
	before, err := c.workloads()
	if err != nil {
		return err
	}
	c.migration(fails)
	defer c.migration(completes)
	begun := time.Now()
	err = c.deploy("two")
	took := time.Since(begun)
	var wrong []string
	switch {
	case err == nil:
		wrong = append(wrong, "a deployment whose migration fails succeeds")
	case !strings.Contains(err.Error(), lastOfMigration):
		wrong = append(wrong, "the log of the migration is not shown: "+err.Error())
	case took > 30*time.Second:
		wrong = append(wrong, fmt.Sprintf("it took %s to say so", took))
	}
	now, err := c.workloads()
	if err != nil {
		return err
	}
	return errors.Join(problems(wrong), same("a failed migration", before, now))
}

// workloads is what decides over pods and calls in our namespace, by kind and name.
func (c *Cluster) workloads() (map[string]string, error) {
	found := map[string]string{}
	kinds := []string{
		"apis/apps/v1/namespaces/checkup/deployments", "apis/apps/v1/namespaces/checkup/statefulsets", "apis/policy/v1/namespaces/checkup/poddisruptionbudgets",
		"apis/networking.k8s.io/v1/namespaces/checkup/networkpolicies", "apis/autoscaling/v2/namespaces/checkup/horizontalpodautoscalers",
	}
	for _, kind := range kinds {
		all, err := c.list("/" + kind)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			spec, _ := at(one, "spec").(object)
			delete(spec, "replicas") // the autoscaler's
			found[filepath.Base(kind)+" "+nameOf(one)] = encoded(spec)
		}
	}
	return found, nil
}

// replicas counts the pods of each service by every change that the API server tells.
type replicas struct {
	mutex    sync.Mutex
	pods     map[string]object
	watching map[string]bool // services that have had all they want
	fewest   map[string]int
	most     map[string]int
	wrong    []string
	left     func(pod object, others map[string]object) string // hears of each pod that goes
}

// count begins to count, from what is there now. The result says at the end what was seen.
func (c *Cluster) count(left func(object, map[string]object) string) (*replicas, func() error, error) {
	counted := &replicas{pods: map[string]object{}, fewest: map[string]int{}, most: map[string]int{}, left: left}
	initial, err := c.list(pods + ofUs)
	if err != nil {
		return nil, nil, err
	}
	for _, pod := range initial {
		counted.pods[nameOf(pod)] = pod
	}
	counted.look()
	stop, err := c.watch(pods+ofUs, counted.hear)
	return counted, stop, err
}

func (r *replicas) hear(one event) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	name := nameOf(one.Object)
	before := r.pods[name]
	if one.Type == "DELETED" {
		delete(r.pods, name)
	} else {
		r.pods[name] = one.Object
	}
	leaves := one.Type == "DELETED" || at(one.Object, "metadata", "deletionTimestamp") != nil
	if leaves && before != nil && at(before, "metadata", "deletionTimestamp") == nil && r.left != nil {
		if wrong := r.left(before, r.pods); wrong != "" {
			r.wrong = append(r.wrong, wrong)
		}
	}
	r.look()
}

func (r *replicas) look() {
	ready, all := map[string]int{}, map[string]int{}
	for _, pod := range r.pods {
		service := labelOf(pod, "app.kubernetes.io/name")
		all[service] += 0
		if at(pod, "metadata", "deletionTimestamp") != nil {
			continue // no strategy bounds how many go, and kwok takes its time on a busy machine
		}
		all[service]++
		if condition(pod, "Ready") == "True" {
			ready[service]++
		}
	}
	for service := range all {
		if fewest, known := r.fewest[service]; !known || ready[service] < fewest {
			r.fewest[service] = ready[service]
		}
		r.most[service] = max(r.most[service], all[service])
	}
}

// within says where fewer pods were ready, or more were there, than wanted.
func (r *replicas) within(wanted map[string]int, missing func(string) int, more int) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	wrong := slices.Clone(r.wrong)
	for service, number := range wanted {
		if r.fewest[service] < number-missing(service) {
			wrong = append(wrong, fmt.Sprintf("%s had %d of %d replicas ready", service, r.fewest[service], number))
		}
		if r.most[service] > number+more {
			wrong = append(wrong, fmt.Sprintf("%s had %d pods instead of %d", service, r.most[service], number))
		}
	}
	return problems(wrong)
}

// wanted is how many replicas each service has now.
func (c *Cluster) wanted() (map[string]int, error) {
	found := map[string]int{}
	for _, kind := range []string{"deployments", "statefulsets"} {
		all, err := c.list("/apis/apps/v1/namespaces/checkup/" + kind + ofUs)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			found[nameOf(one)] = number(one, "spec", "replicas")
		}
	}
	if len(found) != 5 {
		return nil, fmt.Errorf("workloads of %v alone", slices.Sorted(maps.Keys(found)))
	}
	return found, nil
}

// turn: a service goes once all with a smaller number serve the new version.
var turn = map[string]int{"hospital": 0, "reservation": 1, "marketing": 1, "mypage": 2, "screening": 3}

func onlyMypage(service string) int {
	if service == "mypage" {
		return 1
	}
	return 0
}

// rollout deploys the tag whose migration has failed once more. A Deployment never has fewer ready pods than it wants
// and never more than one beyond; my-page, which cannot have one beyond, has one fewer. None goes before its turn.
func rollout(c *Cluster) error {
	wanted, err := c.wanted()
	if err != nil {
		return err
	}
	counted, stop, err := c.count(func(pod object, others map[string]object) string {
		goes := labelOf(pod, "app.kubernetes.io/name")
		for _, other := range others {
			service := labelOf(other, "app.kubernetes.io/name")
			if turn[goes] > turn[service] && labelOf(other, "app.kubernetes.io/version") != "two" &&
				at(other, "metadata", "deletionTimestamp") == nil {
				return goes + " went before " + service + " served the new version"
			}
		}
		return ""
	})
	if err != nil {
		return err
	}
	if err := c.deploy("two"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	return errors.Join(stop(), counted.within(wanted, onlyMypage, 1), c.allRun("two"))
}

// allRun: every pod of a service runs this tag, and says so.
func (c *Cluster) allRun(tag string) error {
	all, err := c.list(pods + ofUs)
	if err != nil {
		return err
	}
	var wrong []string
	for _, pod := range all {
		container := items(pod, "spec", "containers")[0]
		if text(container, "image") != image+tag || labelOf(pod, "app.kubernetes.io/version") != tag {
			wrong = append(wrong, fmt.Sprintf("%s runs %s and is labelled %s", nameOf(pod), text(container, "image"), labelOf(pod, "app.kubernetes.io/version")))
		}
	}
	return problems(wrong)
}

// configuration changes one setting and deploys what runs, from a checkout that never deployed anything.
func configuration(c *Cluster) error {
	file := filepath.Join(c.tree, "k8s/base/checkup.toml")
	setting, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(setting), `drain_timeout = "30s"`, `drain_timeout = "29s"`, 1)
	if changed == string(setting) {
		return errors.New("k8s/base/checkup.toml has no drain_timeout to change")
	}
	if err := errors.Join(os.WriteFile(file, []byte(changed), 0o644), os.RemoveAll(filepath.Join(c.tree, "k8s/overlays/prod/image"))); err != nil {
		return err
	}
	if _, err := c.shell("kubectl apply -k k8s/overlays/prod"); err == nil {
		return errors.New("a fresh checkout replaces what runs by a placeholder")
	}
	before, err := c.workloads()
	if err != nil {
		return err
	}
	if _, err := c.shown(deployment, "k8s/pipeline/deploy current"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	now, err := c.workloads()
	if err != nil {
		return err
	}
	// The one thing that may differ: the name of the ConfigMap, which follows from its content.
	hash := regexp.MustCompile(`"checkup-config-[a-z0-9]+"`)
	var kept []string
	for name, value := range before {
		if hash.MatchString(value) && value == now[name] {
			kept = append(kept, name+" has the setting of before")
		}
		before[name] = hash.ReplaceAllString(value, "")
		now[name] = hash.ReplaceAllString(now[name], "")
	}
	return errors.Join(problems(kept), same("a changed setting", before, now), c.allRun("two"))
}

// broken deploys a version that never serves, and takes it back.
func broken(c *Cluster) error {
	wanted, err := c.wanted()
	if err != nil {
		return err
	}
	counted, stop, err := c.count(func(pod object, _ map[string]object) string {
		if labelOf(pod, "app.kubernetes.io/name") != "hospital" {
			return nameOf(pod) + " was taken away for a version that does not serve"
		}
		return ""
	})
	if err != nil {
		return err
	}
	if _, err := c.shell("PATIENCE=20 k8s/pipeline/deploy " + image + "broken"); err == nil || !strings.Contains(err.Error(), "timed out waiting for the condition") {
		return fmt.Errorf("a deployment whose pods never become ready ends with: %v", err)
	}
	all, err := c.list(pods + ofUs)
	if err != nil {
		return err
	}
	for _, pod := range all {
		if service := labelOf(pod, "app.kubernetes.io/name"); service != "hospital" && labelOf(pod, "app.kubernetes.io/version") == "broken" {
			return fmt.Errorf("%s was rolled to a version that hospital does not serve", service)
		}
	}
	if _, err := c.shown("docs/operations/upgrade.md", "kubectl rollout undo", "undo", "undo --namespace checkup deployment/hospital"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	return errors.Join(stop(), counted.within(wanted, func(string) int { return 0 }, 1), c.allRun("two"))
}

// scale has Hospital work, and its sidecar.
func scale(c *Cluster) error {
	const path = "/apis/autoscaling/v2/namespaces/checkup/horizontalpodautoscalers/hospital"
	scaler := object{}
	if err := c.get(path, &scaler); err != nil {
		return err
	}
	fewest, most := number(scaler, "spec", "minReplicas"), number(scaler, "spec", "maxReplicas")
	reaches := func(number_ int) func() error {
		return func() error {
			wanted, err := c.wanted()
			if err == nil && wanted["hospital"] != number_ {
				err = fmt.Errorf("hospital has %d replicas instead of %d", wanted["hospital"], number_)
			}
			return err
		}
	}
	// Load of the sidecar is none of the container's: two decisions later there are as many pods.
	c.uses("hospital/istio-proxy", "2")
	if err := c.eventually(patience, c.decided(2)); err != nil {
		return err
	}
	if err := reaches(fewest)(); err != nil {
		return fmt.Errorf("a busy sidecar: %w", err)
	}
	c.uses("hospital/checkup", "900m")
	if err := c.eventually(patience, reaches(most)); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	c.uses("hospital/checkup", "10m")
	// Five quiet minutes are what the manifest asks for: nobody goes before.
	if err := c.eventually(patience, c.decided(3)); err != nil {
		return err
	}
	if err := reaches(most)(); err != nil {
		return fmt.Errorf("quiet for a moment: %w", err)
	}
	// The same with minutes made seconds.
	if number(scaler, "spec", "behavior", "scaleDown", "stabilizationWindowSeconds") != 300 {
		return errors.New("the autoscaler of hospital does not wait for five quiet minutes")
	}
	slowest := items(scaler, "spec", "behavior", "scaleDown", "policies")
	if len(slowest) != 1 || text(slowest[0], "type") != "Pods" || number(slowest[0], "value") != 1 || number(slowest[0], "periodSeconds") != 60 {
		return fmt.Errorf("the autoscaler of hospital takes more than a pod a minute: %v", slowest)
	}
	if err := c.call("PATCH", path, object{"spec": object{"behavior": object{"scaleDown": object{"stabilizationWindowSeconds": 0,
		"policies": []any{object{"type": "Pods", "value": 1, "periodSeconds": 1}}}}}}, nil); err != nil {
		return err
	}
	if err := c.eventually(patience, reaches(fewest)); err != nil {
		return err
	}
	// And no further.
	if err := c.eventually(patience, c.decided(2)); err != nil {
		return err
	}
	return errors.Join(reaches(fewest)(), c.eventually(patience, c.settled))
}

// decided waits for so many further decisions of Hospital's autoscaler, which looks at its pods for each.
func (c *Cluster) decided(looks int) func() error {
	c.mutex.Lock()
	begun := c.played.looks
	c.mutex.Unlock()
	return func() error {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		if c.played.looks < begun+looks+1 {
			return fmt.Errorf("the autoscaler looked %d times at hospital", c.played.looks-begun)
		}
		return nil
	}
}

// drain empties the node that has most of us, by eviction.
func drain(c *Cluster) error {
	wanted, err := c.wanted()
	if err != nil {
		return err
	}
	all, err := c.list(pods + ofUs)
	if err != nil {
		return err
	}
	on := map[string]int{}
	for _, pod := range all {
		on[text(pod, "spec", "nodeName")]++
	}
	node := slices.MaxFunc(slices.Sorted(maps.Keys(on)), func(a, b string) int { return on[a] - on[b] })
	counted, stop, err := c.count(nil)
	if err != nil {
		return err
	}
	if _, err := c.shell("kubectl drain " + node + " --ignore-daemonsets --delete-emptydir-data --timeout=90s"); err != nil {
		return err
	}
	if err := c.eventually(patience, c.settled); err != nil {
		return err
	}
	left, err := c.list(pods + "?fieldSelector=spec.nodeName%3D" + node)
	if err != nil {
		return err
	}
	var wrong []string
	for _, pod := range left {
		if text(pod, "status", "phase") == "Running" {
			wrong = append(wrong, nameOf(pod)+" is still on the drained node")
		}
	}
	if _, err := c.shell("kubectl uncordon " + node); err != nil {
		return err
	}
	return errors.Join(stop(), counted.within(wanted, func(string) int { return 1 }, 1), problems(wrong))
}
