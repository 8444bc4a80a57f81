// Package identity proves with real parts who may do what through a hub: every
// kind of caller against every outcome, with the answer, the audit line and the
// trace of each; policy at the hub and at the agent; and that Culvert does not
// have the holes that systems of its kind are known for.
//
// # What runs
//
//	callers          hub                          clusters
//	---------------  ---------------------------  -----------------------------------
//	kubectl, Go,     culvert-hub "main"           managed   kube-apiserver with etcd, a
//	raw HTTP/1.1     kube-apiserver "hub" (token             node that runs processes,
//	and HTTP/2       review), two OpenID          open      the same, for its own tokens
//	                 providers, an OTLP           recorder  answers with what reached it
//	                 collector, audit file        shop      a service behind CoreDNS
//
// # Known holes of others
//
// For each the test that shows it is not there.
//
//	hole                                          test
//	--------------------------------------------  ------------------------------------------------------
//	routing on one credential, checking another   TestTwoCredentials
//	access checked only at the handshake          TestEachRequestIsChecked
//	an option about credentials that is ignored   TestIgnoredOptions
//	Impersonate-*, X-Remote-* of the client, also TestSmuggling (random sets of fields), e2e/refusals
//	  listed in Connection                          TestSmuggledIdentity (a table), TestImpersonation
//	a failed identity is logged, and sent on      TestRefusedMeansNotSent
//	https:kubernetes:0443, and such spellings     TestSpelling; internal/upstream (addresses, in every
//	                                                spelling and by DNS)
//	double encoding, "..", "//", %2F              TestSpelling, e2e/refusals TestBadRequests, e2e/kube "O20"
//	sizes that a stranger claims                  e2e/refusals TestOversizedFrames
//	a ticket whose expiry is not signed           there are no tickets; of join tokens the hub's store has
//	                                                the end: e2e/trust TestRefusedTokens
//	success before authentication                 TestRefusedMeansNotSent
//	a refused dial that ends the tunnel           internal/mux TestTranscripts (refuse), e2e/resilience
//	                                                "K1: … is told to the dialler"
//	a timed-out open that ends all sessions       internal/mux TestTranscripts (cancel), e2e/resilience
//	                                                "K1: a dial that is cancelled"
//	pause, or a deadlock of credit                internal/mux TestStalledReaderHarmsNobody,
//	                                                e2e/resilience "N1"
//	a ping behind data                            internal/mux TestTranscripts (schedule, keepalive)
//	a stale agent chosen first                    internal/registry TestChoice, e2e/resilience "N12"
//	labels of metrics without a bound             TestHealth
//	tokens in logs, at debug level too            the end of this suite, of e2e/refusals and of e2e/trust
//	an idle exec or logs -f that is cut           internal/front/https TestIdle (25 hours of test time),
//	                                                e2e/kube "O20: … idle for over a minute"
//	a kubeconfig that is half written             e2e/refusals TestDev
//	one private key for all clusters              e2e/trust TestCertificateRequests, TestRenewal
//	an agent's certificate on the callers' port   e2e/refusals, e2e/trust "N7,O4"
//	requests of a web page of another origin      TestOtherOrigins, TestHealth (the debug listener)
package identity
