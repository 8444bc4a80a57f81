// Package kubectl proves that kubectl does everything through a hub, in every way
// a kubeconfig can be written: a matrix of commands, of kubectl's two protocols of
// streams and of the versions of HTTP, against a real kube-apiserver with a node
// that runs pods as processes.
//
//	kubectl -> culvert-hub -> culvert-agent -> kube-apiserver -> node -> process
//
// The first way leads to kube-apiserver without Culvert: what fails there is the
// bed's fault. Each kubectl says in its log which protocols it really spoke, so
// that nothing passes by falling back unnoticed. What Kubernetes itself cannot do
// is in the table with the reason.
//
// TestKubectl shares one world, and runs in one order: idle sessions are opened
// first and looked at last.
package kubectl
