// Package review lets a management cluster decide who may do what, by
// SubjectAccessReview, in place of a policy file or beside it
// (https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/).
//
// # What is asked
//
// The API group of what Culvert itself gives access to is [Group]. None of these
// resources exists; they are names that roles are written for.
//
//	request              verb                resource             name
//	Kubernetes API       its own verb        clusters/kubernetes  <cluster>
//	service              connect             clusters/services    <cluster>
//	  else               connect             services             <cluster>:<namespace>/<name>[:<port>]
//	TCP                  connect             clusters/tcp         <cluster>
//	  else               connect             addresses            <cluster>:<host>:<port>
//	anything             get                 clusters/kubernetes  <cluster>
//	  else               connect             clusters/kubernetes, /services or /tcp, <cluster>
//	kubectl --as         impersonate         as a kube-apiserver asks it, in its own groups
//
// All are asked without a namespace, so that only a ClusterRole can allow them:
// whoever may write roles in one namespace decides nothing here. Impersonation of
// a service account is asked in its namespace, where Kubernetes gives that right.
//
// # Errors
//
// A cluster that does not answer, or that answers anything but a review, is an
// error: a [*fault.Error] with code unavailable (503) that names it. It is never
// kept, and never taken for a decision.
package review
