package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A mistake that is planted into the copy of the checkout, the checks that lead to it, and what the last of them has
// to say.
type mistake struct {
	file, text, instead string
	checks              []string
	expected            string
}

var mistakes = []mistake{
	{"k8s/door/door.yaml", "backendRefs: [{name: marketing, port: 8080}]", "backendRefs: [{name: marketing, port: 8081}]", []string{"dev"}, "the door leads to port 8081 of marketing"},
	{"k8s/base/pod.yaml", "      enableServiceLinks: false\n", "      enableServiceLinks: false\n      hostNetwork: true\n", []string{"dev"}, "violates PodSecurity"},
	{"k8s/README.md", " `tools-nats`", "", []string{"prod"}, "tools-nats"},
	{"k8s/pipeline/deploy", "'Complete|Failed' || true", "'Complete' || true", []string{"prod", "migration"}, "it took"},
	{"k8s/base/rollout.yaml", "{maxSurge: 1, maxUnavailable: 0}", "{maxSurge: 0, maxUnavailable: 1}", []string{"prod", "rollout"}, "of 3 replicas ready"},
	{"k8s/pipeline/deploy", "notin (screening, mypage)", "notin (screening)", []string{"prod", "rollout"}, "mypage went before"},
	{"k8s/pipeline/deploy", " --selector 'app.kubernetes.io/name!=screening'", "", []string{"prod", "rollout"}, "screening went before"},
	{"k8s/pipeline/deploy", "notin (screening, reservation, marketing, mypage)", "notin (screening, reservation, mypage)", []string{"prod", "rollout"}, "marketing went before hospital"},
	{"k8s/overlays/prod/kustomization.yaml", "  - image\n\nimages:\n", "  []\n\nimages:\n  - {name: checkup, newName: registry.example/checkup, newTag: 0.1.0}\n", []string{"prod"}, "it names its image itself"},
	{"k8s/base/hospital.yaml", "type: ContainerResource\n      containerResource:\n        name: cpu\n        container: checkup\n", "type: Resource\n      resource:\n        name: cpu\n", []string{"prod", "scale"}, "a busy sidecar"},
	{"k8s/base/hospital.yaml", "stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 0", []string{"prod", "scale"}, "hospital has"},
	{"k8s/base/hospital.yaml", "policies: [{type: Pods, value: 1, periodSeconds: 60}]", "policies: [{type: Percent, value: 100, periodSeconds: 60}]", []string{"prod", "scale"}, "more than a pod a minute"},
	{"k8s/base/hospital.yaml", "  maxUnavailable: 1\n", "  maxUnavailable: 0\n", []string{"prod", "drain"}, "drain"},
	// The order that the document once had.
	{meshDocument, "kubectl apply -f k8s/base/namespace.yaml -f istio/namespace.yaml\n", "", []string{"mesh"}, `namespaces "istio-ingress" not found`},
	{"istio/mtls.yaml", "namespace: checkup", "namespace: istio-system", []string{"mesh"}, "peerauthentications istio-system/default is new"},
	{"istio/install.yaml", "minReplicas: 2\n          maxReplicas: 5", "minReplicas: 1\n          maxReplicas: 5", []string{"mesh"}, "istiod has 1 ready pods"},
	{"istio/install.yaml", "    cni:\n      enabled: true", "    cni:\n      enabled: false", []string{"mesh", "sidecars"}, "violates PodSecurity"},
	{"k8s/base/namespace.yaml", "    istio-injection: enabled\n", "", []string{"mesh", "sidecars"}, "has no sidecar"},
	{"k8s/pipeline/deploy", "  kubectl apply -k istio\n", "  true\n", []string{"mesh", "sidecars"}, "checkup/deny-all is gone"},
	{"istio/routes/hospital.yaml", "destination: {host: hospital.checkup.svc.cluster.local", "destination: {host: hospitals.checkup.svc.cluster.local", []string{"mesh", "sidecars"}, "IST0101"},
}

// planted tells the child which mistake is in its copy.
const planted = "CHECKUP_CLUSTER_PLANTED"

// patienceOf is how long a step may take; what is broken for good is given up earlier.
func patienceOf() time.Duration {
	if os.Getenv(planted) != "" {
		return 40 * time.Second
	}
	return 120 * time.Second
}

// plant puts the mistake that was chosen into the copy.
func (c *Cluster) plant() error {
	index, err := strconv.Atoi(os.Getenv(planted))
	if err != nil {
		return nil // none was
	}
	one := mistakes[index]
	path := filepath.Join(c.tree, one.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(content), one.text) {
		return fmt.Errorf("%s has no %q to replace", one.file, one.text)
	}
	return os.WriteFile(path, []byte(strings.ReplaceAll(string(content), one.text, one.instead)), 0o644)
}

// tryMistakes runs a cluster for each mistake.
func tryMistakes(programs, root string) error {
	passed := 0
	for i, one := range mistakes {
		begun := time.Now()
		var said bytes.Buffer
		child := exec.Command("/proc/self/exe", append([]string{"-root", root}, one.checks...)...)
		child.Stdout, child.Stderr = &said, &said
		child.Env = append(os.Environ(), inside+"="+programs, planted+"="+strconv.Itoa(i))
		child.SysProcAttr = namespaces()
		err := child.Run()
		last := one.checks[len(one.checks)-1]
		switch {
		case err == nil || !strings.Contains(said.String(), "cluster: "+last+": ") || !strings.Contains(said.String(), one.expected):
			passed++
			fmt.Printf("passes, or for other reasons: %s without %q: nobody says %q, but:\n%s\n", one.file, one.text, one.expected, said.String())
		default:
			fmt.Printf("%6.1f s  refused by %s: %q in %s\n", time.Since(begun).Seconds(), last, strings.TrimSpace(one.instead), one.file)
		}
	}
	if passed > 0 {
		return fmt.Errorf("%d of %d planted mistakes pass", passed, len(mistakes))
	}
	fmt.Printf("cluster: %d planted mistakes are refused\n", len(mistakes))
	return nil
}
