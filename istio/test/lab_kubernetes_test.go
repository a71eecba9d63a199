package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kubernetes is what k8s/base says about pods: one version of it, since a rollout goes from one to another.
type kubernetes struct {
	// The ConfigMap's name ends in a hash of its content: pods of another name are other pods.
	configName string
	config     string
	workloads  map[string]workloadSpec
	// How long its containers run before they do anything.
	slow time.Duration
	mu   sync.Mutex
}

type workloadSpec struct {
	ordered            bool // a StatefulSet: pods keep their names, and the old one goes before the new one comes
	startup, readiness probeSpec
	minReady, grace    time.Duration
	surge              int
	runtime            map[string]string // of the sidecar, from its annotation
}

type probeSpec struct {
	service  string // as gRPC health knows it
	period   time.Duration
	timeout  time.Duration
	failures int
}

// readKubernetes renders k8s/base; `change` may alter the file that the ConfigMap is made from.
func readKubernetes(change func(config string) string) (*kubernetes, error) {
	base, err := os.MkdirTemp("", "checkup-base-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(base)
	if err := os.CopyFS(base, os.DirFS("../../k8s/base")); err != nil {
		return nil, err
	}
	if change != nil {
		file := filepath.Join(base, "checkup.toml")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(change(string(text))), 0o644); err != nil {
			return nil, err
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), base)
	if err != nil {
		return nil, err
	}
	text, err := built.AsYaml()
	if err != nil {
		return nil, err
	}
	objects, err := decode(text)
	if err != nil {
		return nil, err
	}
	made := &kubernetes{workloads: map[string]workloadSpec{}}
	for _, object := range objects {
		switch kind := object.GetKind(); {
		case kind == "ConfigMap" && strings.HasPrefix(object.GetName(), "checkup-config-"):
			made.configName = object.GetName()
			made.config, _, _ = unstructured.NestedString(object.Object, "data", "checkup.toml")
		case kind == "Deployment" || kind == "StatefulSet":
			made.workloads[object.GetName()] = readWorkload(object)
		}
	}
	if made.config == "" || len(made.workloads) < len(services) {
		return nil, fmt.Errorf("k8s/base has no configuration, or only the workloads %v", made.workloads)
	}
	return made, nil
}

func readWorkload(object *unstructured.Unstructured) workloadSpec {
	template, _ := spec(object, "template", "spec").(map[string]any)
	containers, _ := template["containers"].([]any)
	made := workloadSpec{
		ordered:  object.GetKind() == "StatefulSet",
		minReady: seconds(spec(object, "minReadySeconds")),
		grace:    seconds(template["terminationGracePeriodSeconds"]),
		surge:    number(spec(object, "strategy", "rollingUpdate", "maxSurge")),
	}
	proxy := struct{ RuntimeValues map[string]string }{}
	annotation, _ := spec(object, "template", "metadata", "annotations").(map[string]any)
	if err := yaml.Unmarshal([]byte(fmt.Sprint(annotation["proxy.istio.io/config"])), &proxy); err != nil {
		panic(err)
	}
	made.runtime = proxy.RuntimeValues
	for _, one := range containers {
		if one := one.(map[string]any); one["name"] == "checkup" {
			made.startup, made.readiness = readProbe(one["startupProbe"]), readProbe(one["readinessProbe"])
		}
	}
	return made
}

func readProbe(value any) probeSpec {
	probe, _ := value.(map[string]any)
	service, _, _ := unstructured.NestedString(probe, "grpc", "service")
	return probeSpec{service, seconds(probe["periodSeconds"]), seconds(probe["timeoutSeconds"]), number(probe["failureThreshold"])}
}

func number(value any) int {
	var made int
	_, _ = fmt.Sscan(fmt.Sprint(value), &made)
	return made
}

func seconds(value any) time.Duration { return time.Duration(number(value)) * time.Second }

// file is the ConfigMap as a pod mounts it: written once, since other pods may be reading it.
func (k *kubernetes) file(directory string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	file := filepath.Join(directory, k.configName+".toml")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	return file, os.WriteFile(file, []byte(k.config), 0o644)
}

// roll replaces every pod of a service by one of another version, as Kubernetes would: by a Deployment's strategy or a
// StatefulSet's.
func (l *lab) roll(service string, to *kubernetes) error {
	if to.workloads[service].ordered {
		return l.rollInOrder(service, to)
	}
	old := l.running(service)
	failed := make(chan error, len(old))
	going := 0
	for _, pod := range old {
		fresh, err := l.free(service)
		if err == nil {
			if err = fresh.start(to); err == nil {
				err = l.available(fresh, to)
			}
		}
		if err != nil {
			return err
		}
		going++ // the next new one does not wait for its end
		go func() { failed <- pod.terminate() }()
	}
	for range going {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// rollInOrder: each pod goes before it comes again, the last one first.
func (l *lab) rollInOrder(service string, to *kubernetes) error {
	pods := l.running(service)
	for i := len(pods) - 1; i >= 0; i-- {
		if err := pods[i].terminate(); err != nil {
			return err
		}
		if err := pods[i].start(to); err != nil {
			return err
		}
		if err := l.available(pods[i], to); err != nil {
			return err
		}
	}
	return nil
}

// available waits until a pod has been ready for as long as its workload asks.
func (l *lab) available(pod *pod, version *kubernetes) error {
	if err := pod.becomesReady(); err != nil {
		return err
	}
	wanted := version.workloads[pod.service].minReady
	for since := time.Now(); time.Since(since) < wanted; time.Sleep(50 * time.Millisecond) {
		if !pod.isReady() {
			since = time.Now()
		}
	}
	return nil
}

// free finds an address that no pod of a service uses.
func (l *lab) free(service string) (*pod, error) {
	var found *pod
	// those that go give theirs back
	err := within(2*time.Minute, func() error {
		for _, pod := range l.pods[service] {
			if pod.state() == podFree {
				found = pod
				return nil
			}
		}
		return fmt.Errorf("no address is left for a pod of %s", service)
	})
	return found, err
}
