package audit

import (
	"strconv"
	"strings"
	"time"
)

// Bounds of what one field takes in a line, in bytes.
const (
	maxName   = 256  // names, ids, addresses
	maxPath   = 1024 // the path, as in the hub's log
	maxText   = 512  // sentences for people
	maxGroups = 4096 // all groups of one identity
)

// MaxLine bounds a line, its line break included, in bytes.
const MaxLine = 24 << 10

// timeFormat is RFC 3339 with microseconds, all of them always.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// line makes the JSON of one event.
type line struct {
	out []byte
	// redact looks for credentials in every text.
	redact bool
}

// appendEvent appends e as one line, with the line break.
func appendEvent(dst []byte, e *Event, now time.Time) []byte {
	plain := line{out: dst}
	plain.event(e, now)
	if !mayHaveCredential(plain.out[len(dst):]) {
		return plain.out
	}
	// Rare, so that the search in each text for itself may cost something.
	redacted := line{out: plain.out[:len(dst)], redact: true}
	redacted.event(e, now)
	return redacted.out
}

func (l *line) event(e *Event, now time.Time) {
	l.out = append(l.out, `{"time":"`...)
	l.out = now.UTC().AppendFormat(l.out, timeFormat)
	l.out = append(l.out, `","stage":`...)
	l.text(string(e.Stage), maxName)
	l.member(`,"requestID":`, e.RequestID, maxName)
	l.member(`,"traceID":`, e.TraceID, maxName)
	l.member(`,"sessionID":`, e.SessionID, maxName)

	l.identity(`,"user":`, &e.User)
	l.member(`,"authentication":`, e.Authentication, maxName)
	l.identity(`,"impersonatedUser":`, &e.Impersonated)
	l.identity(`,"clusterUser":`, &e.ClusterUser)
	l.member(`,"source":`, e.Source, maxName)

	l.member(`,"hub":`, e.Hub, maxName)
	l.member(`,"cluster":`, e.Cluster, maxName)
	l.member(`,"agent":`, e.Agent, maxName)
	l.member(`,"target":`, e.Target, maxText)

	l.member(`,"method":`, e.Method, maxName)
	l.member(`,"path":`, withoutQuery(e.Path), maxPath)
	l.member(`,"verb":`, e.Verb, maxName)
	l.member(`,"apiGroup":`, e.APIGroup, maxName)
	l.member(`,"apiVersion":`, e.APIVersion, maxName)
	l.member(`,"resource":`, e.Resource, maxName)
	l.member(`,"subresource":`, e.Subresource, maxName)
	l.member(`,"namespace":`, e.Namespace, maxName)
	l.member(`,"name":`, e.Name, maxName)

	l.member(`,"decision":`, string(e.Verdict), maxName)
	l.member(`,"rule":`, e.Rule, maxName)
	l.member(`,"reason":`, e.Reason, maxText)

	if e.Status != 0 {
		l.number(`,"status":`, int64(e.Status))
	}
	l.member(`,"hop":`, e.Hop, maxName)
	l.member(`,"code":`, dashed(e.Code), maxName)
	l.member(`,"error":`, e.Error, maxText)
	l.number(`,"received":`, e.Received)
	l.number(`,"sent":`, e.Sent)
	if !e.Start.IsZero() {
		l.out = appendSeconds(append(l.out, `,"duration":`...), now.Sub(e.Start))
	}
	l.member(`,"end":`, dashed(e.End), maxName)
	l.out = append(l.out, "}\n"...)
}

// dashed makes one of the two spellings that a code has. A credential in it has
// to be found before: its mark may have a space.
func dashed(code string) string {
	return strings.ReplaceAll(redact(code[:min(len(code), maxName)]), " ", "-")
}

// member appends a member unless it is empty. The name has the comma before it.
func (l *line) member(name, value string, limit int) {
	if value != "" {
		l.out = append(l.out, name...)
		l.text(value, limit)
	}
}

func (l *line) number(name string, value int64) {
	l.out = strconv.AppendInt(append(l.out, name...), value, 10)
}

func (l *line) identity(name string, i *Identity) {
	if i.isZero() {
		return
	}
	l.out = append(append(l.out, name...), `{"name":`...)
	l.text(i.Name, maxName)
	l.member(`,"uid":`, i.UID, maxName)
	if len(i.Groups) > 0 {
		l.groups(i.Groups)
	}
	l.out = append(l.out, '}')
}

// groups appends the groups that fit, and how many there are more.
func (l *line) groups(groups []string) {
	l.out = append(l.out, `,"groups":[`...)
	start := len(l.out)
	for n, g := range groups {
		if len(l.out)-start > maxGroups-maxName {
			l.out = append(l.out, ']')
			l.number(`,"groupsLeftOut":`, int64(len(groups)-n))
			return
		}
		if n > 0 {
			l.out = append(l.out, ',')
		}
		l.text(g, maxName)
	}
	l.out = append(l.out, ']')
}

// appendSeconds appends a duration as a JSON number of seconds with microseconds.
func appendSeconds(out []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	out = strconv.AppendInt(out, us/1e6, 10)
	out = append(out, '.')
	rest := us % 1e6
	for digit := int64(1e5); digit > 1 && rest < digit; digit /= 10 {
		out = append(out, '0')
	}
	return strconv.AppendInt(out, rest, 10)
}
