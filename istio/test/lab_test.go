package mesh

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	kubecrd "istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
)

// The loopback mesh: Istio's control plane in this process, an Envoy beside every process of checkup and one at the
// door, mutual TLS with identities made here, PostgreSQL and nats-server, the shipped manifests and the shipped
// configuration. What differs from a cluster is said where it is done.

// Where things are. Every pod, every pod's way out and every Envoy's admin page has a loopback address of its own,
// since a sidecar has the Service's port. Ports lie below those that the system hands out, or somebody would have one
// before it is bound.
func address(kind, index int) string {
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, kind, index+1)
}

func podIP(index int) string { return address(0, index) }

// A process reaches Hospital and the collector of spans through its own sidecar, by the names in its /etc/hosts.
func wayIP(index int) string { return address(1, index) }

func fixedPort(index int) int { return 20_000 + os.Getpid()%100*100 + index }

// The first of the fixed ports of each kind; those of processes begin at 0.
const (
	adminPorts = 30
	relayPorts = 60
	doorPort   = 90
)

// plan is what a lab is made of.
type plan struct {
	// How many replicas a service has; one where it is not said.
	replicas map[string]int
	// How many more addresses there are for pods that are started later.
	spare int
	// Whether something stands between Hospital's sidecars and Hospital, which can slow it down and answer in its place.
	interposed bool
	// Further settings of the processes of a service, and under "" of all.
	settings map[string][]string
	// Whether pods are probed as often as k8s/ says; otherwise ten times a second.
	unhurried bool
	// Alters the manifests.
	change func(*Manifests)
}

type lab struct {
	t          *testing.T
	plan       plan
	dir        string
	checkup    string
	envoy      string
	authority  *authority
	control    *xds.FakeDiscoveryServer
	manifests  *Manifests // as shipped, but for the plan's change
	kubernetes *kubernetes
	servers    *servers
	collector  string   // the address of the OpenTelemetry Collector
	backend    *backend // where it sends what it gets
	contract   *Contract
	account    string
	applied    []config.Config // what Istio was told last
	door       string          // HOST:PORT of the gateway
	xds        string
	pods       map[string][]*pod // every address there is, in use or not
	credential string
	key        ed25519.PrivateKey

	mu       sync.Mutex
	sidecars map[string]string // addresses of the Envoys' admin pages
	started  map[string]int    // how often a program of this name was
	slices   sync.Mutex        // held while a Service's endpoints are written
}

func tool(t *testing.T, name string) string {
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s names no program; .ci/istio-lab does", name)
	}
	return path
}

// startLab brings the mesh up and returns once every service answers through the gateway.
func startLab(t *testing.T, plan plan) *lab {
	l := &lab{
		t: t, plan: plan, checkup: tool(t, "CHECKUP"), envoy: tool(t, "ENVOY"), authority: newAuthority(t),
		pods: map[string][]*pod{}, sidecars: map[string]string{}, started: map[string]int{},
	}
	l.makeDirectory()
	var err error
	if l.kubernetes, err = readKubernetes(nil); err != nil {
		t.Fatal(err)
	}
	index := 0
	for _, name := range services {
		for i := range max(plan.replicas[name], 1) + plan.spare {
			l.pods[name] = append(l.pods[name], newPod(l, name, i, index))
			index++
		}
	}
	if index > adminPorts {
		t.Fatalf("%d pods are more than there are ports for", index)
	}
	l.makeKey()
	l.startControlPlane()
	l.startServers(tool(t, "NATS_SERVER"))
	if err := l.proxy("gateway", "router", address(0, 99), "istio-ingress", l.account, map[string]string{"istio": "ingressgateway"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.startPods(); err != nil {
		t.Fatal(err)
	}
	l.answers()
	return l
}

// startPods starts as many of each service as the plan says, all at once, and waits until they are ready.
func (l *lab) startPods() error {
	var pods []*pod
	for _, name := range services {
		pods = append(pods, l.pods[name][:max(l.plan.replicas[name], 1)]...)
	}
	errs := make([]error, len(pods))
	var all sync.WaitGroup
	for i, pod := range pods {
		all.Go(func() {
			if errs[i] = pod.start(l.kubernetes); errs[i] == nil {
				errs[i] = pod.becomesReady()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// makeDirectory makes one that PostgreSQL's user may enter too, which the testing package's is not.
func (l *lab) makeDirectory() {
	var err error
	if l.dir, err = os.MkdirTemp("", "checkup-lab-"); err == nil {
		err = os.Chmod(l.dir, 0o755)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := os.RemoveAll(l.dir); err != nil {
			l.t.Log(err)
		}
	})
	l.credential = filepath.Join(l.dir, "keys")
}

// startControlPlane has Istio's own serve the manifests to the Envoys.
func (l *lab) startControlPlane() {
	t := l.t
	// Upstream's Envoy has none of Istio's own extensions.
	features.MetadataExchange, features.ALPNFilter = false, false
	var err error
	if l.manifests, err = load(); err != nil {
		t.Fatal(err)
	}
	installed, err := l.manifests.installed()
	if err != nil {
		t.Fatal(err)
	}
	config, account, err := meshConfigOf(installed)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultProviders = &meshconfig.MeshConfig_DefaultProviders{} // no metrics: they are Istio's own filters
	descriptors, _ := descriptorsOf(l.manifests)
	if l.contract, err = readContract(descriptors); err != nil {
		t.Fatal(err)
	}
	l.account = account
	if l.plan.change != nil {
		l.plan.change(l.manifests)
	}
	text, err := encode(l.onLoopback(l.manifests))
	if err != nil {
		t.Fatal(err)
	}
	if l.applied, _, err = kubecrd.ParseInputs(text); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.xds, l.door = listener.Addr().String(), fmt.Sprintf("127.0.0.1:%d", fixedPort(doorPort))
	l.startCollector(tool(t, "OTELCOL"))
	l.control = xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		Configs: l.applied, KubernetesObjectString: l.registry(), MeshConfig: config,
		// As long as istiod waits for further changes before it sends one.
		DebounceTime:    100 * time.Millisecond,
		ListenerBuilder: func() (net.Listener, error) { return listener, nil },
	})
}

// answers waits until every service does, through the gateway.
func (l *lab) answers() {
	l.t.Helper()
	token := l.token("auditor", "kang")
	l.eventually("the mesh answers", func() error {
		for _, path := range []string{"/v1/hospitals", "/v1/screenings", "/v1/reservations", "/v1/customers/kim/myPage", "/v1/marketing/demandSignals"} {
			if status, body := l.rest("GET", path, token, ""); status != 200 {
				return fmt.Errorf("%s: %d %s", path, status, body)
			}
		}
		return nil
	})
}

// eventually waits for something to hold, and says what did not.
func (l *lab) eventually(what string, holds func() error) {
	l.t.Helper()
	if err := within(time.Minute, holds); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// within asks again until something holds; what did not, once the time is over.
func within(limit time.Duration, holds func() error) error {
	end := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *lab) token(role, subject string) string {
	l.t.Helper()
	out, err := exec.Command(l.checkup, "token", "--data-dir", l.credential, "--role", role, "--subject", subject).Output()
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// running are the pods of a service that have been started and not told to go.
func (l *lab) running(service string) (pods []*pod) {
	for _, pod := range l.pods[service] {
		if pod.state() == podRuns {
			pods = append(pods, pod)
		}
	}
	return pods
}
