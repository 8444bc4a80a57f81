// Package profile has the hubs that a person has logged in at: the file of culvert login,
// which the CLI and the Go client read, and the environment that stands in for it.
//
// The file has no secret in it. Tokens and logins are in files of their own, mode 0600, in
// the folder credentials beside it.
package profile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/filelock"
)

// What the file says of its form.
const (
	APIVersion = "config.culvert.dev/v1"
	Kind       = "Profiles"
)

// The variables that say where the file is, and which profile of it counts.
const (
	EnvironmentFile    = "CULVERT_CONFIG"
	EnvironmentProfile = "CULVERT_PROFILE"
)

const (
	// maxFile bounds the file, in bytes.
	maxFile = 4 << 20
	// lockWait is how long one writer waits for another.
	lockWait = 10 * time.Second
)

// File is the file of profiles.
type File struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Current names the profile that counts where none is named.
	Current  string    `json:"current,omitempty"`
	Profiles []Profile `json:"profiles,omitempty"`

	path string
}

// DefaultPath is $CULVERT_CONFIG, or culvert/config.yaml in the user's configuration
// folder ($XDG_CONFIG_HOME).
func DefaultPath() (string, error) {
	if path := os.Getenv(EnvironmentFile); path != "" {
		return filepath.Abs(path)
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("file of profiles: %w, or set %s", err, EnvironmentFile)
	}
	return filepath.Join(base, "culvert", "config.yaml"), nil
}

// Load reads a file; an empty path is that of [DefaultPath]. A file that is not there has
// no profiles.
func Load(path string) (*File, error) {
	if path == "" {
		var err error
		if path, err = DefaultPath(); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &File{APIVersion: APIVersion, Kind: Kind, path: path}, nil
	case err != nil:
		return nil, fmt.Errorf("file of profiles: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("file of profiles: %s: larger than 4 MiB", path)
	}
	f := &File{path: path}
	if err := yaml.UnmarshalStrict(text, f); err != nil {
		return nil, fmt.Errorf("file of profiles: %s: %w", path, err)
	}
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("file of profiles: %s: %w", path, err)
	}
	return f, nil
}

// validate names everything that is wrong.
func (f *File) validate() error {
	if f.APIVersion != APIVersion || f.Kind != Kind {
		return fmt.Errorf("apiVersion, kind: %.64q, %.64q: want %s, %s", f.APIVersion, f.Kind, APIVersion, Kind)
	}
	var problems []error
	seen := map[string]bool{}
	for i, p := range f.Profiles {
		if err := p.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("profiles[%d]: %w", i, err))
		}
		if seen[p.Name] {
			problems = append(problems, fmt.Errorf("profiles[%d]: name: %q is there twice", i, p.Name))
		}
		seen[p.Name] = true
	}
	return errors.Join(problems...)
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Get returns a profile with its paths absolute; an empty name is $CULVERT_PROFILE, or
// the current one. What is wrong is a [*MissingError].
func (f *File) Get(name string) (Profile, error) {
	if name == "" {
		name = os.Getenv(EnvironmentProfile)
	}
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return Profile{}, &MissingError{}
	}
	i := f.index(name)
	if i < 0 {
		return Profile{}, &MissingError{Name: name}
	}
	p := f.Profiles[i]
	p.resolve(filepath.Dir(f.path))
	return p, nil
}

func (f *File) index(name string) int {
	return slices.IndexFunc(f.Profiles, func(p Profile) bool { return p.Name == name })
}

// Set adds a profile or replaces the one of its name.
func (f *File) Set(p Profile) {
	if i := f.index(p.Name); i >= 0 {
		f.Profiles[i] = p
		return
	}
	f.Profiles = append(f.Profiles, p)
}

// Delete takes a profile away and tells whether it was there.
func (f *File) Delete(name string) bool {
	i := f.index(name)
	if i < 0 {
		return false
	}
	f.Profiles = slices.Delete(f.Profiles, i, i+1)
	if f.Current == name {
		f.Current = ""
	}
	return true
}

// Save replaces the file, mode 0600. Who has read it before and wants to lose nothing that
// others have written since uses [Update].
func (f *File) Save() error {
	if err := f.validate(); err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.path), credential.ModeDir); err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // a link, as to a folder that is backed up, stays one
	}
	if err := credential.WriteFile(path, text); err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	return nil
}

// Update reads the file, changes it and writes it, under a lock that other writers wait
// for. An empty path is that of [DefaultPath].
func Update(ctx context.Context, path string, change func(*File) error) (err error) {
	if path == "" {
		if path, err = DefaultPath(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), credential.ModeDir); err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := filelock.Lock(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("file of profiles: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	f, err := Load(path)
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	return f.Save()
}

// MissingError says that there is no profile of a name, or none at all.
type MissingError struct{ Name string }

// Error says what is wrong.
func (e *MissingError) Error() string {
	if e.Name == "" {
		return "no hub is named: run culvert login https://HUB first, or set CULVERT_HUB"
	}
	return fmt.Sprintf("there is no profile %.64q: culvert profiles list shows them, culvert login --profile makes one", e.Name)
}
