package policy_test

import (
	"testing"

	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const head = "apiVersion: policy.culvert.dev/v1\nkind: Policy\n"

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(head+text), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func who(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: groups}
}

// sent is a request of alice to the Kubernetes API of edge-1.
func sent(t testing.TB, method, path, query string) policy.Request {
	t.Helper()
	r := base()
	attributes, err := policy.Attributes(r.User, method, path, query)
	if err != nil {
		t.Fatal(err)
	}
	r.Kubernetes = attributes
	return r
}
