package telemetry

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Settings are what an operator says about traces, the section "telemetry" of a
// configuration. The zero value leaves it to the environment.
type Settings struct {
	// OTLPEndpoint is where spans are sent with OTLP over HTTP: http:// or https://,
	// host, port and, where it is not /v1/traces, a path. Empty: what
	// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT says, and
	// without those no spans are made. Credentials belong into
	// OTEL_EXPORTER_OTLP_HEADERS, a CA bundle into OTEL_EXPORTER_OTLP_CERTIFICATE.
	OTLPEndpoint string `json:"otlpEndpoint,omitempty"`
	// Sampling is the share of traces that are recorded, 0 to 1, of those that no
	// caller has decided about. Nil: what OTEL_TRACES_SAMPLER says, by default all.
	Sampling *float64 `json:"sampling,omitempty"`
}

// Validate names each field that is wrong.
func (s *Settings) Validate() error {
	var problems []error
	if s.OTLPEndpoint != "" {
		if _, err := s.endpoint(); err != nil {
			problems = append(problems, err)
		}
	}
	if s.Sampling != nil && !(*s.Sampling >= 0 && *s.Sampling <= 1) {
		problems = append(problems, fmt.Errorf("telemetry.sampling: %v is not between 0 and 1", *s.Sampling))
	}
	return errors.Join(problems...)
}

// endpoint returns the URL of OTLPEndpoint. What is wrong with it is said without
// the value, which may hold what should not be in it.
func (s *Settings) endpoint() (string, error) {
	u, err := url.Parse(s.OTLPEndpoint)
	switch {
	case err != nil:
		return "", errors.New("telemetry.otlpEndpoint: not a URL; give one like http://collector:4318")
	case u.User != nil:
		return "", errors.New("telemetry.otlpEndpoint: has a credential in it; give that in OTEL_EXPORTER_OTLP_HEADERS")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.RawQuery != "", u.Fragment != "":
		return "", errors.New("telemetry.otlpEndpoint: http:// or https://, a host and a port are wanted, like http://collector:4318")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// wanted tells whether spans are to be made.
func (s *Settings) wanted() (bool, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	if s.OTLPEndpoint == "" {
		switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
		case "", "otlp":
		case "none":
			return false, nil
		default:
			return false, fmt.Errorf("OTEL_TRACES_EXPORTER=%s is not supported; use otlp or none", exporter)
		}
		if os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
			return os.Getenv("OTEL_TRACES_EXPORTER") == "otlp", nil
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch protocol := os.Getenv(name); protocol {
		case "":
			continue
		case "http/protobuf":
		default:
			return false, fmt.Errorf("%s=%s is not supported; use http/protobuf and the collector's port for HTTP", name, protocol)
		}
		break
	}
	return true, nil
}
