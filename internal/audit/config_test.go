package audit

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestValidate(t *testing.T) {
	second := metav1.Duration{Duration: time.Second}
	tiny := resource.MustParse("1k")
	for _, c := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"nothing", Config{}, nil},
		{"the defaults", Config{File: &FileConfig{Path: "x"}, Stdout: &StdoutConfig{}, Webhook: &WebhookConfig{URL: "https://x"}}, nil},
		{"sizes and times", Config{
			Interval: metav1.Duration{Duration: -1}, Queue: tiny,
			File: &FileConfig{MaxSize: tiny, MaxAge: second, WhenFull: "wait"},
			Webhook: &WebhookConfig{
				BatchSize: tiny, BatchWait: metav1.Duration{Duration: 1}, Timeout: metav1.Duration{Duration: -1},
				CertFile: "x", WhenFull: "Drop",
			},
		}, []string{
			"interval: -1ns is too short", "queue: 1k is too small: want 128Ki or more", "file.path: required", "file.maxSize: 1k is too small",
			"file.maxAge: 1s is too short", `file.whenFull: "wait": want "drop" or "block"`, "webhook.url: required",
			"webhook.batchSize: 1k is too small", "webhook.batchWait: 1ns is too short", "webhook.timeout: -1ns is too short",
			"webhook.certFile, webhook.keyFile: want both or neither", `webhook.whenFull: "Drop": want`,
		}},
		{"a queue that is too large", Config{Queue: resource.MustParse("1Gi")}, []string{"queue: 1Gi is too large: want 256Mi at most"}},
		{"stdout", Config{Stdout: &StdoutConfig{WhenFull: "no"}}, []string{`stdout.whenFull: "no"`}},
		{"clear text", Config{Webhook: &WebhookConfig{URL: "http://x"}}, []string{"webhook.url: want https://"}},
		{"no host", Config{Webhook: &WebhookConfig{URL: "https:x"}}, []string{"webhook.url: want https://"}},
		{"a fragment", Config{Webhook: &WebhookConfig{URL: "https://x#y"}}, []string{"webhook.url: want no fragment"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			if len(c.want) == 0 && err != nil || len(c.want) > 0 && err == nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in\n%v", want, err)
				}
			}
			if err != nil && len(strings.Split(err.Error(), "\n")) != len(c.want) {
				t.Errorf("there is more in\n%v", err)
			}
		})
	}
	t.Run("D7: a password in the URL is refused and not told", func(t *testing.T) {
		for _, u := range []string{"https://user:hunter2@x", "https://x\x7fhunter2"} {
			err := (&Config{Webhook: &WebhookConfig{URL: u}}).Validate()
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Error(err)
			}
		}
	})
	t.Run("a configuration file has the fields", func(t *testing.T) {
		var cfg Config
		err := yaml.UnmarshalStrict([]byte(`
file: {path: /var/log/culvert/audit.log, maxSize: 50Mi, maxAge: 720h, maxBackups: 5, whenFull: block}
stdout: {}
webhook: {url: "https://audit.example.com/culvert", caFile: ca.crt, tokenFile: token, batchSize: 1Mi, batchWait: 2s, timeout: 5s}
interval: 1m
queue: 8Mi
`), &cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := cfg.Validate(); err != nil || !cfg.Enabled() || cfg.Stdout == nil || cfg.File.MaxSize.Value() != 50<<20 || cfg.Interval.Duration != time.Minute {
			t.Errorf("%+v, %v", cfg, err)
		}
	})
}
