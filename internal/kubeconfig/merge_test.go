package kubeconfig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const foreign = `# mine
apiVersion: v1
kind: Config
clusters:
- name: home   # at home
  cluster:
    server: https://home.example.com:6443
    a-field-of-the-future: {x: 1}
contexts:
- name: home
  context: {cluster: home, user: me}
current-context: home
users:
- name: me
  user:
    token: "0123"
`

func readConfig(t *testing.T, path string) *api.Config {
	t.Helper()
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func merge(t *testing.T, opts MergeOptions, entries ...Entry) []string {
	t.Helper()
	changed, err := Merge(t.Context(), entries, opts)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestMerge(t *testing.T) {
	e := forms()["path"]
	t.Run("a new file is the owner's alone, with the context in use", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "new", "config")
		merge(t, MergeOptions{File: path}, e)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		if got := readConfig(t, path); got.CurrentContext != "edge-1" || got.Clusters["edge-1"].Server != "https://hub.example.com:8443/edge-1" {
			t.Errorf("%+v", got)
		}
		if _, err := os.Stat(path + ".bak"); !os.IsNotExist(err) {
			t.Errorf("a backup of nothing: %v", err)
		}
		if _, err := os.Stat(path + ".lock"); !os.IsNotExist(err) {
			t.Errorf("the lock is left: %v", err)
		}
	})
	t.Run("other entries, comments and unknown fields stay, and what was is kept once", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config")
		write(t, path, foreign)
		merge(t, MergeOptions{File: path}, e)
		got := text(t, path)
		for _, part := range []string{"# mine\n", "# at home\n", "a-field-of-the-future: {x: 1}", `token: "0123"`, "current-context: home\n"} {
			if !strings.Contains(got, part) {
				t.Errorf("lacks %q:\n%s", part, got)
			}
		}
		if config := readConfig(t, path); len(config.Contexts) != 2 || config.AuthInfos["me"].Token != "0123" || config.AuthInfos["edge-1"].Exec == nil {
			t.Errorf("%+v", config)
		}
		if text(t, path+".bak") != foreign {
			t.Error("the backup is not what was there")
		}
		if info, err := os.Stat(path + ".bak"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("backup: %v %v", info, err)
		}
		t.Run("again, nothing changes", func(t *testing.T) {
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if changed := merge(t, MergeOptions{File: path}, e); len(changed) != 0 {
				t.Errorf("%q changed", changed)
			}
			after, err := os.Stat(path)
			if err != nil || !os.SameFile(before, after) || text(t, path+".bak") != foreign {
				t.Error("it was written again")
			}
		})
		t.Run("S18: another form of the same cluster replaces it", func(t *testing.T) {
			merge(t, MergeOptions{File: path, Use: true}, forms()["sni"])
			config := readConfig(t, path)
			if config.Clusters["edge-1"].Server != "https://"+uid+":443" || config.CurrentContext != "edge-1" || len(config.Contexts) != 2 {
				t.Errorf("%+v", config)
			}
		})
	})
	t.Run("an entry of somebody else with the same name is refused, and replaced with force", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config")
		write(t, path, strings.ReplaceAll(foreign, "home", "edge-1"))
		before := text(t, path)
		_, err := Merge(t.Context(), []Entry{e}, MergeOptions{File: path})
		if err == nil || !strings.Contains(err.Error(), "--force") || text(t, path) != before {
			t.Errorf("%v", err)
		}
		other := e
		other.Info.Hub = "https://other.example.com"
		merge(t, MergeOptions{File: path, Force: true}, other)
		if _, err := Merge(t.Context(), []Entry{e}, MergeOptions{File: path}); err == nil {
			t.Error("an entry of another hub is replaced")
		}
		if config := readConfig(t, path); config.AuthInfos["me"].Token != "0123" {
			t.Errorf("%+v", config.AuthInfos)
		}
	})
	t.Run("forms of empty files", func(t *testing.T) {
		for _, empty := range []string{"", "\n# nothing\n", "null\n", "apiVersion: v1\nkind: Config\nclusters: null\nusers: []\ncontexts: []\ncurrent-context: \"\"\n", `{"apiVersion":"v1","kind":"Config","clusters":[],"users":[],"contexts":[]}`} {
			path := filepath.Join(t.TempDir(), "config")
			write(t, path, empty)
			merge(t, MergeOptions{File: path}, e)
			if config := readConfig(t, path); config.CurrentContext != "edge-1" || config.Contexts["edge-1"] == nil {
				t.Errorf("%q: %+v", empty, config)
			}
		}
	})
	t.Run("what is no kubeconfig stays as it is", func(t *testing.T) {
		for _, bad := range []string{"[1]\n", "clusters: {a: 1}\n", "a: [\n", foreign + "---\nkind: Config\n"} {
			path := filepath.Join(t.TempDir(), "config")
			write(t, path, bad)
			if _, err := Merge(t.Context(), []Entry{e}, MergeOptions{File: path}); err == nil || text(t, path) != bad {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
	t.Run("a link leads to the same file as before, with its mode", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "real"), foreign)
		if err := os.Chmod(filepath.Join(dir, "real"), 0o640); err != nil { // a mode to be kept
			t.Fatal(err)
		}
		link := filepath.Join(dir, "config")
		if err := os.Symlink("real", link); err != nil {
			t.Fatal(err)
		}
		merge(t, MergeOptions{File: link}, e)
		info, err := os.Lstat(link)
		if err != nil || info.Mode()&os.ModeSymlink == 0 || !strings.Contains(text(t, filepath.Join(dir, "real")), "edge-1") {
			t.Errorf("%v %v", info, err)
		}
		if info, err := os.Stat(link); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v %v", info, err)
		}
	})
	for _, name := range []string{"sni", "passthrough", "end-to-end"} {
		t.Run("a file that gets a credential is its owner's alone: "+name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			write(t, path, foreign)
			if err := os.Chmod(path, 0o664); err != nil { // too open for what comes
				t.Fatal(err)
			}
			merge(t, MergeOptions{File: path}, forms()[name])
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info, err)
			}
		})
	}
}

