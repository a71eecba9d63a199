package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cluster is a Kubernetes on this machine, its programs and what they write.
type Cluster struct {
	programs  string // the directory of the programs
	directory string // of this run: keys, data, logs
	checkout  string // what is checked
	tree      string // a copy of it, in which commands of the documents are run
	began     time.Time
	context   context.Context
	end       context.CancelCauseFunc // of that, where nothing that follows would mean anything

	client  *http.Client
	running []*exec.Cmd
	mutex   sync.Mutex
	played  played
	before  map[string]string // what others had before istio/ was applied
	told    map[string]string // what the mesh is told by istio/
}

const (
	// Behind the Service `kubernetes`, as pods see it.
	serviceRange, apiService = "10.96.0.0/16", "10.96.0.1"
	// The one address of all nodes.
	nodeAddress = "10.10.10.10"
	apiAddress  = "127.0.0.1:6443"
	// Whoever is in this network is the administrator.
	adminToken = "admin"
	// How long the API server and the nodes may take, with a mistake or without.
	startLimit = 180 * time.Second
)

// How long a step may take on a slow machine; what is waited for usually comes within a second.
var patience = patienceOf()

// tell prints a line of progress.
func (c *Cluster) tell(format string, values ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, values...))
}

// eventually waits until nothing is wrong any more, and says at the limit what still is.
func (c *Cluster) eventually(limit time.Duration, wrong func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := wrong()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still after %s: %w", limit, err)
		}
		select {
		case <-c.context.Done():
			return context.Cause(c.context)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// start brings up everything that is there before anybody installs anything.
func (c *Cluster) start() error {
	for _, command := range []string{
		"mount --make-rprivate /", "mount -t proc proc /proc",
		"ip link set lo up", "ip address add " + nodeAddress + "/32 dev lo", "ip route add default dev lo",
		// Every address of a Service is this machine's, so that what is real can listen there.
		"ip route add local " + serviceRange + " dev lo",
	} {
		words := strings.Fields(command)
		if said, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, said)
		}
	}
	for _, name := range []string{"log", "keys", "bin"} {
		if err := os.MkdirAll(filepath.Join(c.directory, name), 0o755); err != nil {
			return err
		}
	}
	if err := c.makeKeys(); err != nil {
		return err
	}
	if err := c.copyTree(); err != nil {
		return err
	}
	keys := filepath.Join(c.directory, "keys")
	if err := c.run("etcd", "--data-dir", filepath.Join(c.directory, "etcd"), "--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync"); err != nil {
		return err
	}
	if err := c.run("kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--secure-port=6443", "--advertise-address="+nodeAddress,
		"--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP", "--service-cluster-ip-range="+serviceRange, "--allow-privileged=true",
		"--tls-cert-file="+keys+"/server.crt", "--tls-private-key-file="+keys+"/server.key", "--client-ca-file="+keys+"/ca.crt",
		"--token-auth-file="+keys+"/tokens.csv", "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+keys+"/accounts.key", "--service-account-key-file="+keys+"/accounts.pub",
		"--requestheader-client-ca-file="+keys+"/ca.crt", "--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+keys+"/front-proxy.crt", "--proxy-client-key-file="+keys+"/front-proxy.key",
	); err != nil {
		return err
	}
	if err := c.eventually(startLimit, func() error { return c.get("/readyz", nil) }); err != nil {
		return fmt.Errorf("the API server does not become ready: %w", err)
	}
	c.tell("the API server answers")
	config := c.kubeconfig()
	common := []string{"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config, "--bind-address=127.0.0.1", "--leader-elect=false"}
	if err := c.run("kube-controller-manager", append(common,
		"--service-account-private-key-file="+keys+"/accounts.key", "--root-ca-file="+keys+"/ca.crt",
		// Its usual pace is 15 s and more, since a kubelet measures no faster.
		"--horizontal-pod-autoscaler-sync-period=1s", "--horizontal-pod-autoscaler-initial-readiness-delay=1s", "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
		"--concurrent-horizontal-pod-autoscaler-syncs=10",
		// No node says that it is alive once it was ready.
		"--node-monitor-grace-period=1h")...); err != nil {
		return err
	}
	if err := c.run("kube-scheduler", common...); err != nil {
		return err
	}
	if err := c.startNodes(); err != nil {
		return err
	}
	if err := c.startMetrics(); err != nil {
		return err
	}
	if err := forward(apiService+":443", apiAddress); err != nil {
		return err
	}
	go c.playPods()
	if err := c.eventually(startLimit, c.nodesReady); err != nil {
		return err
	}
	c.tell("%d nodes in %d zones are ready, and nothing is installed", nodes, zones)
	return nil
}

func (c *Cluster) kubeconfig() string { return filepath.Join(c.directory, "kubeconfig") }

// run starts a program of the cluster; its words go into its log.
func (c *Cluster) run(name string, arguments ...string) error {
	return c.runAs(&exec.Cmd{Path: filepath.Join(c.programs, name), Args: append([]string{name}, arguments...), Dir: c.directory}, name)
}

func (c *Cluster) runAs(command *exec.Cmd, name string) error {
	log, err := os.OpenFile(filepath.Join(c.directory, "log", name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.mutex.Lock()
	c.running = append(c.running, command)
	c.mutex.Unlock()
	go func() {
		if err := command.Wait(); c.context.Err() == nil && !c.stopping() {
			c.end(fmt.Errorf("%s has ended: %v; its last words: %s", name, err, lastWords(filepath.Join(c.directory, "log", name))))
		}
	}()
	return nil
}

func (c *Cluster) stopping() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.running == nil
}

// stop ends every program. What does not end now ends with this process, which is the first one of its tree.
func (c *Cluster) stop() {
	c.mutex.Lock()
	all := c.running
	c.running = nil
	c.mutex.Unlock()
	for _, one := range all {
		_ = one.Process.Signal(syscall.SIGKILL)
	}
	c.tell("everything is stopped")
}

func lastWords(log string) string {
	text, _ := os.ReadFile(log)
	return string(text[max(0, len(text)-600):])
}

// copyTree copies what is checked, so that commands which write into a checkout leave this one alone.
func (c *Cluster) copyTree() error {
	c.tree = filepath.Join(c.directory, "checkout")
	for _, part := range []string{"k8s", "istio", "docs/operations"} {
		if err := os.CopyFS(filepath.Join(c.tree, part), os.DirFS(filepath.Join(c.checkout, part))); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(c.tree, "k8s/overlays/prod/image")); err != nil {
		return err
	}
	for _, name := range []string{"kubectl", "istioctl"} {
		if err := os.Symlink(filepath.Join(c.programs, name), filepath.Join(c.directory, "bin", name)); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return errors.Join(os.Symlink(self, filepath.Join(c.directory, "bin", "checkup")), c.plant())
}

// shell runs a command of a document in the copy, with the cluster's kubectl and istioctl.
func (c *Cluster) shell(command string) (string, error) {
	run := exec.CommandContext(c.context, "bash", "-euo", "pipefail", "-c", command)
	run.Dir = c.tree
	run.Env = []string{
		"PATH=" + filepath.Join(c.directory, "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + c.directory, "KUBECONFIG=" + c.kubeconfig(), "LC_ALL=C.UTF-8",
	}
	if os.Getenv(planted) != "" {
		run.Env = append(run.Env, "PATIENCE=60") // what is broken for good need not be waited for
	}
	said, err := run.CombinedOutput()
	if err != nil {
		return string(said), fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(said)))
	}
	return string(said), nil
}
