package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Health is the state of one thing that a process keeps current by itself, such
// as a certificate or a file that it follows. It is plain data, and holds
// nothing secret: it is shown to whoever asks the process.
type Health struct {
	// Name says what it is, the same at every time: "serving certificate",
	// "agents CA", "token file".
	Name string
	// File is where it is read from; empty where it has none.
	File string
	// Subject says whose certificate it is; empty for what is no certificate.
	Subject string
	// NotAfter is when it expires; zero for what does not.
	NotAfter time.Time
	// LastError is why the newest content of the file is not in use; empty when
	// it is. What was read before stays in force.
	LastError string
	// Failures counts since the start how often changed content could not be
	// used. It never falls.
	Failures uint64
	// Warnings are what is not as it should be about what is in force, for example
	// a key that others can read.
	Warnings []string
}

// expiringSoon is when a line for people warns of the end.
const expiringSoon = 24 * time.Hour

// Line describes h at a time in one line without an end of line, in the form of
// the verbose checks of Kubernetes: "[+]" when all is well, "[!]" for what needs
// somebody's care and keeps nobody from being served.
func (h Health) Line(now time.Time) string {
	var says []string
	mark := "[+]"
	if h.Subject != "" {
		says = append(says, h.Subject)
	}
	if len(h.Warnings) > 0 {
		mark = "[!]"
	}
	switch {
	case h.NotAfter.IsZero():
	case now.After(h.NotAfter):
		mark = "[!]"
		says = append(says, "EXPIRED at "+timestamp(h.NotAfter))
	case h.NotAfter.Sub(now) < expiringSoon:
		says = append(says, fmt.Sprintf("expires at %s, in %v", timestamp(h.NotAfter), h.NotAfter.Sub(now).Round(time.Second)))
	default:
		says = append(says, "expires at "+timestamp(h.NotAfter))
	}
	for _, warning := range h.Warnings {
		says = append(says, "WARNING: "+warning)
	}
	state := "ok"
	if h.LastError != "" {
		mark = "[!]"
		state = "WARNING: the newest content cannot be used, the one before stays in force: " + oneLine(h.LastError)
	}
	line := mark + h.Name + " " + state
	if len(says) > 0 {
		line += ": " + oneLine(strings.Join(says, ", "))
	}
	return line
}

// oneLine keeps names out of certificates, and errors of several lines, from
// making lines of their own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Lines is [Health.Line] for each of all, by name, each with an end of line.
func Lines(all []Health, now time.Time) string {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Health) int { return strings.Compare(a.Name, b.Name) })
	var out strings.Builder
	for _, h := range all {
		out.WriteString(h.Line(now))
		out.WriteByte('\n')
	}
	return out.String()
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
