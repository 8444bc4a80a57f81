package audit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// decoded is a line as a reader sees it, with every member there is.
type decoded struct {
	Time                                                               time.Time
	Stage, RequestID, TraceID, SessionID                               string
	User, ImpersonatedUser, ClusterUser                                decodedUser
	Authentication, Source, Hub, Cluster, Agent, Target, Method, Path  string
	Verb, APIGroup, APIVersion, Resource, Subresource, Namespace, Name string
	Decision, Rule, Reason, Hop, Code, Error, End                      string
	Status                                                             int
	Received, Sent                                                     int64
	Duration                                                           float64
	Dropped                                                            uint64
}

type decodedUser struct {
	Name, UID     string
	Groups        []string
	GroupsLeftOut int
}

// decode reads one line and fails on what is no line, or has unknown members.
func decode(t *testing.T, l string) decoded {
	t.Helper()
	if strings.Count(l, "\n") != 1 || !strings.HasSuffix(l, "}\n") {
		t.Fatalf("not one line: %q", l)
	}
	for _, r := range l[:len(l)-1] {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r == 0x2028 || r == 0x2029 || r == 0x85 {
			t.Fatalf("%U in %q", r, l)
		}
	}
	var d decoded
	dec := json.NewDecoder(strings.NewReader(l))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("%v in %q", err, l)
	}
	return d
}

var noon = time.Date(2026, 2, 3, 12, 0, 0, 5000, time.FixedZone("", 3600))

func encode(e *Event) string { return string(appendEvent(nil, e, noon)) }

func TestLine(t *testing.T) {
	t.Run("N11: a line has identity, target, bytes and outcome", func(t *testing.T) {
		e := &Event{
			Stage: StageSessionEnd, Start: noon.Add(-61*time.Second - 1500*time.Microsecond), RequestID: "r", TraceID: "t", SessionID: "s",
			User: Identity{Name: "u", UID: "1", Groups: []string{"a", "b"}}, Impersonated: Identity{Name: "i"},
			ClusterUser: Identity{Name: "c", Groups: []string{"g"}}, Authentication: "oidc", Source: "192.0.2.1:5",
			Hub: "h", Cluster: "edge", Agent: "ag", Target: "tcp db:5432", Method: "POST", Path: "/p?token=x", Verb: "create",
			APIGroup: "apps", APIVersion: "v1", Resource: "pods", Subresource: "exec", Namespace: "ns", Name: "n",
			Verdict: Deny, Rule: "no-exec", Reason: "because", Status: 403, Hop: "hub", Code: "permission-denied", Error: "err",
			Received: 1, Sent: 2, End: "permission-denied",
		}
		want := decoded{
			Time: noon.UTC(), Stage: "session-end", RequestID: "r", TraceID: "t", SessionID: "s",
			User: decodedUser{Name: "u", UID: "1", Groups: []string{"a", "b"}}, ImpersonatedUser: decodedUser{Name: "i"},
			ClusterUser: decodedUser{Name: "c", Groups: []string{"g"}}, Authentication: "oidc", Source: "192.0.2.1:5",
			Hub: "h", Cluster: "edge", Agent: "ag", Target: "tcp db:5432", Method: "POST", Path: "/p", Verb: "create",
			APIGroup: "apps", APIVersion: "v1", Resource: "pods", Subresource: "exec", Namespace: "ns", Name: "n",
			Decision: "deny", Rule: "no-exec", Reason: "because", Status: 403, Hop: "hub", Code: "permission-denied", Error: "err",
			Received: 1, Sent: 2, Duration: 61.0015, End: "permission-denied",
		}
		if got := decode(t, encode(e)); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("N11: what is empty is left out, bytes are not", func(t *testing.T) {
		if got, want := encode(&Event{Stage: StageRequest}), `{"time":"2026-02-03T11:00:00.000005Z","stage":"request","received":0,"sent":0}`+"\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("N10: a code is spelled as in the header X-Culvert-Error, wherever it comes from", func(t *testing.T) {
		for _, code := range []string{"permission denied", "permission-denied"} {
			if d := decode(t, encode(&Event{Code: code, End: code})); d.Code != "permission-denied" || d.End != "permission-denied" {
				t.Errorf("%+v", d)
			}
		}
	})
	t.Run("a duration has microseconds and is never negative", func(t *testing.T) {
		for d, want := range map[time.Duration]string{
			0: "0.000000", time.Microsecond: "0.000001", 90 * time.Microsecond: "0.000090", 999999 * time.Microsecond: "0.999999",
			time.Second: "1.000000", 100 * time.Millisecond: "0.100000", 36 * time.Hour: "129600.000000", -time.Second: "0.000000",
		} {
			if got := string(appendSeconds(nil, d)); got != want {
				t.Errorf("%v: %s, want %s", d, got, want)
			}
		}
	})
}

func TestText(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "a b/c<>&'~", `"a b/c<>&'~"`},
		{"quotes", `a"b\c`, `"a\"b\\c"`},
		{"line breaks of any kind", "a\nb\r\u2028\u2029\u0085\v\f", `"a\u000ab\u000d\u2028\u2029\u0085\u000b\u000c"`},
		{"a terminal's escape", "\x1b[2J\x7f\u009b", `"\u001b[2J\u007f\u009b"`},
		{"text direction and what nobody sees", "a\u202eb\u200b\ufeff", `"a\u202eb\u200b\ufeff"`},
		{"letters of other scripts", "Jürgen Ωя 🙂", `"Jürgen Ωя 🙂"`},
		{"beyond the basic plane", "\U000e0001\U0010ffff", `"\udb40\udc01\udbff\udfff"`},
		{"no UTF-8", "a\xff\xc3", `"a\ufffd\ufffd"`},
		{"nothing", "", `""`},
		{"eight and more", "12345678\"12345678", `"12345678\"12345678"`},
	} {
		t.Run("D8: "+c.name, func(t *testing.T) {
			var l line
			l.text(c.in, maxName)
			if string(l.out) != c.want {
				t.Errorf("%s, want %s", l.out, c.want)
			}
		})
	}
	t.Run("every byte at every place is escaped as the standard library reads it", func(t *testing.T) {
		for c := range 256 {
			for at := range 10 {
				in := strings.Repeat("x", at) + string([]byte{byte(c)}) + strings.Repeat("y", 9-at)
				var l line
				l.text(in, maxName)
				var got string
				if err := json.Unmarshal(l.out, &got); err != nil || got != strings.ToValidUTF8(in, "\ufffd") {
					t.Errorf("%q: %s, %q, %v", in, l.out, got, err)
				}
			}
		}
	})
	t.Run("a long text is cut between characters, and that is seen", func(t *testing.T) {
		for _, unit := range []string{"x", "é", "\n", "🙂", "\U000e0001"} {
			for n := maxName - 8; n < 3*maxName; n++ {
				var l line
				l.text(strings.Repeat(unit, n), maxName)
				var got string
				if err := json.Unmarshal(l.out, &got); err != nil {
					t.Fatal(err)
				}
				body, wasCut := strings.CutSuffix(got, cut)
				if len(l.out) > maxName+2+len(cut) || wasCut != (len(body) < n*len(unit)) || strings.Trim(body, unit) != "" {
					t.Fatalf("%d of %q: %s", n, unit, l.out)
				}
			}
		}
	})
	t.Run("groups that do not fit are counted", func(t *testing.T) {
		groups := make([]string, 1000)
		for i := range groups {
			groups[i] = strings.Repeat("g", 100)
		}
		u := decode(t, encode(&Event{User: Identity{Name: "u", Groups: groups}})).User
		if len(u.Groups) < 30 || len(u.Groups)+u.GroupsLeftOut != len(groups) {
			t.Errorf("%d groups and %d left out", len(u.Groups), u.GroupsLeftOut)
		}
	})
}

