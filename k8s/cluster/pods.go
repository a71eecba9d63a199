package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What becomes of a migration.
type fate string

const (
	completes fate = "completes"
	// As the binary ends that does not understand its configuration: the Job does not try again.
	fails fate = "fails"
	hangs fate = "hangs"
)

// played is what a check says of pods in which nothing runs.
type played struct {
	migration fate
	cpu       map[string]string // by app.kubernetes.io/name and container, such as hospital/checkup: 175m
	istiod    bool              // its process was started
	looks     int               // how often an autoscaler has looked at Hospital
}

func (c *Cluster) migration(next fate) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.played.migration = next
}

// uses says how much CPU the containers of a service use from now on.
func (c *Cluster) uses(container, cpu string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.played.cpu == nil {
		c.played.cpu = map[string]string{}
	}
	c.played.cpu[container] = cpu
}

func (c *Cluster) use(service, container string) string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if used, said := c.played.cpu[service+"/"+container]; said {
		return used
	}
	return "20m"
}

// playPods is the kubelet of pods that kwok leaves alone.
func (c *Cluster) playPods() {
	for c.context.Err() == nil {
		pods, err := c.list("/api/v1/pods?fieldSelector=status.phase%3DPending,spec.nodeName%21%3D")
		if err != nil {
			pods = nil
		}
		for _, pod := range pods {
			var err error
			switch {
			case at(pod, "metadata", "deletionTimestamp") != nil:
			case labelOf(pod, "app") == "istiod":
				err = c.playIstiod(pod)
			case labelOf(pod, "app.kubernetes.io/component") == "migration":
				err = c.playMigration(pod)
			}
			if err != nil && c.context.Err() == nil && !isMissing(err) {
				fmt.Fprintf(os.Stderr, "cluster: pod %s: %v\n", nameOf(pod), err)
			}
		}
		select {
		case <-c.context.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) playMigration(pod object) error {
	c.mutex.Lock()
	next := c.played.migration
	c.mutex.Unlock()
	phase, code := "Succeeded", 0
	switch next {
	case hangs:
		return nil
	case fails:
		phase, code = "Failed", 64
	}
	now := time.Now().UTC().Format(time.RFC3339)
	return c.call("PATCH", "/api/v1/namespaces/"+namespaceOf(pod)+"/pods/"+nameOf(pod)+"/status", object{"status": object{
		"phase": phase, "startTime": now, "containerStatuses": []any{object{
			"name": "migrate", "image": "checkup", "imageID": "checkup", "ready": false, "restartCount": 0,
			"state": object{"terminated": object{"exitCode": code, "reason": "Ended", "startedAt": now, "finishedAt": now}},
		}},
	}}, nil)
}

// standIn plays the binary in the documents' commands, where a checkout has none: it makes a key and prints public
// ones. What the real one writes is tested elsewhere; here a Secret and a ConfigMap are made of it.
func standIn(arguments []string) int {
	command := strings.Join(arguments, " ")
	switch {
	case strings.HasPrefix(command, "token --data-dir identity "):
		if err := os.MkdirAll("identity", 0o700); err != nil {
			return 1
		}
		if err := os.WriteFile(filepath.Join("identity", "signing-key.pem"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
			return 1
		}
		fmt.Println("a.token.of-nobody")
	case strings.HasPrefix(command, "jwks --data-dir "):
		_ = json.NewEncoder(os.Stdout).Encode(object{"keys": []any{object{
			"kty": "OKP", "crv": "Ed25519", "kid": "stand-in", "alg": "EdDSA", "use": "sig", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}})
	default:
		fmt.Fprintf(os.Stderr, "checkup: the stand-in does not know %q\n", command)
		return 64
	}
	return 0
}
