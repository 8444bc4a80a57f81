package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFile is the size of a policy file, in bytes.
	maxFile = 1 << 20
	// maxProblems is how many problems an error tells.
	maxProblems = 20
)

// problems are what is wrong with a policy, each with its path.
type problems struct {
	lines map[string]int // of paths; nil for a document that was not read from text
	all   []error
	more  int
}

func (p *problems) addf(path, format string, args ...any) {
	if len(p.all) == maxProblems {
		p.more++
		return
	}
	err := fmt.Errorf(format, args...)
	if line, ok := p.lines[path]; ok {
		p.all = append(p.all, fmt.Errorf("line %d: %s: %w", line, printable(path), err))
		return
	}
	p.all = append(p.all, fmt.Errorf("%s: %w", printable(path), err))
}

func (p *problems) err() error {
	if p.more > 0 {
		p.all, p.more = append(p.all, fmt.Errorf("and %d more", p.more)), 0
	}
	return errors.Join(p.all...)
}

// decode reads the fields of a policy and knows nothing of what their values
// mean. It returns the line of each path.
func decode(text []byte) (Document, map[string]int, error) {
	if len(text) > maxFile {
		return Document{}, nil, fmt.Errorf("policy of %d bytes, at most %d are allowed", len(text), maxFile)
	}
	reader := yaml.NewDecoder(bytes.NewReader(text))
	var root, next yaml.Node
	switch err := reader.Decode(&root); {
	case errors.Is(err, io.EOF):
		return Document{}, nil, fmt.Errorf("empty policy, want \"apiVersion: %s\" and \"kind: %s\"", APIVersion, Kind)
	case err != nil:
		return Document{}, nil, yamlError(err)
	}
	// What follows the first document would be silently without effect.
	switch err := reader.Decode(&next); {
	case err == nil:
		return Document{}, nil, fmt.Errorf("line %d: a second YAML document, a policy is one", max(next.Line, 1))
	case !errors.Is(err, io.EOF):
		return Document{}, nil, yamlError(err)
	}
	d := &decoder{problems{lines: map[string]int{}}}
	document := d.document(root.Content[0])
	return document, d.lines, d.err()
}

// yamlError says it on one line.
func yamlError(err error) error {
	return fmt.Errorf("not valid YAML: %s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
}

type decoder struct{ problems }

// field reads the value of one field of a mapping.
type field struct {
	name string
	read func(n *yaml.Node, path string)
}

func (d *decoder) document(n *yaml.Node) (doc Document) {
	d.fields(n, "", []field{
		{"apiVersion", into(d.text, &doc.APIVersion)},
		{"kind", into(d.text, &doc.Kind)},
		{"default", func(n *yaml.Node, path string) { doc.Default = Default(d.text(n, path)) }},
		{"rules", into(list(d, maxRules, d.rule), &doc.Rules)},
	})
	return doc
}

func (d *decoder) rule(n *yaml.Node, path string) (r Rule) {
	d.fields(n, path, []field{
		{"name", into(d.text, &r.Name)},
		{"effect", func(n *yaml.Node, path string) { r.Effect = Effect(d.text(n, path)) }},
		{"users", into(d.texts, &r.Users)},
		{"groups", into(d.texts, &r.Groups)},
		{"clusters", func(n *yaml.Node, path string) { c := d.cluster(n, path); r.Clusters = &c }},
		{"kubernetes", into(list(d, maxEntries, d.kubernetes), &r.Kubernetes)},
		{"services", into(list(d, maxEntries, d.service), &r.Services)},
		{"tcp", into(list(d, maxEntries, d.tcp), &r.TCP)},
		{"impersonate", into(list(d, maxEntries, d.impersonate), &r.Impersonate)},
	})
	return r
}

func (d *decoder) cluster(n *yaml.Node, path string) (c ClusterRule) {
	d.fields(n, path, []field{
		{"names", into(d.texts, &c.Names)},
		{"labels", into(d.labels, &c.Labels)},
	})
	return c
}

func (d *decoder) kubernetes(n *yaml.Node, path string) (k KubernetesRule) {
	d.fields(n, path, []field{
		{"verbs", into(d.texts, &k.Verbs)},
		{"apiGroups", into(d.texts, &k.APIGroups)},
		{"resources", into(d.texts, &k.Resources)},
		{"namespaces", into(d.texts, &k.Namespaces)},
		{"names", into(d.texts, &k.Names)},
		{"nonResourceURLs", into(d.texts, &k.NonResourceURLs)},
	})
	return k
}

func (d *decoder) service(n *yaml.Node, path string) (s ServiceRule) {
	d.fields(n, path, []field{
		{"namespace", into(d.required, &s.Namespace)},
		{"name", into(d.required, &s.Name)},
		{"port", into(d.port, &s.Port)},
		{"scheme", into(d.required, &s.Scheme)},
	})
	return s
}

func (d *decoder) tcp(n *yaml.Node, path string) (t TCPRule) {
	d.fields(n, path, []field{
		{"hosts", into(d.texts, &t.Hosts)},
		{"cidrs", into(d.texts, &t.CIDRs)},
		{"ports", into(list(d, maxEntries, d.port), &t.Ports)},
	})
	return t
}

func (d *decoder) impersonate(n *yaml.Node, path string) (i ImpersonateRule) {
	d.fields(n, path, []field{
		{"users", into(d.texts, &i.Users)},
		{"groups", into(d.texts, &i.Groups)},
		{"uids", into(d.texts, &i.UIDs)},
		{"extraKeys", into(d.texts, &i.ExtraKeys)},
	})
	return i
}

func into[T any](read func(*yaml.Node, string) T, to *T) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) { *to = read(n, path) }
}

