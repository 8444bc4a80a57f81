package docs_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/internal/policy"
)

// addonManifests returns what the addon template of OCM installs, YAML, by kind and
// name.
func addonManifests(t *testing.T) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	for document := range strings.SplitSeq(read(t, filepath.Join(root, "deploy", "ocm", "addon.yaml")), "\n---\n") {
		var template struct {
			metav1.TypeMeta

			Spec struct {
				AgentSpec struct {
					Workload struct{ Manifests []map[string]any }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(document), &template); err != nil {
			t.Fatal(err)
		}
		if template.Kind != "AddOnTemplate" {
			continue
		}
		for _, manifest := range template.Spec.AgentSpec.Workload.Manifests {
			text, err := yaml.Marshal(manifest)
			if err != nil {
				t.Fatal(err)
			}
			var head metav1.PartialObjectMetadata
			if err := yaml.Unmarshal(text, &head); err != nil {
				t.Fatal(err)
			}
			found[head.Kind+"/"+head.Name] = text
		}
	}
	return found
}

func TestAddonOfOCM(t *testing.T) {
	manifests := addonManifests(t)
	t.Run("N9: the agent's account may impersonate and nothing else", func(t *testing.T) {
		var account []string
		for _, name := range []string{"Namespace/culvert-agent", "ServiceAccount/culvert-agent", "ClusterRole/culvert-agent", "ClusterRoleBinding/culvert-agent"} {
			account = append(account, string(manifests[name]))
		}
		checkAccount(t, strings.Join(account, "---\n"), func(verb string) bool { return verb == "impersonate" })
	})
	t.Run("the policy is one that an agent reads", func(t *testing.T) {
		var config corev1.ConfigMap
		if err := yaml.UnmarshalStrict(manifests["ConfigMap/culvert-agent-policy"], &config); err != nil {
			t.Fatal(err)
		}
		if _, err := policy.Parse([]byte(config.Data["policy.yaml"]), policy.Options{Agent: true}); err != nil {
			t.Error(err)
		}
	})
	t.Run("the agent's arguments are flags that it has, and its files are mounted", func(t *testing.T) {
		var deployment appsv1.Deployment
		if err := yaml.UnmarshalStrict(manifests["Deployment/culvert-agent"], &deployment); err != nil {
			t.Fatal(err)
		}
		container := deployment.Spec.Template.Spec.Containers[0]
		for _, arg := range container.Args {
			flag, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !slices.Contains(commands(t)["culvert-agent"].flags, flag) {
				t.Errorf("culvert-agent has no flag --%s", flag)
			}
			// OCM mounts what is below /managed.
			if strings.HasPrefix(value, "/etc/") && !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return filepath.Dir(value) == m.MountPath }) {
				t.Errorf("%s is in no volume", value)
			}
		}
	})
}
