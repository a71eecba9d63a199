package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"istio.io/istio/operator/pkg/render"
)

// Manifests are what `kubectl apply -k istio` would apply, and what `istioctl install -f istio/install.yaml` would.
type Manifests struct {
	Objects []*unstructured.Unstructured
	Install []*unstructured.Unstructured
}

// load renders the folder above this one.
func load() (*Manifests, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "..")
	if err != nil {
		return nil, err
	}
	text, err := built.AsYaml()
	if err != nil {
		return nil, err
	}
	install, err := os.ReadFile("../install.yaml")
	if err != nil {
		return nil, err
	}
	manifests := &Manifests{}
	if manifests.Objects, err = decode(text); err != nil {
		return nil, err
	}
	manifests.Install, err = decode(install)
	return manifests, err
}

func decode(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := kubeyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

func encode(objects []*unstructured.Unstructured) (string, error) {
	var all []string
	for _, object := range objects {
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			return "", err
		}
		all = append(all, string(text))
	}
	return strings.Join(all, "---\n"), nil
}

func (m *Manifests) clone() *Manifests {
	copied := &Manifests{}
	for _, object := range m.Objects {
		copied.Objects = append(copied.Objects, object.DeepCopy())
	}
	for _, object := range m.Install {
		copied.Install = append(copied.Install, object.DeepCopy())
	}
	return copied
}

// find returns the object of this kind and name; in the namespace checkup where several have it.
func (m *Manifests) find(kind, name string) *unstructured.Unstructured {
	var found *unstructured.Unstructured
	for _, object := range m.Objects {
		if object.GetKind() == kind && object.GetName() == name && (found == nil || object.GetNamespace() == "checkup") {
			found = object
		}
	}
	return found
}

// spec returns a part of an object's spec.
func spec(object *unstructured.Unstructured, path ...string) any {
	value, _, _ := unstructured.NestedFieldNoCopy(object.Object, append([]string{"spec"}, path...)...)
	return value
}

func id(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
}

// rendered profiles: most mutants share one, and charts take their time.
var rendered = map[string][]*unstructured.Unstructured{}

// installed renders what istioctl would apply, by Istio's own charts.
func (m *Manifests) installed() ([]*unstructured.Unstructured, error) {
	text, err := encode(m.Install)
	if err != nil {
		return nil, err
	}
	if made, known := rendered[text]; known {
		return made, nil
	}
	file, err := os.CreateTemp("", "install-*.yaml")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(text); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	// hub and tag: those of the library are a test build's.
	sets, _, err := render.GenerateManifest([]string{file.Name()}, []string{"hub=docker.io/istio", "tag=0"}, false, nil, nil)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, set := range sets {
		for _, manifest := range set.Manifests {
			objects = append(objects, manifest.Unstructured)
		}
	}
	rendered[text] = objects
	return objects, nil
}
