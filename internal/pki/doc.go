// Package pki makes, reads and judges the certificates of a hub and its agents.
//
// # Authorities
//
// A hub has one certificate authority a role, so that a certificate for one
// role says nothing in another: [RoleAgents] signs what agents show to the hub,
// [RolePeers] what hubs show to each other, [RoleUsers] what people and programs
// show, [RoleServing] what the hub shows to all of them. [LoadOrCreate] keeps
// them in a folder:
//
//	<role>-ca.crt        the certificate that signs, and after it the ones before
//	                     it that are still trusted
//	<role>-ca.key        its key, mode 0600
//	<role>-ca.json       until when what each of them signed may be in use
//	serving-ca-cross.crt the serving certificate signed by the one before it
//	.lock                held while one of them is changed
//
// An operator may supply the authority of a role instead, with its key or
// without: see [LoadAuthority]. Without the key the hub trusts what it signed and
// signs nothing; a [Bundle] will then do as well.
//
// # Rotation
//
// [Authority.Rotate] puts a new certificate before the old one, which is trusted
// until nothing it signed can be valid any more ([Authority.Prune]). A client
// that knows the old serving certificate only goes on to trust the hub, because
// the hub sends the cross certificate along, until the old one expires.
//
// # Names
//
// An agent's certificate carries spiffe://<trust-domain>/cluster/<name> as its
// one URI subject alternative name (SPIFFE X509-SVID, section 2). [ClusterOf]
// reads it, byte for byte, and is the only source of an agent's cluster: the
// common name is for people and is never read. Of a certificate request the key
// is used and nothing else: see [ParseRequest].
//
// # Reload
//
// [KeyPair], [Bundle] and [Authority] follow their files. There is no goroutine
// behind them: a handshake that comes a second or more after the last check looks
// at the files, and reads them when they changed; so does [Watched.Status].
// Replacing by rename, in place, and by swapping a symbolic link above them (as
// Kubernetes does for Secrets) all work. A new file that is bad in any way leaves
// the old one in force, is logged once, with the reason, and shows in the status.
// [Watched.Reload] reads at once, for a signal.
//
// # Use in a hub
//
//	agents, err := pki.LoadOrCreate(dir, pki.RoleAgents)
//	serving, err := pki.LoadOrCreate(dir, pki.RoleServing)
//	self, err := pki.SelfServing(serving, dir, names)
//	// A certificate of the operator, and the hub's own until it appears.
//	pair, err := pki.LoadServing(pki.Source{Dir: "/etc/culvert/tls", Names: names}, pki.WithFallback(self))
//	certs, err := pki.NewSelector(pair, others...)
//	verify := pki.VerifyAgent(agents, trustDomain, store.CheckCertificate)
//	config := &tls.Config{
//		MinVersion:     tls.VersionTLS13,
//		GetCertificate: certs.GetCertificate,
//		// The chain is judged below, also when a session is resumed.
//		ClientAuth: tls.RequireAnyClientCert,
//		VerifyConnection: func(state tls.ConnectionState) error {
//			_, err := verify(state)
//			return err
//		},
//	}
//
// Where agents join, GetCertificateWithCA takes the place of GetCertificate: they
// know no more of the hub than a [Pin].
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
// Before it has a certificate, it makes a request with [NewRequest] and connects
// with [VerifyPinned] in place of [VerifyServer].
//
// # Limitations
//
// Revocation is for who keeps a list: [VerifyAgent] asks it, and there are no CRLs
// and no OCSP. A file that changes is seen by the next handshake or status, not
// before. An authority made by a version before rotation that is of [RoleServing]
// cannot vouch for a successor, and its rotation is refused with what to do. The
// keys of authorities are files: there is no hardware behind them. Keys encrypted
// in OpenSSL's old way (DEK-Info) are refused.
package pki
