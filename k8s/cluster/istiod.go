package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// playIstiod runs Istio's control plane as its installed Deployment says: arguments, environment, files, and a token of
// its account. One process stands for all of its pods, and they are ready when it is.
func (c *Cluster) playIstiod(pod object) error {
	if !c.played.istiod { // used here alone
		c.played.istiod = true
		if err := c.startIstiod(pod); err != nil {
			return fmt.Errorf("istiod cannot be started: %w", err)
		}
	}
	answer, err := http.Get("http://127.0.0.1:8080/ready")
	if err != nil {
		return nil // not yet
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil
	}
	now := time.Now().UTC().Format(time.RFC3339)
	var conditions, statuses []any
	for _, kind := range []string{"Initialized", "ContainersReady", "Ready"} {
		conditions = append(conditions, object{"type": kind, "status": "True", "lastTransitionTime": now})
	}
	for _, one := range items(pod, "spec", "containers") {
		statuses = append(statuses, object{"name": at(one, "name"), "image": at(one, "image"), "imageID": at(one, "image"), "ready": true,
			"started": true, "restartCount": 0, "state": object{"running": object{"startedAt": now}}})
	}
	return c.call("PATCH", "/api/v1/namespaces/"+namespaceOf(pod)+"/pods/"+nameOf(pod)+"/status", object{"status": object{
		"phase": "Running", "startTime": now, "conditions": conditions, "containerStatuses": statuses,
		"hostIP": nodeAddress, "podIP": nodeAddress, "podIPs": []any{object{"ip": nodeAddress}},
	}}, nil)
}

func (c *Cluster) startIstiod(pod object) error {
	root := filepath.Join(c.directory, "istiod")
	container := items(pod, "spec", "containers")[0]
	for _, mount := range items(container, "volumeMounts") {
		for _, volume := range items(pod, "spec", "volumes") {
			if text(volume, "name") != text(mount, "name") {
				continue
			}
			if err := c.mount(pod, volume, filepath.Join(root, text(mount, "mountPath"))); err != nil {
				return fmt.Errorf("volume %s: %w", text(volume, "name"), err)
			}
		}
	}
	for _, name := range []string{"tmp", "etc", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	const path = "/usr/local/bin/pilot-discovery"
	program, err := os.ReadFile(filepath.Join(c.programs, filepath.Base(path)))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, path), program, 0o755); err != nil {
		return err
	}
	// It answers for names of the mesh, and wants to know whom to ask for others: nobody does here.
	for name, content := range map[string]string{"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	environment, err := environmentOf(pod, container)
	if err != nil {
		return err
	}
	arguments := []string{filepath.Base(path)}
	for _, one := range items(container, "args") {
		arguments = append(arguments, fmt.Sprint(one))
	}
	// Where the API server's webhooks find it. A port that is the same behind the Service is its own.
	service := object{}
	if err := c.get("/api/v1/namespaces/"+namespaceOf(pod)+"/services/istiod", &service); err != nil {
		return err
	}
	for _, port := range items(service, "spec", "ports") {
		target := number(port, "targetPort")
		if target == 0 || target == number(port, "port") {
			continue
		}
		if err := forward(fmt.Sprintf("%s:%d", text(service, "spec", "clusterIP"), number(port, "port")), fmt.Sprintf("%s:%d", nodeAddress, target)); err != nil {
			return err
		}
	}
	return c.runAs(&exec.Cmd{Path: path, Args: arguments, Dir: "/", Env: environment, SysProcAttr: &syscall.SysProcAttr{Chroot: root}}, "istiod")
}

// environmentOf is what a kubelet gives to a container. Limits are left out: there is no container that has them.
func environmentOf(pod object, container any) ([]string, error) {
	made := []string{"KUBERNETES_SERVICE_HOST=" + apiService, "KUBERNETES_SERVICE_PORT=443", "PATH=/usr/local/bin", "HOME=/tmp"}
	for _, one := range items(container, "env") {
		value := text(one, "value")
		switch field := text(one, "valueFrom", "fieldRef", "fieldPath"); field {
		case "":
			if at(one, "valueFrom") != nil {
				continue
			}
		case "metadata.name":
			value = nameOf(pod)
		case "metadata.namespace":
			value = namespaceOf(pod)
		case "spec.serviceAccountName":
			value = text(pod, "spec", "serviceAccountName")
		default:
			return nil, fmt.Errorf("%s asks for its %s: add it to environmentOf in istiod.go", nameOf(pod), field)
		}
		made = append(made, text(one, "name")+"="+value)
	}
	return made, nil
}

// mount puts the files of a pod's volume into a directory.
func (c *Cluster) mount(pod object, volume any, directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	sources := []any{volume}
	if at(volume, "projected") != nil {
		sources = items(volume, "projected", "sources")
	}
	for _, source := range sources {
		var files map[string]string
		var err error
		switch {
		case at(source, "configMap") != nil:
			files, err = c.files(pod, "configmaps", text(source, "configMap", "name"), at(source, "configMap"))
		case at(source, "secret") != nil:
			// A volume calls it secretName, a projection name.
			files, err = c.files(pod, "secrets", text(source, "secret", "secretName")+text(source, "secret", "name"), at(source, "secret"))
		case at(source, "serviceAccountToken") != nil:
			var token string
			token, err = c.token(pod, text(source, "serviceAccountToken", "audience"))
			files = map[string]string{text(source, "serviceAccountToken", "path"): token}
		case at(source, "downwardAPI") != nil:
			files = map[string]string{"namespace": namespaceOf(pod)}
		}
		if err != nil {
			return err
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// files are what a volume takes of a ConfigMap or a Secret.
func (c *Cluster) files(pod object, kind, name string, source any) (map[string]string, error) {
	found := object{}
	err := c.get("/api/v1/namespaces/"+namespaceOf(pod)+"/"+kind+"/"+name, &found)
	if isMissing(err) && at(source, "optional") == true {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, _ := at(found, "data").(object)
	all := map[string]string{}
	for key := range data {
		content := text(data, key)
		if kind == "secrets" {
			decoded, err := base64.StdEncoding.DecodeString(content)
			if err != nil {
				return nil, err
			}
			content = string(decoded)
		}
		all[key] = content
	}
	if items(source, "items") == nil {
		return all, nil
	}
	chosen := map[string]string{}
	for _, one := range items(source, "items") {
		chosen[text(one, "path")] = all[text(one, "key")]
	}
	return chosen, nil
}

// token is one of the pod's account.
func (c *Cluster) token(pod object, audience string) (string, error) {
	wanted := object{"expirationSeconds": int((24 * time.Hour).Seconds())}
	if audience != "" {
		wanted["audiences"] = []string{audience}
	}
	made := object{}
	err := c.call("POST", "/api/v1/namespaces/"+namespaceOf(pod)+"/serviceaccounts/"+text(pod, "spec", "serviceAccountName")+"/token", object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}, &made)
	return text(made, "status", "token"), err
}

// forward plays kube-proxy for one port of a Service: what comes to its address goes to a process of this machine.
func forward(from, to string) error {
	listener, err := net.Listen("tcp", from)
	if err != nil {
		return fmt.Errorf("cannot listen at the address of a Service: %w", err)
	}
	go func() {
		for {
			caller, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go join(caller, to)
		}
	}()
	return nil
}

// join passes on what either side says until both have ended.
func join(caller net.Conn, to string) {
	defer caller.Close()
	called, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer called.Close()
	go func() {
		_, _ = io.Copy(called, caller)
		_ = called.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(caller, called)
}