func TestMergeList(t *testing.T) {
	dir := t.TempDir()
	first, second, third := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "third")
	t.Setenv(clientcmd.RecommendedConfigPathEnvVar, strings.Join([]string{first, second, third}, string(os.PathListSeparator)))
	write(t, second, foreign)
	merge(t, MergeOptions{File: third}, forms()["path"])
	before := text(t, third)
	t.Run("an entry is changed in the file that has it, and a new one goes where kubectl would put it", func(t *testing.T) {
		other := forms()["sni"]
		fresh := forms()["path"]
		fresh.Name = "edge-2"
		fresh.Info.Cluster = "edge-2"
		changed := merge(t, MergeOptions{}, other, fresh)
		if len(changed) != 2 || text(t, third) == before || text(t, third+".bak") != before || text(t, second+".bak") != foreign {
			t.Errorf("%q", changed)
		}
		if got := readConfig(t, second); got.Contexts["edge-2"] == nil || got.Contexts["edge-1"] != nil || got.CurrentContext != "home" {
			t.Errorf("%+v", got)
		}
		if _, err := os.Stat(first); !os.IsNotExist(err) {
			t.Errorf("a file that was not there is: %v", err)
		}
	})
}

func TestMergeTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, foreign)
	const writers = 8
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			e := forms()["path"]
			e.Name, e.Info.Cluster = fmt.Sprintf("edge-%d", i), fmt.Sprintf("edge-%d", i)
			if _, err := Merge(t.Context(), []Entry{e}, MergeOptions{File: path}); err != nil {
				t.Error(err)
			}
		})
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { // sees a whole file each time
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if config, err := clientcmd.LoadFromFile(path); err == nil && config.Contexts["home"] == nil {
				t.Errorf("half a file: %+v", config.Contexts)
				return
			}
		}
	})
	all.Wait()
	close(stop)
	reader.Wait()
	config := readConfig(t, path)
	for i := range writers {
		if config.Contexts[fmt.Sprintf("edge-%d", i)] == nil {
			t.Errorf("edge-%d is lost", i)
		}
	}
	if config.Contexts["home"] == nil || config.AuthInfos["me"].Token != "0123" {
		t.Error("others are lost")
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, foreign)
	t.Run("client-go changes nothing meanwhile, and we nothing while it does", func(t *testing.T) {
		unlock, err := lock(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		paths := clientcmd.NewDefaultPathOptions()
		paths.LoadingRules.ExplicitPath = path
		config := readConfig(t, path)
		config.CurrentContext = "other"
		if err := clientcmd.ModifyConfig(paths, *config, false); err == nil || text(t, path) != foreign {
			t.Errorf("%v", err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
	})
	write(t, path+".lock", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Merge(ctx, []Entry{forms()["path"]}, MergeOptions{File: path})
	if err == nil || !strings.Contains(err.Error(), "config.lock exists") || text(t, path) != foreign {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("another's lock is gone: %v", err)
	}
}
