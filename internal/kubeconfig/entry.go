package kubeconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Extension is the name under which a kubeconfig has an [Info].
const Extension = "culvert.dev/kubeconfig"

// MaxFile bounds a kubeconfig that is read, in bytes.
const MaxFile = 16 << 20

// Condition is something about a cluster that its user should know.
type Condition struct {
	// Type is what programs look for, such as [ConditionSANMissing].
	Type string `json:"type"`
	// Message says what it means and what to do.
	Message string `json:"message"`
}

// The types of a [Condition].
const (
	// ConditionSANMissing: the API server's certificate lacks the cluster's name.
	ConditionSANMissing = "SANMissing"
	// ConditionUserMissing: the cluster itself authenticates the user, whom the hub
	// does not know; the entry has none yet.
	ConditionUserMissing = "UserMissing"
)

// Info is what a kubeconfig says of its own entries, for tools.
type Info struct {
	// Cluster is the cluster's name at the hub, Hub the hub's URL.
	Cluster string `json:"cluster"`
	Hub     string `json:"hub"`
	Mode    Mode   `json:"mode,omitempty"`
	// Access is [AccessTunnel] or [AccessDirect].
	Access Access `json:"access,omitempty"`
	// Generation is that of the endpoint.
	Generation string `json:"generation,omitempty"`
	// Snippets are what gives the API server's certificate the cluster's name.
	Snippets   *Snippets   `json:"snippets,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// owner is what tells to whom an entry of a file belongs.
func (i Info) owner() Info { return Info{Cluster: i.Cluster, Hub: i.Hub} }

// Entry is a context of a kubeconfig with its cluster and its user, which have the
// same name.
type Entry struct {
	Name string
	Endpoint
	// User is nil for one without credentials.
	User *api.AuthInfo
	// Namespace is the context's own; empty for "default".
	Namespace string
	Info      Info
}

// Secret tells whether one of entries has a credential in it, and does not only say where
// one is.
func Secret(entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		u := cmp.Or(e.User, &api.AuthInfo{})
		return u.Token != "" || u.Password != "" || len(u.ClientKeyData) > 0 || strings.Contains(e.ProxyURL, "@")
	})
}

// Build returns a kubeconfig of these entries, with the first as the current
// context. An Info without a generation gets that of its endpoint.
func Build(entries ...Entry) (*api.Config, error) {
	config := api.NewConfig()
	for i, e := range entries {
		if e.Name == "" {
			return nil, errors.New("kubeconfig: an entry has no name")
		}
		if config.Contexts[e.Name] != nil {
			return nil, fmt.Errorf("kubeconfig: two entries are named %q", e.Name)
		}
		if e.Info.Generation == "" {
			e.Info.Generation = e.Generation()
		}
		whole, err := extension(e.Info)
		if err != nil {
			return nil, err
		}
		owner, err := extension(e.Info.owner())
		if err != nil {
			return nil, err
		}
		cluster := api.NewCluster()
		cluster.Server, cluster.TLSServerName, cluster.ProxyURL = e.Server, e.TLSServerName, e.ProxyURL
		cluster.InsecureSkipTLSVerify, cluster.Extensions = e.Insecure, whole
		if !e.Insecure { // client-go refuses both
			cluster.CertificateAuthorityData = e.CA
		}
		user := api.NewAuthInfo()
		if e.User != nil {
			user = e.User.DeepCopy()
		}
		user.Extensions = owner
		context := api.NewContext()
		context.Cluster, context.AuthInfo, context.Namespace, context.Extensions = e.Name, e.Name, e.Namespace, owner
		config.Clusters[e.Name], config.AuthInfos[e.Name], config.Contexts[e.Name] = cluster, user, context
		if i == 0 {
			config.CurrentContext = e.Name
		}
	}
	return config, nil
}

// Encode returns the file of these entries, YAML.
func Encode(entries ...Entry) ([]byte, error) {
	config, err := Build(entries...)
	if err != nil {
		return nil, err
	}
	text, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return text, nil
}

// Decode returns the entries of a file that a hub made, by name. Contexts of others
// are not among them.
func Decode(text []byte) ([]Entry, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("kubeconfig: larger than %d bytes", MaxFile)
	}
	config, err := clientcmd.Load(text)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	var entries []Entry
	for name, context := range config.Contexts {
		cluster := config.Clusters[context.Cluster]
		if cluster == nil {
			continue
		}
		info, ok, err := infoOf(cluster.Extensions)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig: context %q: %w", name, err)
		}
		if !ok {
			continue
		}
		e := Entry{
			Name: name, Namespace: context.Namespace, Info: info, User: config.AuthInfos[context.AuthInfo],
			Endpoint: Endpoint{
				Server: cluster.Server, CA: cluster.CertificateAuthorityData, TLSServerName: cluster.TLSServerName,
				ProxyURL: cluster.ProxyURL, Insecure: cluster.InsecureSkipTLSVerify,
			},
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func extension(info Info) (map[string]runtime.Object, error) {
	raw, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return map[string]runtime.Object{Extension: &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}}, nil
}

func infoOf(extensions map[string]runtime.Object) (Info, bool, error) {
	unknown, ok := extensions[Extension].(*runtime.Unknown)
	if !ok {
		return Info{}, false, nil
	}
	var info Info
	if err := json.Unmarshal(unknown.Raw, &info); err != nil {
		return Info{}, false, fmt.Errorf("extension %s: %w", Extension, err)
	}
	return info, true, nil
}

// Ours tells whether every cluster of a file came from a hub, so that the file may be
// replaced as a whole. An empty one is nobody's.
func Ours(text []byte) (bool, error) {
	config, err := clientcmd.Load(text)
	if err != nil {
		return false, fmt.Errorf("kubeconfig: %w", err)
	}
	for _, cluster := range config.Clusters {
		if _, ok, err := infoOf(cluster.Extensions); !ok || err != nil {
			return false, err
		}
	}
	return len(config.Contexts) <= len(config.Clusters), nil
}
