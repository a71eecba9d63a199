package mesh

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	operator "istio.io/istio/operator/pkg/apis"
	operatorvalidation "istio.io/istio/operator/pkg/apis/validation"
	kubecrd "istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/config/schema/collections"
)

// schemas are Istio's CRDs, from the module that go.mod names.
var schemas = sync.OnceValues(func() (*crd.Validator, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot find Istio's CRDs: %w", err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "manifests/charts/base/files/crd-all.gen.yaml")
	return crd.NewValidatorFromFilesWithOptions([]string{file}, crd.WithoutCRDValidation())
})

// validate holds every object to the CRD's schema and rules, and to what `istioctl validate` says; its warnings are
// problems too.
func validate(manifests *Manifests) (problems []string) {
	validator, err := schemas()
	if err != nil {
		return []string{err.Error()}
	}
	seen := map[string]bool{}
	for _, object := range manifests.Objects {
		if seen[id(object)] {
			problems = append(problems, id(object)+": twice")
		}
		seen[id(object)] = true
		if err := validator.ValidateCustomResource(object.DeepCopy()); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", id(object), err))
		}
		problems = append(problems, validateAsIstioctl(object)...)
	}
	for _, object := range manifests.Install {
		if object.GetAPIVersion() != operator.IstioOperatorGVK.GroupVersion().String() {
			problems = append(problems, id(object)+": not an IstioOperator")
			continue
		}
		warnings, err := operatorvalidation.ParseAndValidateIstioOperator(object.Object, nil)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", id(object), err))
		}
		for _, warning := range warnings {
			problems = append(problems, fmt.Sprintf("%s: warning: %v", id(object), warning))
		}
	}
	return problems
}

// Istio says this of every EnvoyFilter, whatever is in it. That they do what they are for is what the rest of this
// module shows.
const everyEnvoyFilter = "EnvoyFilter exposes internal implementation details that may change at any time. " +
	"Prefer other APIs if possible, and exercise extreme caution, especially around upgrades."

func validateAsIstioctl(object *unstructured.Unstructured) []string {
	kind := object.GroupVersionKind()
	schema, known := collections.Pilot.FindByGroupVersionAliasesKind(config.FromKubernetesGVK(kind))
	if !known {
		return []string{id(object) + ": not a kind of Istio's"}
	}
	text, err := object.MarshalJSON()
	if err != nil {
		return []string{fmt.Sprintf("%s: %v", id(object), err)}
	}
	parsed, _, err := kubecrd.ParseInputs(string(text))
	if err != nil || len(parsed) != 1 {
		return []string{fmt.Sprintf("%s: %v", id(object), err)}
	}
	warnings, err := schema.ValidateConfig(parsed[0])
	var problems []string
	if err != nil {
		problems = append(problems, fmt.Sprintf("%s: %v", id(object), err))
	}
	if warnings != nil && warnings.Error() != everyEnvoyFilter {
		problems = append(problems, fmt.Sprintf("%s: warning: %v", id(object), warnings))
	}
	return problems
}
