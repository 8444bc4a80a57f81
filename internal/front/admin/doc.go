// Package admin is the hub's front end for its administrators: join tokens,
// clusters and certificate authorities, as JSON over HTTP, with the client for
// it.
//
//	GET    /-/v1/tokens                       list
//	POST   /-/v1/tokens                       make one: TokenRequest, answers NewToken
//	DELETE /-/v1/tokens/{id}                  take one back
//	GET    /-/v1/clusters                     list
//	GET    /-/v1/clusters/{name}              one
//	POST   /-/v1/clusters/{name}/accept       let a waiting cluster join: Acceptance
//	POST   /-/v1/clusters/{name}/direct       record how it is reached without the hub: Direct
//	POST   /-/v1/clusters/{name}/revoke       lock a cluster out: RevokeRequest
//	POST   /-/v1/clusters/{name}/restore      let it come back, where others issue its certificates
//	GET    /-/v1/authorities                  list
//	POST   /-/v1/authorities/{role}/rotate    make a new one that signs from now on
//
// Errors are a Kubernetes Status, as those of the rest of the hub (see package
// answer). A POST needs the content type application/json, so that no page of
// another site can make a browser send one.
//
// # Who may call
//
// [Handler] itself takes the caller's name as decided ([As]). [Handler.Listen]
// serves it on a Unix socket with mode 0600, where the kernel says who calls: the
// hub's own user, and root. The HTTPS front end serves it to identities that the
// hub's configuration names. Every change is logged with the name.
package admin
