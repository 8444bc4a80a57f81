package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// OCMConfigMap is the name of the ConfigMap that [ImportOCM] reads.
const OCMConfigMap = "cluster-proxy-exposed-services"

// ruleOCM names the rule that [ImportOCM] makes.
const ruleOCM = "ocm-exposed-services"

// ImportOCM makes a policy of the services that Open Cluster Management's
// cluster-proxy exposes: the manifest of a ConfigMap each of whose data is a list
// of entries {namespace, service, port?, protocol?}, or such a list alone. As
// there, what is absent of port and protocol ("http" or "https") means all, names
// are names and no globs, and services that are not listed are denied. The
// Kubernetes API stays under the default.
//
// The error names each wrong entry. Nothing is left out silently: a policy that
// allows less than the list would be a surprise, too.
func ImportOCM(text []byte) (Document, error) {
	if len(text) > maxFile {
		return Document{}, fmt.Errorf("manifest of %d bytes, at most %d are allowed", len(text), maxFile)
	}
	reader := yaml.NewDecoder(bytes.NewReader(text))
	var root, next yaml.Node
	switch err := reader.Decode(&root); {
	case errors.Is(err, io.EOF):
		return Document{}, fmt.Errorf("empty, want the ConfigMap %s or its list", OCMConfigMap)
	case err != nil:
		return Document{}, yamlError(err)
	}
	if err := reader.Decode(&next); !errors.Is(err, io.EOF) {
		return Document{}, fmt.Errorf("line %d: a second YAML document, want the ConfigMap %s alone", max(next.Line, 1), OCMConfigMap)
	}
	o := &ocm{decoder: decoder{problems{lines: map[string]int{}}}}
	if root.Content[0].Kind == yaml.SequenceNode {
		o.list(root.Content[0], "entries")
	} else {
		o.configMap(root.Content[0])
	}
	if err := o.err(); err != nil {
		return Document{}, err
	}
	d := Document{APIVersion: APIVersion, Kind: Kind, Default: DefaultKubernetes}
	if len(o.services) > 0 {
		d.Rules = []Rule{{Name: ruleOCM, Effect: Allow, Services: o.services}}
	}
	_, err := Compile(d, Options{Agent: true})
	return d, err
}

type ocm struct {
	decoder

	services []ServiceRule
}

// configMap reads the data of a manifest. What else a ConfigMap has is of no
// matter.
func (o *ocm) configMap(n *yaml.Node) {
	var manifest struct {
		Kind string            `yaml:"kind"`
		Data map[string]string `yaml:"data"`
	}
	if err := n.Decode(&manifest); err != nil {
		o.addf("data", "%w", yamlError(err))
		return
	}
	if manifest.Kind != "ConfigMap" {
		o.addf("kind", "%s, want ConfigMap", quote(manifest.Kind))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(manifest.Data)) {
		var root yaml.Node
		path := "data." + key
		switch err := yaml.NewDecoder(strings.NewReader(manifest.Data[key])).Decode(&root); {
		case errors.Is(err, io.EOF):
		case err != nil:
			o.addf(path, "%w", yamlError(err))
		default:
			o.list(root.Content[0], path)
		}
	}
}

func (o *ocm) list(n *yaml.Node, path string) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		return // deny all, as there
	}
	// Lines of a text within a text would be counted from its start.
	read := list(&o.decoder, maxEntries, o.entry)
	for i, s := range read(n, path) {
		if s.Namespace == "" || s.Name == "" {
			o.addf(path+"["+strconv.Itoa(i)+"]", "namespace and service are required")
		}
		if strings.Contains(s.Namespace+s.Name+s.Port, wildcard) {
			o.addf(path+"["+strconv.Itoa(i)+"]", "has a \"*\", which is no glob in this list and matches nothing")
		}
		if !slices.Contains(o.services, s) {
			o.services = append(o.services, s)
		}
	}
	clear(o.lines)
}

func (o *ocm) entry(n *yaml.Node, path string) (s ServiceRule) {
	o.fields(n, path, []field{
		{"namespace", into(o.text, &s.Namespace)},
		{"service", into(o.text, &s.Name)},
		{"port", into(o.optionalPort, &s.Port)},
		{"protocol", into(o.text, &s.Scheme)},
	})
	return s
}

// optionalPort takes an empty text for all ports, as there.
func (o *ocm) optionalPort(n *yaml.Node, path string) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		return n.Value
	}
	return o.port(n, path)
}
