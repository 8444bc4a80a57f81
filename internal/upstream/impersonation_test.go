package upstream

import (
	"bufio"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
)

// FuzzImpersonated holds that whatever a hub sends, what goes on names nobody but
// those whom the owner allows, and is what was decided about.
func FuzzImpersonated(f *testing.F) {
	for _, seed := range []string{
		"Impersonate-User: cluster:hub:alice\r\nImpersonate-Group: cluster:hub:dev\r\nImpersonate-Uid: 1\r\nImpersonate-Extra-A%2fb: c",
		"impersonate-user: cluster:hub:a\r\nImpersonate-User: system:admin",
		"Impersonate-Group: system:masters", "Impersonate_User: admin", "X: y", "Impersonate-User: cluster:hub:a\r\nConnection: Impersonate-User",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, head string) {
		read, err := textproto.NewReader(bufio.NewReader(strings.NewReader(head + "\r\n\r\n"))).ReadMIMEHeader()
		if err != nil {
			return
		}
		h := http.Header(read)
		owner := (&Impersonation{Groups: []string{"viewers"}}).clone()
		who, err := owner.impersonated(h)
		sent := http.Header{}
		if err == nil {
			sent = h.Clone()
			kubernetesEditor{set: checkedHeaders(h)}.edit(sent)
		}
		var users, groups []string
		for name, values := range sent {
			switch folded := fold(name); {
			case folded == "impersonate-user":
				users = append(users, values...)
			case folded == "impersonate-group":
				groups = append(groups, values...)
			case folded == "authorization" || strings.HasPrefix(folded, "x-remote-"):
				t.Errorf("%q was sent on", name)
			case isImpersonate(folded) && who == nil:
				t.Errorf("%q was sent on without a user", name)
			}
		}
		if who == nil {
			if len(users)+len(groups) > 0 {
				t.Fatalf("nobody was decided about, and users %q, groups %q are sent", users, groups)
			}
			return
		}
		if len(users) != 1 || users[0] != who.Name || !strings.HasPrefix(users[0], DefaultPrefix) {
			t.Errorf("users %q are sent, %q was decided about", users, who.Name)
		}
		if strings.Join(groups, "\n") != strings.Join(who.Groups, "\n") {
			t.Errorf("groups %q are sent, %q were decided about", groups, who.Groups)
		}
		for _, group := range groups {
			if group != "viewers" && !strings.HasPrefix(group, DefaultPrefix) {
				t.Errorf("group %q is sent", group)
			}
		}
	})
}
