package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A program of the cluster: where its source is, and the module that pins it, from the root of the checkout.
type program struct {
	name, source, module string
}

const kubernetes, mesh = "k8s/cluster/programs", "istio/test"

var programs = []program{
	{"etcd", "go.etcd.io/etcd/server/v3", kubernetes},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", kubernetes},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", kubernetes},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", kubernetes},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl", kubernetes},
	{"kwok", "sigs.k8s.io/kwok/cmd/kwok", kubernetes},
	{"istioctl", "istio.io/istio/istioctl/cmd/istioctl", mesh},
	{"pilot-discovery", "istio.io/istio/pilot/cmd/pilot-discovery", mesh},
}

// What a release says of itself, and a build from a module does not know.
const versions = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.1 -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=36 -X istio.io/istio/pkg/version.buildVersion=1.31.0" +
	" -X istio.io/istio/pkg/version.buildHub=docker.io/istio -X istio.io/istio/pkg/version.buildTag=1.31.0"

// What a cluster has that knows the Gateway API, of the version that the tests of istio/ have.
const gatewayAPI = "gateway-api.yaml"

func copyGatewayAPI(root, directory string) error {
	if _, err := os.Stat(filepath.Join(directory, gatewayAPI)); err == nil {
		return nil
	}
	command := exec.Command("go", "mod", "download", "-json", "sigs.k8s.io/gateway-api")
	command.Dir = filepath.Join(root, mesh)
	command.Stderr = os.Stderr
	said, err := command.Output()
	if err != nil {
		return fmt.Errorf("cannot get the Gateway API: %w", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(said, &module); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(module.Dir, "config", "crd", "standard", "*.yaml"))
	if err != nil {
		return err
	}
	var all []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all = append(append(all, text...), "\n---\n"...)
	}
	return os.WriteFile(filepath.Join(directory, gatewayAPI), all, 0o644)
}

// build compiles what is not there yet, and returns the directory of the programs. The directory's name follows from
// the pins.
func build(root string) (string, error) {
	pins := sha256.New()
	fmt.Fprintln(pins, versions, programs)
	for _, module := range []string{kubernetes, mesh} {
		for _, name := range []string{"go.mod", "go.sum"} {
			text, err := os.ReadFile(filepath.Join(root, module, name))
			if err != nil {
				return "", err
			}
			pins.Write(text)
		}
	}
	all := filepath.Join(root, ".tools", "cluster")
	directory := filepath.Join(all, fmt.Sprintf("%x", pins.Sum(nil)[:6]))
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	for _, one := range programs {
		made := filepath.Join(directory, one.name)
		if _, err := os.Stat(made); err == nil {
			continue
		}
		begun := time.Now()
		// One compiler at a time: it may take 2 GB.
		command := exec.Command("go", "build", "-p=1", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", versions, "-o", made+".new", one.source)
		command.Dir = filepath.Join(root, one.module)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		command.Stderr = os.Stderr
		if err := command.Run(); err != nil {
			return "", fmt.Errorf("cannot build %s: %w", one.name, err)
		}
		if err := os.Rename(made+".new", made); err != nil {
			return "", err
		}
		fmt.Printf("%7s  built %s in %.0f s of %.0f s of CPU, once\n", "", one.name, time.Since(begun).Seconds(),
			(command.ProcessState.UserTime() + command.ProcessState.SystemTime()).Seconds())
	}
	if err := copyGatewayAPI(root, directory); err != nil {
		return "", err
	}
	// Programs of earlier pins are of no use any more.
	earlier, err := os.ReadDir(all)
	if err != nil {
		return "", err
	}
	for _, one := range earlier {
		if one.Name() != filepath.Base(directory) {
			_ = os.RemoveAll(filepath.Join(all, one.Name()))
		}
	}
	return directory, nil
}
