package kubeconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// MergeOptions say how entries get into the files of somebody who has others.
type MergeOptions struct {
	// File is the one to change; empty for those that kubectl reads: the list in
	// KUBECONFIG, or ~/.kube/config.
	File string
	// Force replaces entries of others that have the same names.
	Force bool
	// Use makes the first entry the current context. A file without one gets it in
	// any case.
	Use bool
}

// Merge puts entries into the files, and returns those that it changed, none where
// all was there already. An entry that is in a file of the list is changed there,
// and a new one goes where kubectl would put it. Everything else in the files stays:
// other entries, unknown fields, comments. What a file was before is beside it as
// FILE.bak, mode 0600.
//
// An entry of the same name that is not of the same cluster and hub is another's,
// and is not replaced without Force. Calls and kubectl's own changes wait for each
// other ("FILE.lock"), for at most 20 s.
func Merge(ctx context.Context, entries []Entry, opts MergeOptions) (changed []string, err error) {
	if len(entries) == 0 {
		return nil, errors.New("kubeconfig: no entry to merge")
	}
	paths := clientcmd.NewDefaultPathOptions()
	paths.LoadingRules.ExplicitPath = opts.File
	files := paths.GetLoadingPrecedence()
	if len(files) == 0 {
		return nil, errors.New("kubeconfig: no file is named, and there is no home folder")
	}
	files = slices.DeleteFunc(slices.Clone(files), func(name string) bool { return name == "" })
	unlock, err := lockAll(ctx, files)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	set := &fileSet{}
	for _, path := range files {
		d, err := readDocument(path)
		if err != nil {
			return nil, err
		}
		set.documents = append(set.documents, d)
		if path == paths.GetDefaultFilename() {
			set.standard = d
		}
	}
	if set.standard == nil {
		set.standard = set.documents[len(set.documents)-1]
	}
	for i, e := range entries {
		if err := set.put(e, opts, i == 0); err != nil {
			return nil, err
		}
	}
	return set.write(Secret(entries))
}

// fileSet are the files that kubectl reads together.
type fileSet struct {
	documents []*document
	standard  *document
}

// sections are the lists of a kubeconfig, with the field in which an entry has what
// it is.
var sections = []struct{ list, field string }{{"clusters", "cluster"}, {"users", "user"}, {"contexts", "context"}}

// put enters the three parts of an entry.
func (s *fileSet) put(e Entry, opts MergeOptions, first bool) error {
	text, err := Encode(e)
	if err != nil {
		return err
	}
	made, err := parseDocument("", text)
	if err != nil {
		return err
	}
	for _, section := range sections {
		item := made.find(section.list, e.Name)
		to := s.standard
		if i := slices.IndexFunc(s.documents, func(d *document) bool { return d.find(section.list, e.Name) != nil }); i >= 0 {
			to = s.documents[i] // which is the one that kubectl takes it from
		}
		old := to.find(section.list, e.Name)
		if old != nil && !opts.Force && !sameContent(old, item) && !ownedBy(old, section.field, e.Info) {
			return fmt.Errorf("%s has a %s %q that was not made for cluster %s of %s: give another name, or --force to replace it",
				to.path, section.field, e.Name, e.Info.Cluster, e.Info.Hub)
		}
		if err := to.set(section.list, e.Name, item); err != nil {
			return err
		}
	}
	if !first {
		return nil
	}
	current := slices.ContainsFunc(s.documents, func(d *document) bool { return d.current() != "" })
	if opts.Use || !current {
		// The first file that has one decides.
		to := s.standard
		if i := slices.IndexFunc(s.documents, func(d *document) bool { return d.current() != "" }); i >= 0 {
			to = s.documents[i]
		}
		to.use(e.Name)
	}
	return nil
}

// write writes the files that changed, each with its backup.
func (s *fileSet) write(secret bool) (changed []string, err error) {
	texts := make([][]byte, len(s.documents))
	for i, d := range s.documents { // all are checked before one is written
		if !d.changed {
			continue
		}
		if texts[i], err = d.encode(); err != nil {
			return nil, err
		}
		if err := checkMerged(d, texts[i]); err != nil {
			return nil, err
		}
	}
	for i, d := range s.documents {
		if texts[i] == nil {
			continue
		}
		if d.text != nil {
			if err := replace(backupName(d.path), d.text, modeFile); err != nil {
				return changed, err
			}
		}
		if err := WriteFile(d.path, texts[i], secret); err != nil {
			return changed, err
		}
		changed = append(changed, d.path)
	}
	return changed, nil
}

// backupName is beside the file itself, also where path is a link to it.
func backupName(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return path + ".bak"
}

// checkMerged holds what is to be written against what was there: client-go has to
// read it, and nothing that was not to be changed may have changed.
func checkMerged(d *document, text []byte) error {
	after, err := clientcmd.Load(text)
	if err != nil {
		return fmt.Errorf("%s: what would be written cannot be read: %w", d.path, err)
	}
	before := api.NewConfig()
	if len(bytes.TrimSpace(d.text)) > 0 {
		if before, err = clientcmd.Load(d.text); err != nil {
			return fmt.Errorf("%s: %w", d.path, err)
		}
	}
	lost := kept("clusters", d, before.Clusters, after.Clusters)
	lost = append(lost, kept("users", d, before.AuthInfos, after.AuthInfos)...)
	lost = append(lost, kept("contexts", d, before.Contexts, after.Contexts)...)
	if len(lost) > 0 {
		return fmt.Errorf("%s: other entries would change, so nothing is written: %q", d.path, lost)
	}
	return nil
}

// kept names the entries that are not what they were and that nobody has set.
func kept[T any](list string, d *document, before, after map[string]*T) (lost []string) {
	for name, was := range before {
		if !slices.Contains(d.written, list+"/"+name) && !reflect.DeepEqual(was, after[name]) {
			lost = append(lost, list+"/"+name)
		}
	}
	return lost
}
