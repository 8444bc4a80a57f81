package docs_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/server"
)

// setting returns the one value that a unit of deploy/systemd gives a key.
func setting(t *testing.T, unit, key string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(read(t, root+"/deploy/systemd/"+unit), -1)
	if len(found) != 1 {
		t.Fatalf("%s: %s is there %d times", unit, key, len(found))
	}
	return found[0][1]
}

func TestUnits(t *testing.T) {
	t.Run("the configurations beside the units are valid, with the flags of the units", func(t *testing.T) {
		hub := server.Config{State: "/var/lib/culvert"}
		if err := yaml.UnmarshalStrict([]byte(read(t, root+"/deploy/systemd/hub.yaml")), &hub); err != nil {
			t.Fatal(err)
		}
		if err := hub.Validate(); err != nil {
			t.Error(err)
		}
		connecting := agent.Config{State: "/var/lib/culvert-agent"}
		if err := yaml.UnmarshalStrict([]byte(read(t, root+"/deploy/systemd/agent.yaml")), &connecting); err != nil {
			t.Fatal(err)
		}
		if err := connecting.Validate(); err != nil {
			t.Error(err)
		}
	})
	t.Run("every flag of a unit's command line and of its environment file exists", func(t *testing.T) {
		found := commands(t)
		makefile := read(t, root+"/Makefile")
		for program, variables := range map[string][]string{
			"culvert-hub":   {"CULVERT_HUB_ARGS"},
			"culvert-agent": {"CULVERT_AGENT_JOIN", "CULVERT_AGENT_ARGS"},
		} {
			line := strings.TrimPrefix(setting(t, program+".service", "ExecStart"), "/usr/local/bin/")
			environment := read(t, root+"/deploy/systemd/"+strings.TrimPrefix(program, "culvert-")+".env")
			for _, name := range variables {
				value := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(environment)
				if value == nil || !strings.Contains(line, " $"+name) {
					t.Fatalf("%s: %s is not in both files", program, name)
				}
				line = strings.Replace(line, "$"+name, value[1], 1)
			}
			if err := checkLine(line, found, makefile); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
	t.Run("systemd waits longer than a drain takes, and lets a process have more than it plans with", func(t *testing.T) {
		for unit, want := range map[string]struct {
			drain  time.Duration
			memory int64
		}{
			"culvert-hub.service":    {server.DefaultDrainTimeout + 5*time.Second, server.DefaultMemory},
			"culvert-agent.service":  {agent.DefaultDrainTimeout, agent.DefaultMemory},
			"culvert-agent@.service": {agent.DefaultDrainTimeout, agent.DefaultMemory},
		} {
			if wait, err := time.ParseDuration(setting(t, unit, "TimeoutStopSec")); err != nil || wait <= want.drain {
				t.Errorf("%s: TimeoutStopSec is %v, a drain takes %v", unit, wait, want.drain)
			}
			text := setting(t, unit, "MemoryMax")
			n, err := strconv.ParseInt(text[:len(text)-1], 10, 64)
			limit := n << map[byte]int{'M': 20, 'G': 30}[text[len(text)-1]]
			if err != nil || limit < 3*want.memory/2 {
				t.Errorf("%s: MemoryMax is %s, and the process plans with %d MiB", unit, text, want.memory>>20)
			}
		}
	})
	t.Run("the unit for several agents is that for one, with names of its own", func(t *testing.T) {
		settings := func(unit string) string {
			var lines []string
			for line := range strings.Lines(read(t, root+"/deploy/systemd/"+unit)) {
				if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "User=") {
					lines = append(lines, line)
				}
			}
			return strings.Join(lines, "")
		}
		several := strings.NewReplacer("agent-%i", "agent", "Culvert agent %i", "Culvert agent").Replace(settings("culvert-agent@.service"))
		if one := settings("culvert-agent.service"); one != several {
			t.Errorf("they differ:\n%s\n%s", one, several)
		}
	})
	t.Run("every file that the page installs is there", func(t *testing.T) {
		page := read(t, "install.md")
		for _, m := range regexp.MustCompile(` systemd/([a-z@-]+\.[a-z]+)`).FindAllStringSubmatch(page, -1) {
			read(t, root+"/deploy/systemd/"+m[1])
		}
		for _, file := range []string{"hub.yaml", "hub.env", "agent.yaml", "agent.env", "sysusers.conf", "culvert-hub.service", "culvert-agent.service", "culvert-agent@.service"} {
			if !strings.Contains(page, "systemd/"+file) {
				t.Errorf("%s is not installed by anything", file)
			}
		}
	})
}
