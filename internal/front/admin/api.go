package admin

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Prefix begins the paths of this front end.
const Prefix = "/-/v1/"

// Values of Token.State.
const (
	TokenUnused  = "unused"
	TokenUsed    = "used"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// Values of an approval.
const (
	// ApprovalAuto lets whoever has a token join.
	ApprovalAuto = "auto"
	// ApprovalManual makes a cluster wait until somebody accepts it.
	ApprovalManual = "manual"
)

// Values of Cluster.State.
const (
	ClusterConnected = "connected"
	ClusterAway      = "away"
	ClusterPending   = "pending"
	ClusterRevoked   = "revoked"
)

// Token is a join token without its secret.
type Token struct {
	ID        string            `json:"id"`
	Cluster   string            `json:"cluster"`
	Labels    map[string]string `json:"labels,omitempty"`
	Approval  string            `json:"approval"`
	State     string            `json:"state"`
	Created   time.Time         `json:"created"`
	CreatedBy string            `json:"createdBy,omitempty"`
	Expires   time.Time         `json:"expires"`
	Used      time.Time         `json:"used,omitzero"`
	UsedBy    string            `json:"usedBy,omitempty"`
	Revoked   time.Time         `json:"revoked,omitzero"`
	RevokedBy string            `json:"revokedBy,omitempty"`
}

// TokenRequest says what a new token is for.
type TokenRequest struct {
	// Cluster is the one cluster that it lets join. Required.
	Cluster string `json:"cluster"`
	// TTL is how long it may be used; 0 is the hub's default.
	TTL metav1.Duration `json:"ttl,omitzero"`
	// Labels are given to the cluster.
	Labels map[string]string `json:"labels,omitempty"`
	// Approval is ApprovalAuto or ApprovalManual; empty is the hub's own.
	Approval string `json:"approval,omitempty"`
	// Hub is the HOST:PORT at which the agent reaches the hub; empty is the hub's
	// own idea of it.
	Hub string `json:"hub,omitempty"`
}

// NewToken is a token that was just made. It is the only answer with its secret.
type NewToken struct {
	Token

	// Text is what the agent is given.
	Text string `json:"token"`
	// Command is the whole line that makes an agent join, for a shell.
	Command string `json:"command"`
	// Hub is the HOST:PORT in the text.
	Hub string `json:"hub"`
	// Warnings are for the person who asked: what may keep the agent from joining.
	Warnings []string `json:"warnings,omitempty"`
}

// Agent is one connected agent.
type Agent struct {
	// Name is what audit lines call it.
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Remote   string          `json:"remote"`
	Since    time.Time       `json:"since"`
	RTT      metav1.Duration `json:"rtt,omitzero"`
	Sessions int             `json:"sessions"`
	// Draining tells that it takes no new sessions.
	Draining bool `json:"draining,omitempty"`
	// KubernetesFailure is why the agent cannot reach its API server, as it says;
	// empty where it can, or says nothing.
	KubernetesFailure string `json:"kubernetesFailure,omitempty"`
}

// Certificate is one that the hub issued to a cluster's agent.
type Certificate struct {
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Issued    time.Time `json:"issued"`
	// Token is the id of the join token that it was issued for, and Renews the
	// serial number of the certificate that it followed.
	Token  string `json:"token,omitempty"`
	Renews string `json:"renews,omitempty"`
}

// Pending is a request to join that waits.
type Pending struct {
	// Key is the fingerprint of the agent's key, which the agent shows too.
	Key        string    `json:"key"`
	Token      string    `json:"token,omitempty"`
	Remote     string    `json:"remote,omitempty"`
	Asked      time.Time `json:"asked"`
	Accepted   time.Time `json:"accepted,omitzero"`
	AcceptedBy string    `json:"acceptedBy,omitempty"`
}

// Revocation is when and why a cluster was locked out.
type Revocation struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	// Restored is when it joined again with a new token, or was restored by name.
	Restored time.Time `json:"restored,omitzero"`
}

