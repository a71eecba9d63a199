package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is a replica as Kubernetes has it: an address, a sidecar and a process. What the kubelet and the controllers of a
// cluster do for it is done here: probes, readiness, endpoints, the order of its end.
type pod struct {
	lab     *lab
	service string
	name    string
	index   int // of its addresses

	mu      sync.Mutex
	is      podState
	ready   bool
	process *process
	envoy   *process
	relay   *relay // between the sidecar and the process, where the plan wants one
	version *kubernetes
	stop    context.CancelFunc // of its probes
}

type podState int

const (
	podFree podState = iota
	podRuns
	podGoes
)

// How long it takes from a pod's end to be decided until nobody sends to it any more, in a cluster whose control plane
// is not busy: k8s/base/checkup.toml reckons with a second or two.
const propagation = time.Second

func newPod(l *lab, service string, number, index int) *pod {
	made := &pod{lab: l, service: service, name: fmt.Sprintf("%s-%d", service, number), index: index}
	if l.plan.interposed && service == "hospital" {
		made.relay = newRelay(fmt.Sprintf("127.0.0.1:%d", fixedPort(relayPorts+index)), made.address())
	}
	return made
}

func (p *pod) address() string { return fmt.Sprintf("127.0.0.1:%d", fixedPort(p.index)) }
func (p *pod) admin() string   { return fmt.Sprintf("127.0.0.1:%d", fixedPort(adminPorts+p.index)) }

// behind is the port that the sidecar sends to.
func (p *pod) behind() int {
	if p.relay != nil {
		return fixedPort(relayPorts + p.index)
	}
	return fixedPort(p.index)
}

func (p *pod) state() podState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.is
}

func (p *pod) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// start starts the sidecar and, once that has its configuration, the process and its probes. It does not wait for the
// process.
func (p *pod) start(version *kubernetes) error {
	labels := map[string]string{"app.kubernetes.io/name": p.service, "lab": p.name}
	if err := p.lab.proxy(p.name, "sidecar", podIP(p.index), "checkup", p.service, labels, version.workloads[p.service].runtime); err != nil {
		return err
	}
	if err := within(time.Minute, func() error {
		if text, err := p.lab.page(p.name, "ready"); err != nil || strings.TrimSpace(text) != "LIVE" {
			return fmt.Errorf("the sidecar of %s is %q: %v", p.name, text, err)
		}
		return nil
	}); err != nil {
		return err
	}
	if p.relay != nil {
		if err := p.relay.listen(p.lab.t); err != nil {
			return err
		}
	}
	if err := p.run(version); err != nil {
		return err
	}
	context, stop := context.WithCancel(p.lab.t.Context())
	p.mu.Lock()
	p.is, p.version, p.stop = podRuns, version, stop
	p.mu.Unlock()
	go p.probe(context, version.workloads[p.service])
	return nil
}

// run starts the process alone, with what its pod would have: the configuration from the ConfigMap, and what comes from
// Secrets.
func (p *pod) run(version *kubernetes) error {
	config, err := version.file(p.lab.dir)
	if err != nil {
		return err
	}
	hosts, err := p.hosts()
	if err != nil {
		return err
	}
	arguments := []string{
		"--mount", "--map-root-user", "sh", "-c", `hosts=$1 slow=$2; shift 2; mount --bind "$hosts" /etc/hosts && sleep "$slow" && exec "$@"`, "sh", hosts,
		fmt.Sprint(version.slow.Seconds()),
		p.lab.checkup, "serve", p.service, "--config", config, "--data-dir", filepath.Join(p.lab.dir, p.name),
		"--addr", p.address(), "--admin-addr", p.admin(),
	}
	for _, setting := range p.settings() {
		arguments = append(arguments, "--set", setting)
	}
	made, err := p.lab.start(p.name, exec.Command("unshare", arguments...))
	p.mu.Lock()
	p.process = made
	p.mu.Unlock()
	return err
}

func (p *pod) settings() []string {
	all := []string{"events.nats=" + p.lab.servers.nats}
	if p.service != "mypage" { // which keeps a file on a volume of its own
		all = append(all, p.service+".database="+p.lab.servers.database(p.service))
	}
	// Only those that call have a key that signs.
	if p.service == "screening" || p.service == "marketing" {
		all = append(all, "identity.key_dir="+p.lab.credential)
	}
	all = append(all, "identity.jwks_file="+filepath.Join(p.lab.dir, "jwks.json"))
	return append(append(all, p.lab.plan.settings[""]...), p.lab.plan.settings[p.service]...)
}

