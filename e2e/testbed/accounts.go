package testbed

import (
	"context"
	"fmt"
	"path/filepath"
)

// AgentAccount is the service account of an agent in a managed cluster, and what
// it may do: impersonate, and nothing else. Extra keys are subresources of
// userextras, which RBAC cannot match by a pattern, hence the star; in the group
// authentication.k8s.io only uids and userextras can be impersonated.
const AgentAccount = `apiVersion: v1
kind: Namespace
metadata:
  name: culvert-agent
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: culvert-agent
  namespace: culvert-agent
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: culvert-agent
rules:
- apiGroups: [""]
  resources: ["users", "groups", "serviceaccounts"]
  verbs: ["impersonate"]
- apiGroups: ["authentication.k8s.io"]
  resources: ["*"]
  verbs: ["impersonate"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: culvert-agent
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: culvert-agent
subjects:
- kind: ServiceAccount
  name: culvert-agent
  namespace: culvert-agent
`

// ReviewerAccount is the service account of a hub in the hub's own cluster: it
// may ask TokenReview (Kubernetes' own role system:auth-delegator).
const ReviewerAccount = `apiVersion: v1
kind: Namespace
metadata:
  name: culvert-hub
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: culvert-hub
  namespace: culvert-hub
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: culvert-hub
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: system:auth-delegator
subjects:
- kind: ServiceAccount
  name: culvert-hub
  namespace: culvert-hub
`

// AgentKubeconfig creates AgentAccount in the cluster and returns a kubeconfig
// file with a token of it.
func (c *Cluster) AgentKubeconfig(ctx context.Context) (string, error) {
	return c.accountKubeconfig(ctx, AgentAccount, "culvert-agent")
}

// ReviewerKubeconfig creates ReviewerAccount in the cluster and returns a
// kubeconfig file with a token of it.
func (c *Cluster) ReviewerKubeconfig(ctx context.Context) (string, error) {
	return c.accountKubeconfig(ctx, ReviewerAccount, "culvert-hub")
}

// accountKubeconfig applies a manifest and writes a kubeconfig for the service
// account that it makes, whose name and namespace are both name.
func (c *Cluster) accountKubeconfig(ctx context.Context, manifest, name string) (string, error) {
	if err := c.Apply(ctx, manifest); err != nil {
		return "", fmt.Errorf("account %s: %w", name, err)
	}
	// The default of one hour is shorter than a demo that is left running.
	token, err := c.CreateToken(ctx, name, name, "--duration=24h")
	if err != nil {
		return "", fmt.Errorf("account %s: %w", name, err)
	}
	path := filepath.Join(c.Dir, name+".kubeconfig")
	if err := writeFile(path, Kubeconfig(c.URL, c.ca, token)); err != nil {
		return "", fmt.Errorf("account %s: %w", name, err)
	}
	return path, nil
}
