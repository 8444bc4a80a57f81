package identity

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	cluster := func(c TokenReviewConfig) *TokenReviewConfig { return &c }
	for _, c := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"a token file is enough", Config{TokenFile: "x"}, nil},
		{"the pod's own cluster is enough", Config{TokenReview: cluster(TokenReviewConfig{InCluster: true})}, nil},
		{"all at their limits", Config{TokenFile: "x", Prefix: "hub:", TokenReview: cluster(TokenReviewConfig{
			Kubeconfig: "k", Timeout: maxTimeout, CacheTTL: maxCacheTTL, FailureTTL: maxCacheTTL, Audiences: []string{"a"}})}, nil},
		{"nothing", Config{}, []string{"tokenFile, tokenReview, clientCA: "}},
		{"every problem at once", Config{
			TokenReview: cluster(TokenReviewConfig{
				Kubeconfig: "k", InCluster: true, Audiences: []string{"a", ""},
				Timeout: maxTimeout + 1, CacheTTL: -1, FailureTTL: time.Hour,
			}),
			Prefix: "system:", DeniedGroups: []string{"a", ""},
			GroupRules: []Rule{{From: "", To: []string{"x"}}, {From: "ops", To: []string{"ok", "system:masters", "", "a\nb"}}},
		}, []string{
			"tokenReview: kubeconfig and inCluster", "tokenReview.audiences[1]: ", "tokenReview.timeout: ", "tokenReview.cacheTTL: ",
			"tokenReview.failureTTL: ", "prefix: ", "denyGroups[1]: ", "groupRules[0].from: ", "groupRules[1].to[1]: ", "groupRules[1].to[2]: ", "groupRules[1].to[3]: ",
		}},
		{"no cluster", Config{TokenReview: cluster(TokenReviewConfig{})}, []string{"tokenReview: no cluster"}},
		{"a prefix that a group could complete to system:", Config{TokenFile: "x", Prefix: "sys"}, []string{"prefix: "}},
		{"a prefix that goes on after system:", Config{TokenFile: "x", Prefix: "system:hub:"}, []string{"prefix: "}},
		{"a prefix that no header carries", Config{TokenFile: "x", Prefix: " hub:"}, []string{"prefix: "}},
	} {
		t.Run("O15: configuration: "+c.name, func(t *testing.T) {
			var lines []string
			if err := c.cfg.Validate(); err != nil {
				lines = strings.Split(err.Error(), "\n")
			}
			if len(lines) != len(c.want) {
				t.Fatalf("got %q, want %q", lines, c.want)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("problem %d is %q, want %q", i, lines[i], want)
				}
			}
		})
	}
}

func TestTokenFile(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"an empty token", "a,alice,1\n,bob,2\n", "line 2: the token is empty"},
		{"a token twice", "a,alice,1\n\nb,bob,2\na,carol,3\n", "line 4: the token is that of line 1"},
		{"too few columns", "a,alice\n", "line 1: has 2 columns"},
		{"groups without quotes", "a,alice,1,dev,ops\n", "line 1: has 5 columns"},
		{"a group with a space", "a,alice,1,\"dev, ops\"\n", `line 1: group " ops"`},
		{"no user name", "a,,1\n", "line 1: the user has no name"},
		{"nobody", "a,system:anonymous,1\n", "line 1: the user is system:anonymous"},
		{"a token that no header carries", "a b,alice,1\n", "line 1: the token has a space"},
		{"broken quotes", "a,alice,1\n\"b,bob\n", "line 2"},
		{"nothing", "\n", "holds no tokens"},
		{"all problems at once", ",alice,1\na,,1\n", "line 1: the token is empty: set it or remove the line\nline 2: "},
	} {
		t.Run("O18: a bad token file is refused and its line is named: "+c.name, func(t *testing.T) {
			path := writeTokenFile(t, c.content)
			_, err := New(t.Context(), Config{TokenFile: path}, nil)
			if err == nil || !strings.Contains(err.Error(), "tokenFile: "+path+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("O18: a missing token file is refused", func(t *testing.T) {
		if _, err := New(t.Context(), Config{TokenFile: "/does/not/exist"}, nil); err == nil || !strings.Contains(err.Error(), "tokenFile: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("O18: a token file that others can read works and is warned of", func(t *testing.T) {
		path := writeTokenFile(t, "s3cr3t,alice,1\n")
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		var logs bytes.Buffer
		chain, err := New(t.Context(), Config{TokenFile: path}, slog.New(slog.NewTextHandler(&logs, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer chain.Close()
		if s := logs.String(); !strings.Contains(s, "mode=0644") || strings.Contains(s, "s3cr3t") {
			t.Errorf("got %q", s)
		}
	})
}

func FuzzTokenFile(f *testing.F) {
	for _, s := range []string{"a,alice,1\n", "a,alice,1,\"x,y\"\n", "\"", ",,\n", "a,b,c,\"\n", "\xef\xbb\xbfa,b,c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		users, err := readTokenFile(strings.NewReader(content))
		if err != nil {
			return
		}
		for key, u := range users {
			if u.Name == "" || slices.Contains(u.Groups, "") || key == digest("") {
				t.Errorf("accepted %+v", u)
			}
		}
	})
}
