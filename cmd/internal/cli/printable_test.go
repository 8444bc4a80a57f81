package cli

import "testing"

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"edge-1 (größer), Ελλάδα ✓": "edge-1 (größer), Ελλάδα ✓",
		"a\x1b[2Jb\x07":             "a?[2Jb?",
		"a\u009b2Jb\x7f":            "a?2Jb?",
		"two\nlines\r\tand more":    "two?lines??and more",
		"\u202etxt.exe\u200b\u2028": "?txt.exe??",
		"\xff\xfe":                  "\ufffd\ufffd",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := printableLines("two\nlines\x1b]0;title\x07\r"); got != "two\nlines?]0;title??" {
		t.Errorf("%q", got)
	}
}
