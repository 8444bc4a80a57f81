package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/culvertdev/culvert/internal/filelock"
	"github.com/culvertdev/culvert/internal/pki"
)

// DefaultState is where an agent keeps what it got from the hub.
const DefaultState = "/var/lib/culvert-agent"

// Names in the state folder.
const (
	fileCert = "tls.crt"
	fileKey  = "tls.key"
	fileCA   = "ca.crt"
	fileInfo = "agent.json"
	// linkCurrent leads to the folder with the files that are in force.
	linkCurrent = "current"
)

const (
	modeFolder = 0o700
	modeFile   = 0o600
	// maxStateFile bounds what is read of one file, in bytes.
	maxStateFile = 4 << 20
)

// errNoState says that nobody has joined from a state folder.
var errNoState = errors.New("there is no certificate in it")

// info is agent.json: what an agent has to know besides its certificate.
type info struct {
	Hub         string `json:"hub"`
	HubName     string `json:"hubName,omitempty"`
	Cluster     string `json:"cluster"`
	TrustDomain string `json:"trustDomain"`
	// SystemRoots says that the hub's certificate comes from a CA of the system.
	SystemRoots bool `json:"systemRoots,omitempty"`
	// Token is the id of the join token that the certificate is from.
	Token string `json:"token,omitempty"`
}

// identity is one content of a state folder. It is immutable.
type identity struct {
	info
	// generation is the name of its folder.
	generation     string
	chain, key, ca []byte // PEM
	cert           *tls.Certificate
	cas            []*x509.Certificate // empty with SystemRoots
	roots          pki.Roots
}

// newIdentity checks that the parts belong together. It does not judge dates.
func newIdentity(about info, chain, key, ca []byte) (*identity, error) {
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", fileCert, fileKey, err)
	}
	name, err := pki.ClusterOf(cert.Leaf, about.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	if name != about.Cluster {
		return nil, fmt.Errorf("%s is of cluster %s and %s says %q", fileCert, name, fileInfo, about.Cluster)
	}
	id := &identity{info: about, chain: chain, key: key, ca: ca, cert: &cert}
	if about.SystemRoots {
		if id.roots, err = pki.SystemRoots(); err != nil {
			return nil, err
		}
		return id, nil
	}
	if id.roots, err = pki.FixedRoots(ca); err != nil {
		return nil, fmt.Errorf("%s: %w", fileCA, err)
	}
	if id.cas, err = certificates(ca); err != nil {
		return nil, fmt.Errorf("%s: %w", fileCA, err)
	}
	return id, nil
}

// vault is where an agent keeps its identity. Its methods are safe for concurrent
// use, also by several processes.
type vault interface {
	// load returns what is kept; the error is errNoState when nobody has joined there.
	load() (*identity, error)
	// current returns the name of what is kept; another one means that it was replaced.
	current() (string, error)
	// save makes id what is kept, in one step. With a basis it fails when something
	// else is kept by now.
	save(id *identity, basis string) error
	// joinKey returns the key to join with, as PEM: fresh, unless others join for the
	// same vault, which then do so with one key.
	joinKey(fresh []byte) ([]byte, error)
	// where names the vault for people, and rejoin the remedy when its certificate has
	// expired.
	where() string
	rejoin() string
}

// newVault opens the one that cfg names.
func newVault(cfg Config) (vault, error) {
	if cfg.StateSecret == nil {
		return state{cfg.State}, nil
	}
	return newSecretState(cfg)
}

// state is an agent's folder. Its files are in a folder of their own for each
// content, and a symbolic link says which one counts: so certificate, key and CA
// change at once, whenever the process or the machine is stopped.
//
//	current -> 0000000002        swapped by rename
//	0000000002/tls.crt tls.key ca.crt agent.json
//	tls.crt -> current/tls.crt   and so on, for people and tools
type state struct{ dir string }

// joinKey implements vault: a folder is of one agent, which can join anew.
func (s state) joinKey(fresh []byte) ([]byte, error) { return fresh, nil }

func (s state) where() string { return s.dir }

func (s state) rejoin() string {
	return "culvert-agent join --force --token TOKEN --state " + s.dir + " here"
}

// load implements vault.
func (s state) load() (*identity, error) {
	const attempts = 5
	var last error
	for range attempts {
		generation, err := s.current()
		if err != nil {
			return nil, err
		}
		id, err := s.read(generation)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return id, err
		}
		last = err // swapped meanwhile, or damaged
	}
	return nil, fmt.Errorf("state %s: damaged: %w", s.dir, last)
}