// fill sets every string of an event to s.
func fill(e *Event, s string) {
	v := reflect.ValueOf(e).Elem()
	for _, f := range v.Fields() {
		if f.Kind() == reflect.String {
			f.SetString(s)
		}
	}
	e.User = Identity{Name: s, UID: s, Groups: []string{s, s, s}}
	e.Impersonated, e.ClusterUser = e.User, e.User
}

// FuzzEvent: whatever goes in, one event is one line of valid JSON within its
// bound, with the members that are documented and no others.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		"", "plain", "a\nb", `","user":{"name":"root"},"x":"`, "\\", `\u0000`, "\x00\xff", "\u2028", "🙂", "}\n{",
		strings.Repeat("\x01", 5000), strings.Repeat("🙂", 2000), "Bearer abcdefghijkl", "\x1eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
	} {
		f.Add(s, int64(1), 200)
	}
	f.Fuzz(func(t *testing.T, s string, n int64, status int) {
		e := &Event{Start: noon.Add(time.Duration(n)), Received: n, Sent: -n, Status: status}
		fill(e, s)
		for range 50 {
			e.User.Groups = append(e.User.Groups, s)
		}
		e.Impersonated, e.ClusterUser = e.User, e.User
		l := encode(e)
		if len(l)+maxMissed > MaxLine {
			t.Errorf("a line of %d bytes", len(l))
		}
		d := decode(t, l)
		if d.Received != n || d.Sent != -n || d.Status != status {
			t.Errorf("%+v", d)
		}
		if decode(t, string(appendMissed([]byte(l), 1<<64-1))).Dropped != 1<<64-1 {
			t.Error("the number of lost events is not in the line")
		}
		// Short text without a credential comes back as it was.
		if len(s) < 30 && redact(s) == s && d.Rule != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Errorf("%q became %q", s, d.Rule)
		}
	})
}
