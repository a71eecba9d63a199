// Command cluster runs what k8s/ and istio/ document on a Kubernetes: a real API server with its etcd, controllers and
// scheduler, and Istio's control plane, as processes in namespaces of their own on this machine. Nodes and pods are
// played by kwok: a pod is admitted, scheduled, reported ready and deleted, and no container runs.
//
//	go run . [-root DIR] [-keep DIR] [CHECK...]
//	go run . -mistakes
//
// Without names every check runs. It needs Linux, root, Go, ip (iproute2) and bash; the network only while programs
// are built, which happens once for each version of programs/go.mod and ../../istio/test/go.mod.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// inside tells the child that it is in namespaces of its own.
const inside = "CHECKUP_CLUSTER_INSIDE"

func main() {
	if filepath.Base(os.Args[0]) == "checkup" {
		os.Exit(standIn(os.Args[1:]))
	}
	root := flag.String("root", "../..", "the checkout whose documents and manifests are run")
	keep := flag.String("keep", "", "a directory that keeps the logs of every program")
	list := flag.Bool("list", false, "prints the names of the checks")
	tries := flag.Bool("mistakes", false, "plants mistakes instead, a cluster for each, and tells whether they are seen")
	flag.Parse()
	if *list {
		for _, one := range checks {
			fmt.Println(one.name)
		}
		return
	}
	absolute, err := filepath.Abs(*root)
	if err == nil {
		err = run(absolute, *keep, *tries, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(root, keep string, tries bool, names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(checks, func(one check) bool { return one.name == name }) {
			return fmt.Errorf("there is no check %s; -list has them", name)
		}
	}
	if os.Getenv(inside) != "" {
		return inNamespaces(root, keep, names)
	}
	if os.Geteuid() != 0 {
		return errors.New("a network of its own needs root: sudo")
	}
	programs, err := build(root)
	if err != nil {
		return err
	}
	if tries {
		return tryMistakes(programs, root)
	}
	return enter(programs)
}

// enter starts this program again in a network, a process tree and mounts of its own. Whatever happens to it, the
// kernel ends every process that it has started; nothing of the cluster is seen from outside.
func enter(programs string) error {
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.Env = append(os.Environ(), inside+"="+programs)
	child.SysProcAttr = namespaces()
	// Ctrl-C reaches the child as well, which ends the cluster; this process waits for it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := child.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	go func() {
		for one := range signals {
			_ = child.Process.Signal(one)
		}
	}()
	err := child.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1)) // what went wrong was said
	}
	return err
}

func namespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}

func inNamespaces(root, keep string, names []string) (err error) {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := os.MkdirTemp("", "cluster-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	running, end := context.WithCancelCause(interrupted)
	defer end(nil)
	cluster := &Cluster{
		programs: os.Getenv(inside), directory: directory, checkout: root, began: time.Now(), context: running, end: end,
	}
	defer func() {
		cluster.stop()
		if keep != "" {
			err = errors.Join(err, os.MkdirAll(keep, 0o755), os.CopyFS(filepath.Join(keep, time.Now().Format("150405")), os.DirFS(filepath.Join(directory, "log"))))
		}
	}()
	if err := cluster.start(); err != nil {
		return err
	}
	for _, one := range checks {
		if len(names) > 0 && !slices.Contains(names, one.name) {
			continue
		}
		begun := time.Now()
		wrong := one.look(cluster)
		if interrupted.Err() != nil {
			return errors.New("interrupted")
		}
		if ended := context.Cause(running); ended != nil {
			return ended
		}
		if wrong != nil {
			return fmt.Errorf("%s: %w", one.name, wrong)
		}
		cluster.tell("%s: %s (%.1f s)", one.name, one.shows, time.Since(begun).Seconds())
	}
	return nil
}
