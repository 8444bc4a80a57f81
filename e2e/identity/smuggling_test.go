package identity

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

const (
	// attempts are how many requests are made in each version of HTTP.
	attempts = 800
	// marker is in every value with which a client claims to be somebody.
	marker = "smuggled"
)

// Names that say who somebody is, at an API server, a front proxy or a hub.
var identityNames = []string{
	"Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes", "Impersonate-Extra-culvert.dev%2fhub-user", "Impersonate-",
	"X-Remote-User", "X-Remote-Group", "X-Remote-Uid", "X-Remote-Extra-Scopes", "X-Remote-Extra-",
	"X-Forwarded-User", "X-Forwarded-Groups", "X-Forwarded-For", "Forwarded", "Proxy-Authorization",
}

// Names that a field Connection lists: such fields are of one hop (RFC 9110 section
// 7.6.1), so that a proxy which removes them after it has set its own loses those.
var listedNames = append([]string{
	"close", "keep-alive", "Authorization", "Culvert-Authorization", "X-Request-Id", "Content-Length", "Transfer-Encoding", "Upgrade", "TE", "X-Harmless", "Host", "", " ", ",",
}, identityNames...)

// generator makes requests that try to be somebody else.
type generator struct {
	*rand.Rand

	// secrets are good credentials of others.
	secrets []string
	// lower makes all names of lower case, as HTTP/2 demands; wild also makes what
	// no version of HTTP allows.
	lower, wild bool
}

// attempt is a request and what may come of it.
type attempt struct {
	rawhttp.Request

	// harmless is the value of a field that says nothing, if there is one that must
	// arrive.
	harmless string
}

func (g generator) pick(from []string) string { return from[g.IntN(len(from))] }

