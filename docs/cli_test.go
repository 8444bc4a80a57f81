package docs_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// update writes cli.md anew: go test ./docs -run TestReference -update.
var update = flag.Bool("update", false, "write docs/cli.md from the commands")

const referenceHead = `# The command culvert

[Getting started](getting-started.md) has the first steps. This page is made from the commands' own help by
` + "`make generate`" + `, and a test compares them.

## Which hub, and who you are

` + "`culvert login`" + ` keeps a hub, what verifies it, and your credential as a profile. Every other command takes, in this order,

1. its flags: ` + "`--hub`, `--hub-ca`, `--token-file`, `--token-command`, `--client-cert`, `--client-key`" + ` or ` + "`--profile`" + `;
2. the environment, as a whole: ` + "`CULVERT_HUB`, `CULVERT_HUB_CA`" + ` and one of ` + "`CULVERT_TOKEN`, `CULVERT_TOKEN_FILE`, `CULVERT_TOKEN_COMMAND`" + `, or
   ` + "`CULVERT_CLIENT_CERT` with `CULVERT_CLIENT_KEY`" + `;
3. the profile that ` + "`CULVERT_PROFILE`" + ` names, or the current one.

With ` + "`--hub`" + ` alone, what the environment or a profile has for that same hub counts, and a credential of another hub is never
sent to it.

The profiles are in ` + "`CULVERT_CONFIG`" + ` or, without that, ` + "`culvert/config.yaml`" + ` in your configuration folder. That file holds no
secret: logins and tokens are in the folder ` + "`credentials`" + ` beside it, each in a file of mode 0600. Its fields are

| field | meaning |
|---|---|
| ` + "`current`" + ` | name of the profile that counts where none is named |
| ` + "`profiles[].name`" + ` | letters, digits, ` + "`.`, `-` and `_`" + ` |
| ` + "`profiles[].hub`" + ` | ` + "`https://host[:port]`" + ` |
| ` + "`profiles[].hubCA`" + `, ` + "`hubCAData`" + ` | file of the CAs that verify the hub, or their PEM; default: the system's |
| ` + "`profiles[].serverName`" + ` | name in the hub's certificate where it is not the host |
| ` + "`profiles[].insecureSkipTLSVerify`" + ` | verify nobody: for tests on one machine |
| ` + "`profiles[].proxy`" + ` | ` + "`url`, `noProxy`, `ca`, `credentialsFile`" + ` of an HTTP proxy; default: ` + "`HTTPS_PROXY` and `NO_PROXY`" + ` |
| ` + "`profiles[].tokenFile`" + `, ` + "`tokenCommand`" + ` | where a bearer token comes from |
| ` + "`profiles[].oidc`" + ` | ` + "`issuer`, `clientID`, `clientSecretFile`, `scopes`, `ca`" + ` of a login at an OpenID Connect provider |
| ` + "`profiles[].certFile`" + `, ` + "`keyFile`" + ` | a client certificate |

## What scripts can rely on

Results go to standard output, in the form of ` + "`-o`" + `: ` + "`table`, `wide`, `json` or `yaml`" + `. Everything else goes to standard error.
Colours and progress are for terminals alone, and there are no colours where ` + "`NO_COLOR`" + ` is set. A failure is one line that says
what is wrong and what to do, with one of these exit codes, which ` + "`culvert help exit-codes`" + ` prints too:

| exit code | meaning |
|---|---|
`

const referencePlugin = `
## As a plugin of kubectl, and in the shell

` + "`make build`" + ` makes ` + "`kubectl-culvert` and `kubectl_complete-culvert`" + ` beside the binary, as links to it. In the PATH they make
` + "`kubectl culvert …`" + ` work, with completion.

` + "`culvert completion bash`" + ` prints the completion of a shell; zsh, fish and PowerShell are there too. Names of clusters and profiles
are completed live. The hub is asked for two seconds at most, and what goes wrong is no name.

## Clusters: yours, and the hub's records

` + "`culvert clusters list`, `get` and `watch`" + ` show the clusters that you may reach. The hub's own records, with all clusters that
have joined, wait or are revoked, and with certificates, are for its admins: ` + "`--admin`" + ` asks the hub that you are logged in at, and
` + "`--state`" + ` the one that runs on this machine, by a socket for the hub's user and root.
`

// reference is cli.md.
func reference(found map[string]command) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, m := range exitCode.FindAllStringSubmatch(built.exitCodes, -1) {
		fmt.Fprintf(&b, "| %s | %s |\n", m[1], m[2])
	}
	b.WriteString(referencePlugin)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !strings.HasPrefix(name+" ", "culvert ") {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s```\n", name, found[name].help)
	}
	return b.String()
}

var exitCode = regexp.MustCompile(`(?m)^ +(\d+)  (.+)$`)

var example = regexp.MustCompile(`(?ms)^Examples:\n(.*?)\n\n`)

func TestReference(t *testing.T) {
	found := commands(t)
	t.Run("cli.md is what the commands say", func(t *testing.T) {
		want := reference(found)
		if *update {
			if err := os.WriteFile("cli.md", []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, "cli.md") != want {
			t.Error("docs/cli.md is not what the commands say: run make generate")
		}
	})
	t.Run("every command has examples, and they use what exists", func(t *testing.T) {
		for name, c := range found {
			if !strings.HasPrefix(name+" ", "culvert ") {
				continue
			}
			m := example.FindStringSubmatch(c.help)
			if m == nil {
				t.Errorf("%s has none", name)
				continue
			}
			for _, line := range commandLines("```sh\n" + strings.ReplaceAll(m[1], "\n  ", "\n") + "\n```\n") {
				if err := checkLine(line, found, ""); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
	})
	t.Run("every profile field and variable is documented", func(t *testing.T) {
		for _, name := range []string{"CULVERT_HUB", "CULVERT_HUB_CA", "CULVERT_TOKEN", "CULVERT_TOKEN_FILE", "CULVERT_TOKEN_COMMAND", "CULVERT_CLIENT_CERT", "CULVERT_CLIENT_KEY", "CULVERT_PROFILE", "CULVERT_CONFIG"} {
			if !strings.Contains(referenceHead, "`"+name+"`") && !strings.Contains(referenceHead, name) {
				t.Errorf("%s is not documented", name)
			}
		}
	})
}