// current returns the name of the folder that counts.
func (s state) current() (string, error) {
	generation, err := os.Readlink(filepath.Join(s.dir, linkCurrent))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("state %s: %w", s.dir, errNoState)
	case err != nil:
		return "", fmt.Errorf("state: %w", err)
	case !isGeneration(generation):
		return "", fmt.Errorf("state %s: %s leads to %q, which is not of an agent", s.dir, linkCurrent, generation)
	}
	return generation, nil
}

func (s state) read(generation string) (*identity, error) {
	folder := filepath.Join(s.dir, generation)
	parts := map[string][]byte{}
	for _, name := range []string{fileInfo, fileCert, fileKey, fileCA} {
		data, err := readStateFile(filepath.Join(folder, name))
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		parts[name] = data
	}
	var about info
	if err := json.Unmarshal(parts[fileInfo], &about); err != nil {
		return nil, fmt.Errorf("state %s: %s: %w", folder, fileInfo, err)
	}
	id, err := newIdentity(about, parts[fileCert], parts[fileKey], parts[fileCA])
	if err != nil {
		return nil, fmt.Errorf("state %s: damaged: %w", folder, err)
	}
	id.generation = generation
	return id, nil
}

func readStateFile(path string) ([]byte, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	mode := stat.Mode()
	switch {
	case !mode.IsRegular() || stat.Size() > maxStateFile:
		return nil, fmt.Errorf("%s: not a file of an agent", path)
	case filepath.Base(path) == fileKey && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows":
		return nil, fmt.Errorf("%s: mode %04o opens this private key to other users: chmod 600 %s", path, mode.Perm(), path)
	}
	return os.ReadFile(path)
}

// save makes id what is in the folder, in one step. Nobody else saves meanwhile.
// With a basis it fails when the folder has another content by now.
func (s state) save(id *identity, basis string) (err error) {
	if err := os.MkdirAll(s.dir, modeFolder); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	unlock, err := filelock.Folder(s.dir)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if basis != "" {
		if now, err := s.current(); err != nil || now != basis {
			return errors.Join(fmt.Errorf("state %s: was changed by another process", s.dir), err)
		}
	}
	generations, err := s.generations()
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	next := 1
	if n := len(generations); n > 0 {
		next = numberOf(generations[n-1]) + 1
	}
	id.generation = nameOf(next)
	if err := s.write(id); err != nil {
		return fmt.Errorf("state: write %s: %w", s.dir, err)
	}
	// The one before stays, for who is reading it.
	for i, old := range generations {
		if i < len(generations)-1 {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, old)))
		}
	}
	if err != nil {
		return fmt.Errorf("state: remove old files: %w", err)
	}
	return nil
}

// write puts a new folder on the disk, and then swaps the link.
func (s state) write(id *identity) error {
	about, err := json.MarshalIndent(id.info, "", "  ")
	if err != nil {
		return err
	}
	folder := filepath.Join(s.dir, id.generation)
	if err := os.Mkdir(folder, modeFolder); err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{fileKey, id.key}, {fileCert, id.chain}, {fileCA, id.ca}, {fileInfo, append(about, '\n')}} {
		if err := writeSynced(filepath.Join(folder, file.name), file.data); err != nil {
			return err
		}
	}
	if err := syncFolder(folder); err != nil {
		return err
	}
	if err := s.link(linkCurrent, id.generation); err != nil {
		return err
	}
	for _, name := range []string{fileCert, fileKey, fileCA, fileInfo} {
		if err := s.link(name, filepath.Join(linkCurrent, name)); err != nil {
			return err
		}
	}
	return syncFolder(s.dir)
}

// link makes name a link to target, in place of what it was.
func (s state) link(name, target string) error {
	path := filepath.Join(s.dir, name)
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	temp := filepath.Join(s.dir, "."+name+".new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, modeFile)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be opened there
	}
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// generations returns the folders that are there, the oldest first: also those
// that a process which was stopped has left unfinished.
func (s state) generations() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if entry.IsDir() && isGeneration(entry.Name()) {
			found = append(found, entry.Name())
		}
	}
	slices.Sort(found)
	return found, nil
}

// generationDigits makes the names sort as the numbers do.
const generationDigits = 10

func nameOf(number int) string { return fmt.Sprintf("%0*d", generationDigits, number) }

func numberOf(name string) int {
	number, err := strconv.Atoi(name)
	if err != nil {
		return 0 // isGeneration was asked before
	}
	return number
}

func isGeneration(name string) bool {
	if len(name) != generationDigits {
		return false
	}
	for i := range len(name) {
		if name[i] < '0' || name[i] > '9' {
			return false
		}
	}
	return true
}
