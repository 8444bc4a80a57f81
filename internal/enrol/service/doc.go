// Package service is the hub's side of enrolment: it turns credentials into
// certificates of agents.
//
// [Service] decides, over small interfaces, who gets which certificate. [Server]
// puts its Enroll before agents that have no certificate yet, and with that before
// everybody who reaches the port: everything there is bounded. Its Renew is for
// the tunnels' server, which knows who asks:
//
//	enrolment, err := service.New(service.Config{Issuer: agentsCA, State: store, …})
//	server := service.NewServer(enrolment)
//	go server.Serve(port.Enrol())
//	tunnels := acceptor.NewServer(acceptor.ServerConfig{Renew: enrolment.Renew, …})
//
// # What the hub decides
//
// Everything in a certificate but its key. What a request asks beyond that is
// ignored and logged once, at the time a certificate is issued for it.
//
// # Log
//
// Each refusal is one line, "enrolment refused" or "renewal refused", with the
// peer's address, what the credential is called and the sentence that the peer
// got. No line has a secret in it.
package service
