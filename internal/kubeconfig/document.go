package kubeconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// document is a kubeconfig as it is written, with its comments and fields that
// nobody here knows.
type document struct {
	path string
	// text is what was read; nil where there is no file.
	text []byte
	tree *yaml.Node // the document; its content is one mapping
	// changed tells that tree is not text any more; written are the entries that
	// were set, as list/name.
	changed bool
	written []string
}

func readDocument(path string) (*document, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseDocument(path, text)
}

func parseDocument(path string, text []byte) (*document, error) {
	d := &document{path: path, text: text, tree: &yaml.Node{}}
	reader := yaml.NewDecoder(bytes.NewReader(text))
	switch err := reader.Decode(d.tree); {
	case errors.Is(err, io.EOF): // empty, or none
		d.tree = &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{mapping(
			scalar("apiVersion"), scalar("v1"), scalar("kind"), scalar("Config"),
		)}}
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := reader.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", path)
	}
	if len(d.tree.Content) != 1 {
		return nil, fmt.Errorf("%s: not a kubeconfig", path)
	}
	if root := d.tree.Content[0]; isNull(root) {
		d.tree.Content[0] = mapping(scalar("apiVersion"), scalar("v1"), scalar("kind"), scalar("Config"))
	} else if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: not a kubeconfig: the document is no mapping", path)
	}
	return d, nil
}

func scalar(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	return n
}

func mapping(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: content}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// field returns the value of a key in a mapping; nil where there is none.
func field(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// items returns the elements of a list.
func (d *document) items(list string) []*yaml.Node {
	n := field(d.tree.Content[0], list)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// find returns the entry of a list with a name; nil where there is none.
func (d *document) find(list, name string) *yaml.Node {
	for _, item := range d.items(list) {
		if n := field(item, "name"); n != nil && n.Value == name {
			return item
		}
	}
	return nil
}

// set puts an entry in the place of the one with its name, or at the list's end.
func (d *document) set(list, name string, item *yaml.Node) error {
	if old := d.find(list, name); old != nil {
		if sameContent(old, item) {
			return nil
		}
		if old.Anchor != "" {
			return fmt.Errorf("%s: %s %q has a YAML anchor that others may refer to: remove it, or give another name", d.path, list, name)
		}
		head, line, foot := old.HeadComment, old.LineComment, old.FootComment
		*old = *item
		old.HeadComment, old.LineComment, old.FootComment = head, line, foot
	} else {
		root := d.tree.Content[0]
		at := field(root, list)
		switch {
		case at == nil:
			at = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
			root.Content = append(root.Content, scalar(list), at)
		case isNull(at):
			*at = yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", HeadComment: at.HeadComment, LineComment: at.LineComment, FootComment: at.FootComment}
		case at.Kind != yaml.SequenceNode:
			return fmt.Errorf("%s: %s: not a list", d.path, list)
		}
		if len(at.Content) == 0 {
			at.Style = 0 // "[]" is not how a list goes on
		}
		at.Content = append(at.Content, item)
	}
	d.changed = true
	d.written = append(d.written, list+"/"+name)
	return nil
}

// current is the name of the current context.
func (d *document) current() string {
	if n := field(d.tree.Content[0], "current-context"); n != nil && !isNull(n) {
		return n.Value
	}
	return ""
}

func (d *document) use(name string) {
	if d.current() == name {
		return
	}
	root := d.tree.Content[0]
	if n := field(root, "current-context"); n != nil {
		head, line, foot := n.HeadComment, n.LineComment, n.FootComment
		*n = *scalar(name)
		n.HeadComment, n.LineComment, n.FootComment = head, line, foot
	} else {
		root.Content = append(root.Content, scalar("current-context"), scalar(name))
	}
	d.changed = true
}

func (d *document) encode() ([]byte, error) {
	var out bytes.Buffer
	w := yaml.NewEncoder(&out)
	w.SetIndent(2)
	if err := errors.Join(w.Encode(d.tree), w.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return out.Bytes(), nil
}

// plain is the content of a node without comments and style.
func plain(n *yaml.Node) (any, error) {
	text, err := yaml.Marshal(n)
	if err != nil {
		return nil, err
	}
	asJSON, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	var value any
	err = json.Unmarshal(asJSON, &value)
	return value, err
}

func sameContent(a, b *yaml.Node) bool {
	x, errX := plain(a)
	y, errY := plain(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// ownedBy tells whether an entry says that it was made for the cluster and hub of
// info. kind is the field in which it has what it is.
func ownedBy(item *yaml.Node, kind string, info Info) bool {
	list := field(field(item, kind), "extensions")
	if list == nil || list.Kind != yaml.SequenceNode {
		return false
	}
	for _, one := range list.Content {
		if name := field(one, "name"); name == nil || name.Value != Extension {
			continue
		}
		of := field(one, "extension")
		cluster, hub := field(of, "cluster"), field(of, "hub")
		return cluster != nil && hub != nil && cluster.Value == info.Cluster && hub.Value == info.Hub
	}
	return false
}
