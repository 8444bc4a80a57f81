package audit

import "time"

// Stage says which moment a line is about.
type Stage string

// The stages.
const (
	// StageRequest is the end of one HTTP request, answered or not.
	StageRequest Stage = "request"
	// StageSessionStart, StageSessionInterval and StageSessionEnd are of a raw
	// session or an upgraded request, such as exec: when it begins, regularly
	// while it is open, and when it has ended.
	StageSessionStart    Stage = "session-start"
	StageSessionInterval Stage = "session-interval"
	StageSessionEnd      Stage = "session-end"
)

// Verdict is what was decided about a request or session.
type Verdict string

// The verdicts. The zero Verdict means that nothing was decided: it failed
// before.
const (
	Allow Verdict = "allow"
	Deny  Verdict = "deny"
)

// Reasons for an end that are not codes of an error, for [Event.End].
const (
	// EndCompleted is an orderly end.
	EndCompleted = "completed"
	// EndShutdown is that of sessions which were open when their hub ended.
	EndShutdown = "shutdown"
)

// Identity is a user as one side knows them. It has no room for a user's extra
// fields: those may hold anything. The zero value is nobody and is left out.
type Identity struct {
	Name string
	UID  string
	// Groups are written as far as they fit into 4 KiB; the line says how many
	// were left out.
	Groups []string
}

func (i *Identity) isZero() bool { return i.Name == "" && i.UID == "" && len(i.Groups) == 0 }

// Event is what one line says. Empty fields are left out of the line, except
// for Received and Sent. Strings may hold anything: they are escaped, bounded and
// searched for credentials when the line is made.
//
// An Event belongs to its caller. [Log.Record] keeps nothing of it.
type Event struct {
	// Stage is required. The time of a line is that of the call which records it.
	Stage Stage
	// Start is when the request arrived or the session was asked for: the line's
	// duration is counted from it. The zero value leaves the duration out.
	Start time.Time

	// RequestID is that of X-Request-Id; TraceID is that of OpenTelemetry, 32 hex
	// digits; SessionID names a session in all of its lines.
	RequestID, TraceID, SessionID string

	// User is who the caller is, and Authentication how that was found: "static-token",
	// "oidc", "client-certificate", …
	User           Identity
	Authentication string
	// Impersonated is the hub user that the caller asked to act as. ClusterUser is
	// the user that the managed cluster sees.
	Impersonated, ClusterUser Identity
	// Source is the address that the request came from.
	Source string

	// Hub, Cluster and Agent name the places on the way. Target is that of a
	// session: "kubernetes", "service https:default/web:8443", "tcp db:5432".
	Hub, Cluster, Agent, Target string

	// Method is HTTP's. Path is the escaped path; a query is cut off.
	Method, Path string
	// Verb to Name are what Kubernetes makes of method and path.
	Verb, APIGroup, APIVersion, Resource, Subresource, Namespace, Name string

	// Verdict, Rule and Reason are the decision: which rule made it, and why.
	Verdict      Verdict
	Rule, Reason string

	// Status is that of HTTP, 0 without an answer.
	Status int
	// Hop, Code and Error are a failure that is not the target's own answer. Code
	// may have spaces or dashes between its words; the line has dashes, as the
	// header X-Culvert-Error does. So has End.
	Hop, Code, Error string
	// Received and Sent count the bytes of bodies or streams from and to the
	// caller.
	Received, Sent int64
	// End says why it ended: [EndCompleted], [EndShutdown], or a code.
	End string
}
