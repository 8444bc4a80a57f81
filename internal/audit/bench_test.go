package audit

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"
)

// typical is the event of a request as the hub fills it in.
func typical() *Event {
	return &Event{
		Stage: StageRequest, Start: time.Now(), RequestID: "GKCYQCFTBXTDKUGEUZ3ZRZWNAF",
		TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		User: Identity{
			Name: "system:serviceaccount:default:ci", UID: "0b1c1c5e-8f0e-4f3c-9a48-0c7a8a0d6a11",
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"},
		},
		Authentication: "token-review",
		ClusterUser: Identity{
			Name:   "cluster:hub:system:serviceaccount:default:ci",
			Groups: []string{"cluster:hub:system:serviceaccounts", "cluster:hub:system:serviceaccounts:default"},
		},
		Source: "192.0.2.7:51324", Hub: "hub-0", Cluster: "edge-1", Agent: "edge-1-6f9c", Target: "kubernetes",
		Method: "GET", Path: "/clusters/edge-1/api/v1/namespaces/default/pods", Verb: "list", APIVersion: "v1",
		Resource: "pods", Namespace: "default", Verdict: Allow, Rule: "default", Reason: "authenticated users reach the Kubernetes API",
		Status: 200, Sent: 48211, End: EndCompleted,
	}
}

// BenchmarkRecord is what a request pays. "file" is the rate that a disk takes.
func BenchmarkRecord(b *testing.B) {
	for name, cfg := range map[string]Config{
		"stream": {Stdout: &StdoutConfig{WhenFull: WhenFullBlock}},
		"file":   {File: &FileConfig{Path: filepath.Join(b.TempDir(), "audit.log"), WhenFull: WhenFullBlock}},
	} {
		b.Run(name, func(b *testing.B) {
			l, err := New(cfg, Options{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			e := typical()
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Admit(b.Context()); err != nil {
					b.Fatal(err)
				}
				l.Record(e)
			}
			b.StopTimer()
			if err := l.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e, now := typical(), time.Now()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = appendEvent(buf[:0], e, now)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkSession(b *testing.B) {
	l, err := New(Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}},
		Options{Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	e := typical()
	b.ReportAllocs()
	for b.Loop() {
		l.Begin(e, nil).End(nil)
	}
	b.StopTimer()
	if err := l.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
