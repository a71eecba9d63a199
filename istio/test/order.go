package mesh

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// apiServer is as much of an API server as decides whether a documented command is refused: namespaces, kinds and
// objects.
type apiServer struct {
	root       string
	namespaces map[string]bool
	kinds      map[string]bool // of CustomResourceDefinitions
	objects    map[string]bool // KIND NAMESPACE/NAME
}

// emptyCluster is a cluster on which nothing was installed.
func emptyCluster(root string) *apiServer {
	return &apiServer{
		root: root, kinds: map[string]bool{}, objects: map[string]bool{},
		namespaces: map[string]bool{"default": true, "kube-system": true, "kube-public": true, "kube-node-lease": true},
	}
}

// commandsOf are the shell commands of a document, in its order: the blocks marked sh, without comments.
func commandsOf(text string) (commands []string) {
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); line != "" {
				commands = append(commands, line)
			}
		}
	}
	return commands
}

// follow says what of a document's commands for a cluster would be refused; others are passed over.
func (a *apiServer) follow(commands []string) (problems []string) {
	for _, command := range commands {
		words := strings.Fields(command)
		var wrong []string
		switch {
		case words[0] == "istioctl" && words[1] == "install":
			wrong = a.install(argument(words, "-f"))
		case words[0] == "kubectl" && words[1] == "apply":
			for i, word := range words {
				switch {
				case word == "-f":
					wrong = append(wrong, a.applyFile(words[i+1])...)
				case word == "-k":
					wrong = append(wrong, a.applyFolder(words[i+1])...)
				}
			}
		case words[0] == "kubectl" && argument(words, "-n") != "":
			if namespace := argument(words, "-n"); !a.namespaces[namespace] {
				wrong = append(wrong, fmt.Sprintf("namespaces %q not found", namespace))
			}
		}
		for _, one := range wrong {
			problems = append(problems, command+": "+one)
		}
	}
	return problems
}

func argument(words []string, flag string) string {
	for i, word := range words[:len(words)-1] {
		if word == flag {
			return words[i+1]
		}
	}
	return ""
}

func (a *apiServer) applyFile(name string) []string {
	text, err := os.ReadFile(filepath.Join(a.root, name))
	if err != nil {
		return []string{err.Error()}
	}
	objects, err := decode(text)
	if err != nil {
		return []string{err.Error()}
	}
	return a.apply(objects)
}

func (a *apiServer) applyFolder(name string) []string {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(a.root, name))
	if err != nil {
		return []string{err.Error()}
	}
	text, err := built.AsYaml()
	if err != nil {
		return []string{err.Error()}
	}
	objects, err := decode(text)
	if err != nil {
		return []string{err.Error()}
	}
	return a.apply(objects)
}

// install is what istioctl does: it makes the namespace of the IstioOperator, and applies what its charts make of it.
func (a *apiServer) install(name string) []string {
	text, err := os.ReadFile(filepath.Join(a.root, name))
	if err != nil {
		return []string{err.Error()}
	}
	manifests := &Manifests{}
	if manifests.Install, err = decode(text); err != nil {
		return []string{err.Error()}
	}
	for _, object := range manifests.Install {
		a.namespaces[object.GetNamespace()] = true
	}
	objects, err := manifests.installed()
	if err != nil {
		return []string{err.Error()}
	}
	return a.apply(objects)
}

// apply takes namespaces and kinds first, as kubectl and istioctl do.
func (a *apiServer) apply(objects []*unstructured.Unstructured) (problems []string) {
	for _, object := range objects {
		switch object.GetKind() {
		case "Namespace":
			a.namespaces[object.GetName()] = true
		case "CustomResourceDefinition":
			kind, _, _ := unstructured.NestedString(object.Object, "spec", "names", "kind")
			group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
			a.kinds[group+" "+kind] = true
		}
	}
	missing := map[string]bool{}
	for _, object := range objects {
		group := object.GroupVersionKind().Group
		if namespace := object.GetNamespace(); namespace != "" && !a.namespaces[namespace] && !missing[namespace] {
			missing[namespace] = true
			problems = append(problems, fmt.Sprintf("namespaces %q not found", namespace))
		}
		if known := group + " " + object.GetKind(); strings.HasSuffix(group, ".istio.io") && !a.kinds[known] && !missing[known] {
			missing[known] = true
			problems = append(problems, fmt.Sprintf("no matches for kind %q in %s", object.GetKind(), group))
		}
		a.objects[fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())] = true
	}
	return problems
}