// hosts is an /etc/hosts of its own, by which the process finds its sidecar where a cluster would redirect its traffic
// there.
func (p *pod) hosts() (string, error) {
	own, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return "", err
	}
	file := filepath.Join(p.lab.dir, p.name+".hosts")
	return file, os.WriteFile(file, append([]byte(wayIP(p.index)+" hospital otel-collector.observability\n"), own...), 0o644)
}

// probe is the kubelet: it asks for health as often as the manifest says, and has the endpoints follow.
func (p *pod) probe(context context.Context, workload workloadSpec) {
	connection, err := grpc.NewClient(p.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.lab.t.Error(err)
		return
	}
	defer connection.Close()
	if workload.readiness.service == "" { // without a probe a container that runs is ready
		p.turn(true)
		return
	}
	failures := 0
	for probe := workload.startup; ; {
		period := probe.period
		if !p.lab.plan.unhurried {
			period = 100 * time.Millisecond
		}
		select {
		case <-context.Done():
			return
		case <-time.After(period):
		}
		switch healthy := p.healthy(context, connection, probe); {
		case healthy:
			failures, probe = 0, workload.readiness
			p.turn(true)
		case p.isReady():
			if failures++; failures >= probe.failures {
				p.turn(false)
			}
		}
	}
}

func (p *pod) healthy(parent context.Context, connection *grpc.ClientConn, probe probeSpec) bool {
	limited, cancel := context.WithTimeout(parent, probe.timeout)
	defer cancel()
	answer, err := healthpb.NewHealthClient(connection).Check(limited, &healthpb.HealthCheckRequest{Service: probe.service})
	return err == nil && answer.Status == healthpb.HealthCheckResponse_SERVING
}

// turn makes a pod ready or unready, and tells whoever calls it.
func (p *pod) turn(ready bool) {
	p.mu.Lock()
	changed := p.ready != ready && (p.is == podRuns || !ready)
	if changed {
		p.ready = ready
	}
	p.mu.Unlock()
	if !changed {
		return
	}
	if err := p.lab.publish(p.service); err != nil {
		p.lab.t.Errorf("the endpoints of %s: %v", p.service, err)
	}
}

// publish writes which pods of a service may be called.
func (l *lab) publish(service string) error {
	l.slices.Lock()
	defer l.slices.Unlock()
	slices := l.control.KubeClient().Kube().DiscoveryV1().EndpointSlices("checkup")
	slice, err := slices.Get(context.Background(), service+"-a", metav1.GetOptions{})
	if err != nil {
		return err
	}
	slice = slice.DeepCopy()
	slice.Endpoints = nil
	for _, pod := range l.pods[service] {
		if yes := true; pod.isReady() {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{podIP(pod.index)}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
			})
		}
	}
	_, err = slices.Update(context.Background(), slice, metav1.UpdateOptions{})
	return err
}

// terminate ends a pod as a cluster does: the sidecar begins to drain and the process is told at once; a moment later
// nobody sends to it any more; the sidecar goes last.
func (p *pod) terminate() error {
	p.mu.Lock()
	p.is = podGoes
	process, envoy, version := p.process, p.envoy, p.version
	p.stop()
	p.mu.Unlock()
	drained := p.lab.drain(p.name)
	unlisted := make(chan struct{})
	go func() {
		defer close(unlisted)
		time.Sleep(propagation)
		p.turn(false)
	}()
	ended := process.end(version.workloads[p.service].grace)
	<-unlisted
	envoy.kill()
	if p.relay != nil {
		p.relay.close()
	}
	p.mu.Lock()
	p.is = podFree
	p.mu.Unlock()
	return errors.Join(drained, ended)
}

// kill ends the process without a word; the pod and its sidecar stay, as they do while a container crashes.
func (p *pod) kill() {
	p.mu.Lock()
	process := p.process
	p.mu.Unlock()
	_ = process.command.Process.Signal(syscall.SIGKILL)
	<-process.gone
}

// becomesReady waits until it is, or has ended instead.
func (p *pod) becomesReady() error {
	err := within(time.Minute, func() error {
		if p.isReady() {
			return nil
		}
		return errors.New("it is not ready")
	})
	p.mu.Lock()
	process := p.process
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, errors.Join(err, process.alive()))
	}
	return nil
}

func listen(address string) (net.Listener, error) {
	var listener net.Listener
	// whoever was there a moment ago may still be closing
	err := within(5*time.Second, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	return listener, err
}
