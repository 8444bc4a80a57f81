package refusals

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// culvertLogs returns the text of the log of each process of Culvert.
func culvertLogs() (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(testbed.Dir(), "culvert-*.log"))
	if err != nil {
		return nil, err
	}
	logs := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		logs[filepath.Base(file)] = string(text)
	}
	if len(logs) < 4 {
		return nil, fmt.Errorf("only %d logs in %s", len(logs), testbed.Dir())
	}
	return logs, nil
}

// leaked reports each credential that is in a log, in a spelling of its own.
func (w *world) leaked(logs map[string]string) error {
	var errs []error
	for name, secret := range w.secrets {
		for _, spelling := range []string{secret, base64.RawURLEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
			for file, text := range logs {
				if strings.Contains(text, spelling) {
					errs = append(errs, fmt.Errorf("%s has %s", file, name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// racesIn reports what the race detector wrote into a log.
func racesIn(logs map[string]string) error {
	for file, text := range logs {
		if i := strings.Index(text, "WARNING: DATA RACE"); i >= 0 {
			return fmt.Errorf("%s: %s", file, text[i:min(len(text), i+4<<10)])
		}
	}
	return nil
}

func TestCredentialsStayWhereTheyBelong(t *testing.T) {
	t.Run("D7: no credential is in a log at debug level, wherever a client put it", func(t *testing.T) {
		basic := base64.StdEncoding.EncodeToString([]byte("ada:" + the.ada))
		protocol := base64.RawURLEncoding.EncodeToString([]byte(the.ada))
		upgrade := [][2]string{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}}
		for _, header := range [][][2]string{
			{{"Authorization", "Bearer " + the.ada}},
			{{"Authorization", "Bearer " + the.robot}},
			{{"Authorization", "Token " + the.ada}},
			{{"Authorization", the.ada}},
			{{"Authorization", "Basic " + basic}},
			{{"Authorization", "Bearer " + the.ada}, {"Authorization", "Bearer " + the.root}},
			{{"Authorization", "Bearer " + the.ada + "x"}},
			{{"Culvert-Authorization", "Bearer " + the.ada}, {"Authorization", "Bearer " + the.root}},
			append(upgrade, [2]string{"Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io." + protocol}),
			append(upgrade, [2]string{"Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io." + protocol + "!"}),
		} {
			for _, cluster := range []string{"managed", "recorder", "away", "nosuch"} {
				the.hub.http1(t, request{path: "/" + cluster + "/api/v1/pods?access_token=" + the.ada + "&x=%zz", header: header})
			}
		}
		logs, err := culvertLogs()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(logs["culvert-hub.log"], "user=ada") || !strings.Contains(logs["culvert-hub.log"], "level=DEBUG") {
			t.Error("the hub's log has not even the requests at debug level")
		}
		if err := the.leaked(logs); err != nil {
			t.Error(err)
		}
	})

	t.Run("O4,D7: what reaches an API server is the agent's credential alone", func(t *testing.T) {
		for _, proto := range protocols() {
			got := proto.send(t, the.hub, request{path: "/recorder/api", header: [][2]string{
				{"culvert-authorization", "Bearer " + the.ada}, {"authorization", "Bearer " + the.root}, {"proxy-authorization", "Bearer " + the.root},
			}})
			var arrived recorded
			if err := json.Unmarshal(got.body, &arrived); err != nil {
				t.Fatalf("%s: %v: %d %s", proto.name, err, got.status, got.body)
			}
			if auth := arrived.Header["Authorization"]; len(auth) != 1 || auth[0] != "Bearer "+the.recorder.agentToken {
				t.Errorf("%s: %d Authorization headers arrived, or not the agent's", proto.name, len(auth))
			}
			for _, secret := range []string{the.ada, the.root} {
				if strings.Contains(string(got.body), secret) {
					t.Errorf("%s: a token of the hub arrived: %s", proto.name, got.body)
				}
			}
		}
	})

	t.Run("O4,O15: the managed cluster, which knows the tokens of hub users as an administrator's, sees the agent and whom it stands for", func(t *testing.T) {
		for user, token := range map[string]string{"ada": the.ada, "root": the.root, "system:serviceaccount:team:robot": the.robot} {
			got := whoami(t, protocols()[0], "managed", request{header: bearer(token)})
			if got.Username != "cluster:hub:"+user {
				t.Errorf("%s is %+v", user, got)
			}
		}
		events := 0
		text, err := os.ReadFile(the.auditLog)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(line, "\n") {
				break // it is being written: the agent probes all the time
			}
			var event struct {
				User, ImpersonatedUser struct {
					Username string
					Groups   []string
				}
				RequestURI, Verb string
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("audit log: %v: %s", err, line)
			}
			if event.User.Username == "trap" {
				t.Errorf("a hub user's token reached the API server: %s", line)
			}
			if event.User.Username != "system:serviceaccount:culvert-agent:culvert-agent" {
				continue
			}
			if event.RequestURI == "/readyz" && event.Verb == "get" && event.ImpersonatedUser.Username == "" {
				continue // its probe, for which it stands for nobody
			}
			events++
			if !strings.HasPrefix(event.ImpersonatedUser.Username, "cluster:hub:") {
				t.Errorf("the agent asked for itself: %s", line)
			}
			for _, group := range event.ImpersonatedUser.Groups {
				if !strings.HasPrefix(group, "cluster:hub:") && group != "system:authenticated" {
					t.Errorf("the agent asked in the group %s: %s", group, line)
				}
			}
		}
		if events == 0 {
			t.Error("the audit log has no request of the agent")
		}
	})

	t.Run("O15,O16: system:masters at the hub is nothing in the managed cluster", func(t *testing.T) {
		for _, proto := range protocols() {
			got := whoami(t, proto, "managed", request{header: bearer(the.root)})
			if got.Username != "cluster:hub:root" || strings.Join(got.Groups, " ") != "cluster:hub:ops system:authenticated" {
				t.Errorf("%s: root is %+v", proto.name, got)
			}
			answer := proto.send(t, the.hub, request{path: "/managed/api/v1/secrets", header: bearer(the.root)})
			if answer.status != http.StatusForbidden || answer.header.Get("X-Culvert-Error") != "" {
				t.Errorf("%s: secrets for root: %d %s", proto.name, answer.status, answer.body)
			}
		}
		kubectl := the.managed.KubectlAs(the.kubeconfig(t, "managed", the.root))
		out, err := kubectl.Run(within(t, 2*time.Minute), "auth", "can-i", "*", "*", "--all-namespaces")
		if strings.TrimSpace(out) != "no" {
			t.Errorf("can-i everything = %q, %v", out, err)
		}
	})
}