// fields reads a mapping, every field of which is known and there once.
func (d *decoder) fields(n *yaml.Node, path string, known []field) {
	if !d.is(n, path, yaml.MappingNode, "fields, one \"field: value\" a line") {
		return
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		if key.Kind != yaml.ScalarNode {
			at = join(path, "?")
		}
		if _, ok := d.lines[at]; !ok {
			d.lines[at] = key.Line
		}
		found := slices.IndexFunc(known, func(f field) bool { return f.name == key.Value })
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str" || found < 0:
			d.addf(at, "there is no such field, want one of %s", names(known))
		case slices.Contains(seen, key.Value):
			d.addf(at, "given twice")
		default:
			seen = append(seen, key.Value)
			known[found].read(value, at)
		}
	}
}

func names(known []field) string {
	var all []string
	for _, f := range known {
		all = append(all, f.name)
	}
	return strings.Join(all, ", ")
}

// join is the path of a field; the document has none.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// printable bounds what of a file gets into an error.
func printable(path string) string {
	const most = 120
	if len(path) > most {
		path = path[:most] + "..."
	}
	quoted := strconv.QuoteToASCII(path)
	return quoted[1 : len(quoted)-1]
}

// is reports a value of another kind than wanted.
func (d *decoder) is(n *yaml.Node, path string, kind yaml.Kind, want string) bool {
	at := path
	if at == "" {
		at = "policy"
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.addf(at, "anchors and aliases are not supported, write the value out")
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		d.addf(at, "empty, leave it out or give a value")
	case n.Kind != kind:
		d.addf(at, "want %s", want)
	default:
		return true
	}
	return false
}

// list reads the elements of a list that is not empty.
func list[T any](d *decoder, most int, read func(*yaml.Node, string) T) func(*yaml.Node, string) []T {
	return func(n *yaml.Node, path string) []T {
		if !d.is(n, path, yaml.SequenceNode, "a list") {
			return nil
		}
		switch {
		case len(n.Content) == 0:
			d.addf(path, "empty list, leave the field out or name something")
		case len(n.Content) > most:
			d.addf(path, "%d entries, at most %d are allowed", len(n.Content), most)
			return nil
		}
		all := make([]T, 0, len(n.Content))
		for i, element := range n.Content {
			at := path + "[" + strconv.Itoa(i) + "]"
			d.lines[at] = element.Line
			all = append(all, read(element, at))
		}
		return all
	}
}

func (d *decoder) texts(n *yaml.Node, path string) []string {
	return list(d, maxEntries, d.text)(n, path)
}

// text reads a text. What YAML takes for something else is refused, so that 007
// and 1e3 are not guessed at.
func (d *decoder) text(n *yaml.Node, path string) string {
	if !d.is(n, path, yaml.ScalarNode, "a text") {
		return ""
	}
	if n.Tag != "!!str" {
		d.addf(path, "want a text, put %s in quotes", strconv.QuoteToASCII(n.Value))
		return ""
	}
	return n.Value
}

// required reads a text which, when it is empty, would mean that it is not there.
func (d *decoder) required(n *yaml.Node, path string) string {
	text := d.text(n, path)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && text == "" {
		d.addf(path, "empty, leave it out or give a value")
	}
	return text
}

// port reads a number or a text.
func (d *decoder) port(n *yaml.Node, path string) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!int" && n.Anchor == "" {
		return n.Value
	}
	return d.required(n, path)
}

func (d *decoder) labels(n *yaml.Node, path string) map[string]string {
	if !d.is(n, path, yaml.MappingNode, "labels, one \"key: value\" a line") {
		return nil
	}
	switch {
	case len(n.Content) == 0:
		d.addf(path, "empty, leave the field out or name something")
	case len(n.Content)/2 > maxEntries:
		d.addf(path, "%d labels, at most %d are allowed", len(n.Content)/2, maxEntries)
		return nil
	}
	labels := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := path + "[" + strconv.Itoa(i/2) + "]"
		d.lines[at] = n.Content[i].Line
		key := d.text(n.Content[i], at)
		if _, twice := labels[key]; twice {
			d.addf(at, "label %s given twice", strconv.QuoteToASCII(key))
		}
		at = path + "." + key
		d.lines[at] = n.Content[i+1].Line
		labels[key] = d.text(n.Content[i+1], at)
	}
	return labels
}