// spell writes a name in one of the ways that some reader takes for the same.
func (g generator) spell(name string) string {
	b := []byte(name)
	for i := range b {
		switch c := b[i]; {
		case c >= 'a' && c <= 'z' && g.IntN(4) == 0:
			b[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z' && g.IntN(4) == 0:
			b[i] = c - 'A' + 'a'
		case c == '-' && g.wild && g.IntN(8) == 0:
			b[i] = " \x00"[g.IntN(2)]
		case c == '-' && g.IntN(8) == 0:
			b[i] = "_.~"[g.IntN(3)]
		}
	}
	if !g.wild {
		return string(b)
	}
	switch g.IntN(12) {
	case 0:
		return string(b) + " "
	case 1:
		return " " + string(b)
	case 2:
		return string(b) + "\t"
	case 3:
		return string(b) + ":"
	}
	return string(b)
}

// value claims to be somebody.
func (g generator) value() string {
	values := []string{marker, marker + "-admin", "system:masters, " + marker, "Basic " + marker, "Bearer " + marker}
	if g.wild {
		values = append(values, "\t"+marker, marker+"\r\nImpersonate-User: "+marker, marker+"\nX-Remote-User: "+marker)
	}
	return g.pick(values)
}

// fields are claims, in any number.
func (g generator) fields(most int) []rawhttp.Field {
	var out []rawhttp.Field
	for range g.IntN(most + 1) {
		name := g.spell(g.pick(identityNames))
		for range 1 + g.IntN(8)/6 { // sometimes more than once
			out = append(out, rawhttp.Field{name, g.value()})
		}
	}
	return out
}

// connection lists names, in one field or several.
func (g generator) connection() []rawhttp.Field {
	var out []rawhttp.Field
	if g.lower && !g.wild {
		return nil // RFC 9113 section 8.2.2
	}
	for range g.IntN(3) {
		var names []string
		for range 1 + g.IntN(4) {
			names = append(names, g.spell(g.pick(listedNames)))
		}
		out = append(out, rawhttp.Field{g.spell("Connection"), strings.Join(names, g.pick([]string{",", ", ", " ,", ";"}))})
	}
	return out
}

// next makes a request of the owner of token.
func (g generator) next(path, token string) attempt {
	a := attempt{Request: rawhttp.Request{Method: http.MethodPost, Path: path, Body: selfReview}}
	a.Header = []rawhttp.Field{{"Content-Type", "application/json"}}
	switch g.IntN(12) {
	case 0: // both
		a.Header = append(a.Header, rawhttp.Field{g.spell("Authorization"), "Bearer " + g.pick(g.secrets)}, rawhttp.Field{"Culvert-Authorization", "Bearer " + token})
	case 1, 2:
		a.Header = append(a.Header, rawhttp.Field{"Culvert-Authorization", "Bearer " + token})
	case 3: // twice
		a.Header = append(a.Header, rawhttp.Field{"Authorization", "Bearer " + token}, rawhttp.Field{"Authorization", "Bearer " + g.pick(g.secrets)})
	default:
		a.Header = append(a.Header, rawhttp.Field{"Authorization", "Bearer " + token})
	}
	connection := g.connection()
	a.Header = append(append(a.Header, g.fields(3)...), connection...)
	if g.IntN(2) == 0 {
		a.harmless = fmt.Sprint("fine-", g.Uint32())
		a.Header = append(a.Header, rawhttp.Field{"X-Harmless", a.harmless})
		if len(connection) > 0 {
			a.harmless = "" // it may be listed there
		}
	}
	g.Shuffle(len(a.Header), func(i, j int) { a.Header[i], a.Header[j] = a.Header[j], a.Header[i] })
	if g.IntN(3) == 0 {
		a.Trailer = g.fields(3)
		if g.IntN(2) == 0 {
			a.Header = append(a.Header, rawhttp.Field{"Trailer", g.pick(identityNames)})
		}
		if g.IntN(4) == 0 {
			a.Trailer = append(a.Trailer, rawhttp.Field{"Authorization", "Bearer " + g.pick(g.secrets)})
		}
		if a.Trailer == nil {
			a.Trailer = []rawhttp.Field{}
		}
	}
	if g.lower {
		for _, fields := range [][]rawhttp.Field{a.Header, a.Trailer} {
			for i := range fields {
				fields[i][0] = strings.ToLower(fields[i][0])
			}
		}
	}
	return a
}

// alias is what a careless reader takes a name for.
func alias(name string) string {
	return strings.NewReplacer("_", "-", ".", "-", "~", "-", " ", "").Replace(strings.ToLower(name))
}

// claimsIdentity tells whether a field of that name says who somebody is. Others can hold
// a marker too: a name that begins with a space continues the field before it.
func claimsIdentity(name string) bool {
	name = alias(name)
	return strings.HasSuffix(name, "authorization") || slices.ContainsFunc([]string{"impersonate-", "x-remote-", "x-forwarded-", "forwarded"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// folded tells whether a name begins with a space: it then continues the value of
// the field before it (RFC 9112 section 5.2), whatever is in it.
func (a attempt) folded() bool {
	return slices.ContainsFunc(a.Header, func(f rawhttp.Field) bool { return strings.HasPrefix(f[0], " ") })
}

// wrong says what reached the recorder that must not have. Everybody's fields are
// those of want, and of the agent.
func (a attempt) wrong(got recorded, want http.Header, secrets []string) []string {
	var wrong []string
	expected := map[string][]string{}
	for name, values := range want {
		expected[strings.ToLower(name)] = values
	}
	for name, values := range got.Header {
		lower := strings.ToLower(name)
		known, ok := expected[lower]
		text := strings.Join(values, "\n")
		switch {
		case ok && !slices.Equal(values, known):
			wrong = append(wrong, fmt.Sprintf("%s is %q, want %q", name, values, known))
		case !ok && claimsIdentity(name):
			wrong = append(wrong, fmt.Sprintf("%s: %q arrived", name, values))
		}
		for _, secret := range secrets {
			if strings.Contains(text, secret) && !ok && !a.folded() {
				wrong = append(wrong, name+" has a token of the hub")
			}
		}
		delete(expected, lower)
	}
	for name := range expected {
		wrong = append(wrong, name+" is missing")
	}
	for name, values := range got.Trailer {
		if text := name + strings.Join(values, ""); strings.Contains(text, marker) || claimsIdentity(name) {
			wrong = append(wrong, fmt.Sprintf("trailer %s: %q arrived", name, values))
		}
	}
	if got.Body != selfReview {
		wrong = append(wrong, fmt.Sprintf("the body arrived as %q", got.Body))
	}
	harmless := got.Header["X-Harmless"]
	continued := a.folded() && len(harmless) == 1 && strings.HasPrefix(harmless[0], a.harmless+" ")
	if a.harmless != "" && !continued && !slices.Equal(harmless, []string{a.harmless}) {
		wrong = append(wrong, fmt.Sprintf("X-Harmless is %q", got.Header["X-Harmless"]))
	}
	return wrong
}

// smuggler sends attempts until there are none left; it is one of several.
type smuggler struct {
	protocol rawhttp.Protocol
	server   rawhttp.Server
	// want are the fields that say who a caller is at the recorder: ada's, and
	// boss's who acts as ada.
	want    map[string]http.Header
	secrets []string
	seed    uint64
	isAda   func(userInfo) bool

	mu       sync.Mutex
	left     int
	statuses map[int]int
	problems []string
}

func (s *smuggler) take() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	return s.left, s.left >= 0
}

// work ends with the last attempt.
func (s *smuggler) work(ctx context.Context, done *sync.WaitGroup) {
	defer done.Done()
	for i, ok := s.take(); ok; i, ok = s.take() {
		// Each attempt can be made again from the seed and its number.
		random := rand.New(rand.NewPCG(s.seed, uint64(i)))
		g := generator{Rand: random, secrets: s.secrets, lower: s.protocol.Name == "HTTP/2", wild: random.IntN(3) == 0}
		to, path, token, who := "recorder", "/recorder"+reviewPath, the.ada, "ada"
		switch i % 8 {
		case 0, 4:
			to, path = "managed", "/managed"+reviewPath
		case 1:
			to, path = "shop", servicePath("web:8443")
		case 2, 3:
			token, who = the.boss, "boss"
		}
		a := g.next(path, token)
		if who == "boss" {
			a.Header = append(a.Header, rawhttp.Field{"impersonate-user", "ada"}, rawhttp.Field{"impersonate-group", "dev"})
		}
		got := s.protocol.Send(ctx, s.server, a.Request)
		s.judge(i, to, who, a, got)
	}
}

func (s *smuggler) judge(i int, to, who string, a attempt, got rawhttp.Answer) {
	var wrong []string
	switch user, isUser := userIn(got.Status, got.Body); {
	case strings.Contains(got.Cut, "timeout"):
		wrong = []string{got.Cut}
	case got.Status >= 500:
		wrong = []string{fmt.Sprintf("%d %s", got.Status, got.Body)}
	case to == "managed" && isUser:
		if !s.isAda(user) {
			wrong = []string{fmt.Sprintf("the API server says %+v", user)}
		}
	case to != "managed" && got.Status == http.StatusOK:
		var arrived recorded
		if err := json.Unmarshal(got.Body, &arrived); err != nil {
			wrong = []string{err.Error()}
		} else {
			wrong = a.wrong(arrived, s.expected(to, who, a, arrived), s.secrets)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses[got.Status]++
	if len(wrong) > 0 {
		s.problems = append(s.problems, fmt.Sprintf("%s attempt %d to %s: %s\nheader %q\ntrailer %q", s.protocol.Name, i, to, strings.Join(wrong, "; "), a.Header, a.Trailer))
	}
}

// expected are the fields that say who somebody is, and must arrive: none at a
// service, but for an Authorization that the caller sends for it, beside their own
// credential in Culvert-Authorization.
func (s *smuggler) expected(to, who string, a attempt, got recorded) http.Header {
	want := http.Header{}
	switch {
	case to == "recorder":
		want = s.want[who].Clone()
		want.Set("Authorization", "Bearer "+the.recorder.agentToken)
	case slices.ContainsFunc(a.Header, func(f rawhttp.Field) bool { return strings.EqualFold(f[0], "culvert-authorization") }) && got.Header["Authorization"] != nil:
		want["Authorization"] = got.Header["Authorization"]
	}
	return want
}

// plainly returns the fields with which a caller arrives that claims nothing.
func plainly(t *testing.T, c call) http.Header {
	t.Helper()
	c.method, c.path, c.body = http.MethodPost, "/recorder"+reviewPath, selfReview
	got, err := the.hub.ask(t.Context(), c)
	must(t, err)
	want := http.Header{}
	for name, values := range arrived(t, got.body).Header {
		if strings.HasPrefix(name, "Impersonate-") {
			want[name] = values
		}
	}
	if !slices.Equal(want["Impersonate-User"], []string{"cluster:hub:ada"}) || len(want) < 3 {
		t.Fatalf("without a claim of their own they arrive as %v", want)
	}
	return want
}

func TestSmuggling(t *testing.T) {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	seed := binary.LittleEndian.Uint64(b[:])
	for _, protocol := range rawhttp.Protocols() {
		t.Run("K7,O4,O15,N9: no random set of fields over "+protocol.Name+" brings an identity of the client's choice, or a hub's token, to an API server", func(t *testing.T) {
			want := map[string]http.Header{
				"ada":  plainly(t, call{token: the.ada}),
				"boss": plainly(t, call{token: the.boss, header: []string{"Impersonate-User", "ada", "Impersonate-Group", "dev"}}),
			}
			ada := whoami(t, "managed", call{token: the.ada})
			s := &smuggler{
				protocol: protocol, server: rawhttp.Server{Addr: the.hub.addr(), Roots: the.hub.roots, Timeout: 20 * time.Second}, want: want,
				secrets: []string{the.root, the.robot, the.eve}, seed: seed, left: attempts, statuses: map[int]int{},
				isAda: func(u userInfo) bool { return fmt.Sprint(u) == fmt.Sprint(ada) },
			}
			var done sync.WaitGroup
			for range 4 {
				done.Add(1)
				go s.work(t.Context(), &done)
			}
			done.Wait()
			t.Logf("seed %d: answers by status (0: cut) %v", seed, s.statuses)
			for _, problem := range s.problems {
				t.Errorf("seed %d: %s", seed, problem)
			}
			if passed := s.statuses[http.StatusOK] + s.statuses[http.StatusCreated]; passed < attempts/8 {
				t.Errorf("only %d of %d requests were served: too few to say anything", passed, attempts)
			}
		})
	}
}
