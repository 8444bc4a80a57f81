package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "hub.db"))
}

func createToken(t *testing.T, s *Store, want Token, at time.Time) (Token, string) {
	t.Helper()
	if want.Expires.IsZero() {
		want.Expires = at.Add(time.Hour)
	}
	token, secret, err := s.CreateToken(want, at)
	if err != nil {
		t.Fatal(err)
	}
	return token, secret
}

func use(token Token, secret, key string, at time.Time) Use {
	return Use{ID: token.ID, Secret: secret, Key: key, By: "192.0.2.1:40000", At: at}
}

func mustUse(t *testing.T, s *Store, u Use) Token {
	t.Helper()
	token, err := s.UseToken(u)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	s := newStore(t)
	labels := map[string]string{"region": "eu"}
	one, secret := createToken(t, s, Token{Cluster: "edge-1", Labels: labels, Approval: true, CreatedBy: "admin"}, day(1))
	two, other := createToken(t, s, Token{Cluster: "edge-2"}, day(2))
	if len(one.ID) != 16 || len(secret) != 43 || one.ID == two.ID || secret == other {
		t.Errorf("id %q, %q, secrets of %d bytes", one.ID, two.ID, len(secret))
	}
	want := Token{ID: one.ID, Cluster: "edge-1", Labels: labels, Approval: true, Created: day(1), CreatedBy: "admin", Expires: day(1).Add(time.Hour)}
	if !reflect.DeepEqual(one, want) {
		t.Errorf("token\n%+v, want\n%+v", one, want)
	}
	tokens, err := s.Tokens()
	if err != nil || !reflect.DeepEqual(tokens, []Token{one, two}) {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
	used := mustUse(t, s, use(one, secret, "key", day(1)))
	want.Used, want.UsedBy, want.UsedKey = day(1), "192.0.2.1:40000", "key"
	if got, found, err := s.Token(one.ID); err != nil || !found || !reflect.DeepEqual(used, want) || !reflect.DeepEqual(got, want) {
		t.Errorf("token %+v and %+v, want %+v: %v", used, got, want, err)
	}
	if _, found, err := s.Token("nothing"); found || err != nil {
		t.Errorf("an unknown token: %v, %v", found, err)
	}
}

func TestTheSecretIsNotOnTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	token, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	mustUse(t, s, use(token, secret, "key", day(1)))
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(token.ID)) {
		t.Fatalf("the token is not in the file: %v", err)
	}
	if bytes.Contains(data, []byte(secret)) {
		t.Error("the secret is in the file")
	}
}

