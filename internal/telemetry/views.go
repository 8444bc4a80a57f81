package telemetry

import (
	"cmp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

// The JSON of the debug listener. Times are RFC 3339, durations in seconds.
type (
	linksView struct {
		Links []linkView `json:"links"`
	}
	linkView struct {
		Cluster      string    `json:"cluster,omitempty"`
		Name         string    `json:"name,omitempty"`
		Instance     string    `json:"instance,omitempty"`
		Version      string    `json:"version,omitempty"`
		Remote       string    `json:"remote,omitempty"`
		Since        time.Time `json:"since"`
		RTT          float64   `json:"rttSeconds"`
		Silent       float64   `json:"silentSeconds"`
		Sessions     int       `json:"sessions"`
		Pending      int       `json:"pending"`
		Stalled      int       `json:"stalled"`
		StallSeconds float64   `json:"stallSeconds"`
		Queued       int       `json:"queuedBytes"`
		Sent         uint64    `json:"sentBytes"`
		Received     uint64    `json:"receivedBytes"`
		Draining     bool      `json:"draining"`
		// Kubernetes is why the agent's API server cannot be reached, as it says.
		Kubernetes string `json:"kubernetesFailure,omitempty"`
	}
	sessionsView struct {
		Sessions []sessionView `json:"sessions"`
		// All counts those that there are, shown or not.
		All int `json:"all"`
	}
	sessionView struct {
		Cluster   string  `json:"cluster,omitempty"`
		Remote    string  `json:"remote,omitempty"`
		ID        uint64  `json:"id"`
		Target    string  `json:"target"`
		User      string  `json:"user,omitempty"`
		RequestID string  `json:"requestID,omitempty"`
		Trace     string  `json:"traceparent,omitempty"`
		State     string  `json:"state"`
		Age       float64 `json:"ageSeconds"`
		Idle      float64 `json:"idleSeconds"`
		Sent      uint64  `json:"sentBytes"`
		Received  uint64  `json:"receivedBytes"`
		Queued    int     `json:"queuedBytes"`
		Unread    int     `json:"unreadBytes"`
		Stalled   float64 `json:"stalledSeconds"`
	}
	requestsView struct {
		Requests []requestView `json:"requests"`
		All      int           `json:"all"`
	}
	requestView struct {
		Kind      string    `json:"kind"`
		Since     time.Time `json:"since"`
		Age       float64   `json:"ageSeconds"`
		User      string    `json:"user,omitempty"`
		Cluster   string    `json:"cluster,omitempty"`
		Target    string    `json:"target,omitempty"`
		Method    string    `json:"method,omitempty"`
		Path      string    `json:"path,omitempty"`
		Received  int64     `json:"receivedBytes"`
		Sent      int64     `json:"sentBytes"`
		RequestID string    `json:"requestID,omitempty"`
		TraceID   string    `json:"traceID,omitempty"`
	}
)

func (l *Links) view(cluster string) linksView {
	out := linksView{Links: []linkView{}}
	for _, e := range l.now() {
		if cluster != "" && e.info.Cluster != cluster {
			continue
		}
		s := e.link.Stats()
		out.Links = append(out.Links, linkView{
			Cluster: e.info.Cluster, Name: e.info.Name, Instance: e.info.Instance, Version: e.info.Version, Remote: e.remote(), Since: e.since,
			RTT: s.RTT.Seconds(), Silent: s.Silent.Seconds(), Sessions: s.Sessions, Pending: s.Pending, Stalled: s.Stalled,
			StallSeconds: s.StallTime.Seconds(), Queued: s.Queued, Sent: s.Sent, Received: s.Received, Draining: s.Draining,
			Kubernetes: unreadiness(s.Peer),
		})
	}
	return out
}

// unreadiness is why an agent cannot reach its API server, or empty.
func unreadiness(s *wire.Status) string {
	r := s.For(wire.KubernetesAPI())
	if r == nil || r.Ready {
		return ""
	}
	return bounded(cmp.Or(r.Message, r.Code.String()), maxPath)
}

func (e *liveLink) remote() string {
	if e.info.Remote == nil {
		return ""
	}
	return e.info.Remote.String()
}

func (l *Links) sessions(cluster string, limit int, who *Live) sessionsView {
	out := sessionsView{Sessions: []sessionView{}}
	users := make(map[string]string)
	for _, e := range l.now() {
		if cluster != "" && e.info.Cluster != cluster {
			continue
		}
		out.All += e.link.Stats().Sessions
		for _, s := range e.link.Sessions(limit - len(out.Sessions)) {
			state := "open"
			if !s.Opened {
				state = "opening"
			}
			out.Sessions = append(out.Sessions, sessionView{
				Cluster: e.info.Cluster, Remote: e.remote(), ID: uint64(s.ID), Target: s.Target.String(), RequestID: s.RequestID, Trace: s.Trace,
				State: state, Age: s.Age.Seconds(), Idle: s.Idle.Seconds(), Sent: s.Sent, Received: s.Received,
				Queued: s.Queued, Unread: s.Unread, Stalled: s.Stalled.Seconds(),
			})
			if s.RequestID != "" {
				users[s.RequestID] = ""
			}
		}
	}
	who.userOf(users)
	for i := range out.Sessions {
		out.Sessions[i].User = users[out.Sessions[i].RequestID]
	}
	return out
}

func (l *Live) view(cluster string, limit int) requestsView {
	under, all := l.snapshot(cluster, limit)
	out := requestsView{Requests: make([]requestView, 0, len(under)), All: all}
	for i := range under {
		a := &under[i]
		v := requestView{
			Kind: a.kind, Since: a.start, Age: time.Since(a.start).Seconds(), User: a.user, Cluster: a.cluster, Target: a.target,
			Method: a.method, Path: a.path, RequestID: a.requestID, TraceID: a.trace,
		}
		if a.bytes != nil {
			v.Received, v.Sent = a.bytes()
		}
		out.Requests = append(out.Requests, v)
	}
	return out
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String()
}

func (v linksView) table() (columns []string, rows [][]string) {
	for _, l := range v.Links {
		rows = append(rows, []string{
			l.Cluster, l.Name, l.Remote, l.Version, seconds(time.Since(l.Since).Seconds()), seconds(l.RTT), strconv.Itoa(l.Sessions), strconv.Itoa(l.Pending),
			strconv.Itoa(l.Stalled), seconds(l.StallSeconds), strconv.Itoa(l.Queued), strconv.FormatUint(l.Sent, 10), strconv.FormatUint(l.Received, 10),
			strconv.FormatBool(l.Draining), l.Kubernetes,
		})
	}
	return []string{"CLUSTER", "AGENT", "REMOTE", "VERSION", "AGE", "RTT", "SESSIONS", "PENDING", "STALLED", "STALL", "QUEUED", "SENT", "RECEIVED", "DRAINING", "KUBERNETES FAILURE"}, rows
}

func (v sessionsView) table() (columns []string, rows [][]string) {
	for _, s := range v.Sessions {
		rows = append(rows, []string{
			s.Cluster, strconv.FormatUint(s.ID, 10), s.State, s.Target, s.User, seconds(s.Age), seconds(s.Idle), strconv.FormatUint(s.Sent, 10),
			strconv.FormatUint(s.Received, 10), strconv.Itoa(s.Queued), strconv.Itoa(s.Unread), seconds(s.Stalled), s.RequestID,
		})
	}
	return []string{"CLUSTER", "ID", "STATE", "TARGET", "USER", "AGE", "IDLE", "SENT", "RECEIVED", "QUEUED", "UNREAD", "STALLED", "REQUEST"}, rows
}

func (v requestsView) table() (columns []string, rows [][]string) {
	for _, q := range v.Requests {
		rows = append(rows, []string{
			q.Kind, q.User, q.Cluster, q.Target, q.Method, q.Path, seconds(q.Age), strconv.FormatInt(q.Received, 10), strconv.FormatInt(q.Sent, 10), q.RequestID,
		})
	}
	return []string{"KIND", "USER", "CLUSTER", "TARGET", "METHOD", "PATH", "AGE", "RECEIVED", "SENT", "REQUEST"}, rows
}

// textTable is the form for people. What callers chose makes neither lines nor
// columns of its own.
func textTable(v view) string {
	columns, rows := v.table()
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		for i, cell := range cells {
			if cell = oneLine(cell); cell == "" {
				cell = "-"
			}
			if i > 0 {
				cell = "\t" + cell
			}
			_, _ = w.Write([]byte(cell)) // a strings.Builder takes everything
		}
		_, _ = w.Write([]byte{'\n'})
	}
	line(columns)
	for _, row := range rows {
		line(row)
	}
	_ = w.Flush() // the same
	return out.String()
}