// Cluster is what the hub knows of a cluster.
type Cluster struct {
	Name         string            `json:"name"`
	State        string            `json:"state"`
	Labels       map[string]string `json:"labels,omitempty"`
	Version      string            `json:"version,omitempty"`
	Joined       time.Time         `json:"joined,omitzero"`
	FirstSeen    time.Time         `json:"firstSeen,omitzero"`
	LastSeen     time.Time         `json:"lastSeen,omitzero"`
	Agents       []Agent           `json:"agents,omitempty"`
	Certificates []Certificate     `json:"certificates,omitempty"`
	Direct       *Direct           `json:"direct,omitempty"`
	Pending      *Pending          `json:"pending,omitempty"`
	Revocation   *Revocation       `json:"revocation,omitempty"`
}

// Direct is how clients reach a cluster's API server without the hub.
type Direct struct {
	// URL is that of the API server; empty for none.
	URL string `json:"url"`
	// CA verifies it, PEM; empty for the clients' own systems.
	CA string `json:"ca,omitempty"`
}

// Acceptance says which request to join is accepted.
type Acceptance struct {
	// Key is the fingerprint of the agent's key that was looked at; empty accepts
	// whoever waits.
	Key string `json:"key,omitempty"`
}

// RevokeRequest says why a cluster is locked out.
type RevokeRequest struct {
	Reason string `json:"reason,omitempty"`
}

// Revoked says what a revocation did.
type Revoked struct {
	Cluster    string     `json:"cluster"`
	Revocation Revocation `json:"revocation"`
	// Cut is how many tunnels were ended.
	Cut int `json:"cut"`
}

// CA is one certificate of an authority.
type CA struct {
	Subject string `json:"subject"`
	// Fingerprint is that of the certificate, SHA-256, hexadecimal with colons.
	Fingerprint string    `json:"fingerprint"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
}

// Authority is the certificate authority of one role.
type Authority struct {
	Role string `json:"role"`
	File string `json:"file,omitempty"`
	// Signs says that the hub has the key, so that it issues and rotates.
	Signs bool `json:"signs"`
	// Active signs; without a key it is the first that is trusted.
	Active CA `json:"active"`
	// Trusted are the others that are still believed.
	Trusted []CA `json:"trusted,omitempty"`
}

// Hub is what the front end administers. All methods are safe for concurrent
// use. who is the name of the administrator, for records and logs. Errors are a
// *fault.Error where the caller may see the cause; any other is an internal one.
type Hub interface { //nolint:interfacebloat // a method for each thing that there is to administer
	// ListTokens returns every token that is kept, the oldest first.
	ListTokens(ctx context.Context) ([]Token, error)
	// CreateToken makes a token.
	CreateToken(ctx context.Context, who string, want TokenRequest) (NewToken, error)
	// RevokeToken takes a token back and returns it.
	RevokeToken(ctx context.Context, who, id string) (Token, error)
	// ListClusters returns every cluster that is known, waits or is revoked, by
	// name, without certificates.
	ListClusters(ctx context.Context) ([]Cluster, error)
	// GetCluster returns one, with everything.
	GetCluster(ctx context.Context, name string) (Cluster, error)
	// AcceptCluster lets a cluster that waits join.
	AcceptCluster(ctx context.Context, who, name string, how Acceptance) (Cluster, error)
	// SetDirect records how a cluster is reached without the hub.
	SetDirect(ctx context.Context, who, name string, direct Direct) (Cluster, error)
	// RevokeCluster locks a cluster out and cuts its tunnels.
	RevokeCluster(ctx context.Context, who, name string, why RevokeRequest) (Revoked, error)
	// RestoreCluster lets a revoked cluster come back whose certificates the hub does
	// not issue itself.
	RestoreCluster(ctx context.Context, who, name string) (Cluster, error)
	// ListAuthorities returns the authorities, by role.
	ListAuthorities(ctx context.Context) ([]Authority, error)
	// RotateAuthority makes a new authority for a role, which signs from now on,
	// beside the old one, which stays trusted.
	RotateAuthority(ctx context.Context, who, role string) (Authority, error)
}

// List is the form of an answer with several items.
type List[T any] struct {
	Items []T `json:"items"`
}