func TestUseTokenRefuses(t *testing.T) {
	s := newStore(t)
	fresh, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	used, usedSecret := createToken(t, s, Token{Cluster: "edge-2"}, day(1))
	mustUse(t, s, use(used, usedSecret, "key", day(1).Add(time.Second)))
	revoked, revokedSecret := createToken(t, s, Token{Cluster: "edge-3"}, day(1))
	if _, err := s.RevokeToken(revoked.ID, "admin", day(1)); err != nil {
		t.Fatal(err)
	}
	again, err := s.RevokeToken(revoked.ID, "another", day(2))
	if err != nil || again.RevokedBy != "admin" || !again.Revoked.Equal(day(1)) {
		t.Errorf("revoked again: %+v, %v", again, err)
	}
	asked := use(fresh, secret, "key", day(1))
	asked.Cluster = "edge-2"
	for _, test := range []struct {
		name string
		use  Use
		as   any
		want string
	}{
		{"unknown id", Use{ID: "0000000000000000", Secret: secret, Key: "key", At: day(1)}, nil, "no such join token, or one that was cut off"},
		{"no id", Use{Secret: secret, Key: "key", At: day(1)}, nil, "no such join token"},
		{"no secret", use(fresh, "", "key", day(1)), nil, "no such join token"},
		{"secret cut off by one character", use(fresh, secret[:len(secret)-1], "key", day(1)), nil, "no such join token"},
		{"another token's secret", use(fresh, usedSecret, "key", day(1)), nil, "no such join token"},
		{"wrong secret of a used token", use(used, secret, "key", day(1)), nil, "no such join token"},
		{"used", use(used, usedSecret, "other", day(1).Add(time.Minute)), &TokenUsedError{}, "was used at 2026-01-01T12:00:01Z by 192.0.2.1:40000 and is good for one use: make a new one with culvert token create --cluster edge-2"},
		{"expired", use(fresh, secret, "key", day(2)), &TokenExpiredError{}, "expired at 2026-01-01T13:00:00Z: make a new one with culvert token create --cluster edge-1"},
		{"at the end", use(fresh, secret, "key", fresh.Expires), &TokenExpiredError{}, "expired at"},
		{"used, by the same key, expired", use(used, usedSecret, "key", day(2)), &TokenExpiredError{}, "expired at"},
		{"revoked", use(revoked, revokedSecret, "key", day(1)), &TokenRevokedError{}, "was revoked at 2026-01-01T12:00:00Z"},
		{"another cluster", asked, &TokenClusterError{}, `is for cluster edge-1 and not for "edge-2"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.UseToken(test.use)
			wantError(t, test.name, err, "use join token: ", test.want)
			if test.as == nil {
				if !errors.Is(err, ErrTokenUnknown) {
					t.Errorf("%v is not ErrTokenUnknown", err)
				}
				return
			}
			target := reflect.New(reflect.TypeOf(test.as))
			if !errors.As(err, target.Interface()) {
				t.Errorf("%v is not %T", err, test.as)
			}
			if strings.Contains(err.Error(), secret) {
				t.Error("the error holds the secret")
			}
		})
	}
	mustUse(t, s, use(fresh, secret, "key", day(1)))
	_, err = s.UseToken(Use{ID: fresh.ID, Secret: secret, At: day(1)})
	wantError(t, "no key", err, "key: empty")
	_, err = s.UseToken(Use{ID: fresh.ID, Secret: secret, Key: "key"})
	wantError(t, "no time", err, "time: not set")
	_, err = s.RevokeToken("nothing", "admin", day(1))
	if !errors.Is(err, ErrTokenUnknown) {
		t.Errorf("%v is not ErrTokenUnknown", err)
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	s := newStore(t)
	for want, token := range map[string]Token{
		"cluster: empty":                      {Expires: day(2)},
		"expires: not after the present time": {Cluster: "a", Expires: day(1)},
		"created by: 513 bytes, at most 512":  {Cluster: "a", Expires: day(2), CreatedBy: strings.Repeat("a", 513)},
		"at most 65536 can be kept":           {Cluster: "a", Expires: day(2), Labels: map[string]string{"a": strings.Repeat("a", maxRecord)}},
	} {
		_, secret, err := s.CreateToken(token, day(1))
		wantError(t, want, err, "create token: ", want)
		if secret != "" {
			t.Error("a secret with an error")
		}
	}
}

func TestATokenMayBeUsedAgainByItsKey(t *testing.T) {
	s := newStore(t)
	token, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	first := mustUse(t, s, use(token, secret, "key", day(1)))
	later := use(token, secret, "key", day(1).Add(time.Minute))
	if second := mustUse(t, s, later); !reflect.DeepEqual(first, second) {
		t.Errorf("%+v, want as at first %+v", second, first)
	}
	if _, err := s.RevokeCluster("edge-1", "admin", "stolen", day(1).Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	later.At = day(1).Add(3 * time.Minute)
	_, err := s.UseToken(later)
	used := &TokenUsedError{}
	if !errors.As(err, &used) {
		t.Errorf("a revoked cluster comes back with its old token: %v", err)
	}
}

func TestOfManyUsesAtOnceOneSucceeds(t *testing.T) {
	s := newStore(t)
	token, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	const goroutines = 16
	errs := make(chan error)
	work := func(n int) {
		_, err := s.UseToken(use(token, secret, fmt.Sprint("key-", n), day(1)))
		errs <- err
	}
	for n := range goroutines {
		go work(n)
	}
	succeeded := 0
	for range goroutines {
		err := <-errs
		used := &TokenUsedError{}
		switch {
		case err == nil:
			succeeded++
		case !errors.As(err, &used):
			t.Error(err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d uses succeeded", succeeded)
	}
}

// fill puts n records into a bucket at once.
func fill(t *testing.T, s *Store, bucket string, n int, record any) {
	t.Helper()
	value, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for i := range n {
			if err := tx.Bucket([]byte(bucket)).Put(fmt.Appendf(nil, "fill-%d", i), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTokensHaveABound(t *testing.T) {
	s := newStore(t)
	fill(t, s, bucketTokens, MaxTokens-1, tokenRecord{Format: 1, Cluster: "a", Expires: day(1)})
	createToken(t, s, Token{Cluster: "a", Expires: day(20)}, day(1))
	_, _, err := s.CreateToken(Token{Cluster: "a", Expires: day(20)}, day(1))
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("%v is not ErrTooMany", err)
	}
	pruned, err := s.Prune(day(1).Add(TokenRetention + time.Second))
	if err != nil || pruned != (Pruned{Tokens: MaxTokens - 1}) {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	createToken(t, s, Token{Cluster: "a", Expires: day(20)}, day(1))
}

// spender runs in a process of its own: it uses the tokens that it reads until it
// is killed, and prints each after it was used.
func spender(path string) int {
	s, err := Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		id, secret, _ := strings.Cut(lines.Text(), " ")
		if _, err := s.UseToken(Use{ID: id, Secret: secret, Key: "child", By: "child", At: day(1)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := fmt.Fprintln(os.Stdout, id); err != nil {
			return 1
		}
	}
	return 0
}

func TestSingleUseSurvivesAKill(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	secrets := map[string]string{}
	var input strings.Builder
	for range 60 {
		token, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
		secrets[token.ID] = secret
		fmt.Fprintln(&input, token.ID, secret)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(binary)
	child.Env = append(os.Environ(), childTokens+"="+path, "GORACE=atexit_sleep_ms=0")
	child.Stdin, child.Stderr = strings.NewReader(input.String()), os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines, spent := bufio.NewReader(stdout), map[string]bool{}
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a line that is cut off was not acknowledged
		}
		if err != nil {
			t.Fatal(err)
		}
		spent[strings.TrimSpace(line)] = true
		if len(spent) == 20 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", child.ProcessState)
	}
	s = open(t, path)
	left := 0
	for id, secret := range secrets {
		_, err := s.UseToken(Use{ID: id, Secret: secret, Key: "parent", By: "parent", At: day(1)})
		used := &TokenUsedError{}
		switch {
		case err == nil && spent[id]:
			t.Errorf("token %s was used twice", id)
		case err == nil:
			left++
		case !errors.As(err, &used) || used.By != "child":
			t.Error(err)
		}
	}
	if left == 0 || len(spent) < 20 {
		t.Errorf("%d spent, %d left: nothing is shown", len(spent), left)
	}
}
