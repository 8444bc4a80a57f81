package service

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	start := time.Now()
	l := newLimiter(time.Second, 3)
	for i := range 3 {
		if wait := l.take("a", start); wait != 0 {
			t.Errorf("turn %d waits %v", i, wait)
		}
	}
	if wait := l.take("a", start); wait != time.Second {
		t.Errorf("the fourth waits %v", wait)
	}
	if wait := l.take("b", start); wait != 0 {
		t.Errorf("another key waits %v", wait)
	}
	if wait := l.take("a", start.Add(time.Second)); wait != 0 {
		t.Errorf("a second later: %v", wait)
	}
	for i := range 2 * maxSources {
		l.take(fmt.Sprint(i), start)
	}
	if len(l.next) > maxSources+1 {
		t.Errorf("%d keys are remembered", len(l.next))
	}
	if l.take("new", start) == 0 {
		t.Error("beyond the bound new keys share one")
	}
	if wait := l.take("new", start.Add(time.Minute)); wait != 0 || len(l.next) > 2 {
		t.Errorf("a minute later: %v, %d keys", wait, len(l.next))
	}
}

func TestNetworkOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:443":               "192.0.2.1",
		"[::ffff:192.0.2.1]:443":      "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1":    "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":            "fe80::/64",
		"pipe":                        "",
		"":                            "",
		"[2001:db8:1:2:ffff::1]:9999": "2001:db8:1:2::/64",
	} {
		if got := networkOf(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}
