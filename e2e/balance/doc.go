// Package balance proves with real processes that requests are spread over the API
// servers of a cluster and over its agents, and what becomes of them when one, or
// all, are gone: two kube-apiservers on one etcd, agents beside them, and a hub.
package balance
