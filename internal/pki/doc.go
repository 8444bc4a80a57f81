// Package pki makes, reads and judges the certificates of a hub and its agents.
//
// # Authorities
//
// A hub has one certificate authority a role, so that a certificate for one
// role says nothing in another: [RoleAgents] signs what agents show to the hub,
// [RoleServing] what the hub shows to agents and clients. [LoadOrCreate] keeps
// them in a folder as <role>-ca.crt and <role>-ca.key. The agents of a hub may
// as well come from an operator's own authority; then the hub needs only its
// certificate, as a [Bundle].
//
// # Names
//
// An agent's certificate carries spiffe://<trust-domain>/cluster/<name> as its
// one URI subject alternative name (SPIFFE X509-SVID, section 2). [ClusterOf]
// reads it, byte for byte, and is the only source of an agent's cluster: the
// common name is for people and is never read.
//
// # Reload
//
// [KeyPair] and [Bundle] follow their files. There is no goroutine behind them:
// a handshake that comes a second or more after the last check looks at the
// files, and reads them when they changed. Replacing by rename, in place, and by
// swapping a symbolic link above them (as Kubernetes does for Secrets) all work.
// A new file that is bad in any way leaves the old one in force and is logged
// once, with the reason.
//
// # Use in a hub
//
//	agents, err := pki.LoadOrCreate(dir, pki.RoleAgents)
//	serving, err := pki.LoadOrCreate(dir, pki.RoleServing)
//	pair, err := pki.SelfServing(serving, dir, names)
//	verify := pki.VerifyAgent(agents, trustDomain)
//	config := &tls.Config{
//		MinVersion:     tls.VersionTLS13,
//		GetCertificate: pair.GetCertificate,
//		// The chain is judged below, also when a session is resumed.
//		ClientAuth: tls.RequireAnyClientCert,
//		VerifyConnection: func(state tls.ConnectionState) error {
//			_, err := verify(state)
//			return err
//		},
//	}
//
// # Use in an agent
//
//	pair, err := pki.LoadKeyPair("tls.crt", "tls.key")
//	hubCA, err := pki.LoadBundle("ca.crt")
//	config := &tls.Config{
//		MinVersion:           tls.VersionTLS13,
//		ServerName:           name,
//		GetClientCertificate: pair.GetClientCertificate,
//		// Replaced by VerifyConnection: RootCAs cannot follow a file.
//		InsecureSkipVerify: true,
//		VerifyConnection:   pki.VerifyServer(hubCA, name),
//	}
//
// # Limitations
//
// There is no revocation yet, and no rotation of an authority: a CA file holds
// one certificate. Certificates of agents are not renewed by this package.
package pki
