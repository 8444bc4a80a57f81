package upstream

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// anything is the part of a rule that matches all.
const anything = "*"

// ServiceRule allows services. Namespace and Name are names or "*"; Port is a
// number, a name, or "*" or empty for all ports.
type ServiceRule struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      string `json:"port,omitempty"`
}

// ParseServiceRule parses "NS/NAME[:PORT]", each of which may be "*".
func ParseServiceRule(s string) (ServiceRule, error) {
	namespace, rest, ok := strings.Cut(s, "/")
	if !ok {
		return ServiceRule{}, fmt.Errorf("service rule %q: want NAMESPACE/NAME[:PORT]", s)
	}
	name, port, hasPort := strings.Cut(rest, ":")
	rule := ServiceRule{Namespace: namespace, Name: name, Port: port}
	if hasPort && port == "" {
		return ServiceRule{}, fmt.Errorf("service rule %q: empty port, leave out the ':' for all ports", s)
	}
	if err := rule.Validate(); err != nil {
		return ServiceRule{}, fmt.Errorf("service rule %q: %w", s, err)
	}
	return rule, nil
}

// Validate reports what could never match a target.
func (r ServiceRule) Validate() error {
	example := wire.Service(orExample(r.Namespace), orExample(r.Name), orExample(r.Port), "https")
	if r.Namespace == "" || r.Name == "" {
		return errors.New("namespace and name are required, \"*\" matches all")
	}
	if r.Port == "" {
		example.Port = ""
	}
	return cause(route.CheckTarget(example))
}

func orExample(s string) string {
	if s == anything {
		return "x"
	}
	return s
}

// cause takes the hop off an error about configuration.
func cause(err error) error {
	if f := fault.As(err); f != nil {
		return f.Err
	}
	return err
}

// matches tells whether the rule allows a service whose port has the number; 0 is
// not known yet, and a rule by number may then match.
func (r ServiceRule) matches(t wire.Target, number uint16) bool {
	if r.Namespace != anything && r.Namespace != t.Namespace || r.Name != anything && r.Name != t.Name {
		return false
	}
	switch {
	case r.Port == "" || r.Port == anything:
		return true
	case !isNumber(r.Port):
		return r.Port == t.Port
	case number == 0:
		return true
	default:
		return r.Port == strconv.Itoa(int(number))
	}
}

// String returns the rule as it is written in --allow-service.
func (r ServiceRule) String() string {
	s := r.Namespace + "/" + r.Name
	if r.Port != "" {
		s += ":" + r.Port
	}
	return s
}

// AddressRule allows raw TCP addresses. Host is a name or an IP address; Port is
// a number or "*".
type AddressRule struct {
	Host string `json:"host"`
	Port string `json:"port"`
}

// ParseAddressRule parses "HOST:PORT"; PORT may be "*".
func ParseAddressRule(s string) (AddressRule, error) {
	host, isAny := strings.CutSuffix(s, ":"+anything)
	if isAny {
		s = host + ":1"
	}
	target, err := route.ParseAddress(s)
	if err != nil {
		return AddressRule{}, fmt.Errorf("address rule: %w", err)
	}
	rule := AddressRule{Host: target.Host, Port: anything}
	if !isAny {
		rule.Port = strconv.Itoa(int(target.PortNumber))
	}
	return rule, nil
}

// Validate reports what could never match a target.
func (r AddressRule) Validate() error {
	port := uint64(1)
	if r.Port != anything {
		var err error
		if port, err = strconv.ParseUint(r.Port, 10, 16); err != nil || strconv.FormatUint(port, 10) != r.Port {
			return fmt.Errorf("port: %q, want a number or \"*\"", r.Port)
		}
	}
	return cause(route.CheckTarget(wire.Address(r.Host, uint16(port))))
}

func (r AddressRule) matches(t wire.Target) bool {
	return r.Host == t.Host && (r.Port == anything || r.Port == strconv.Itoa(int(t.PortNumber)))
}

// String returns the rule as it is written in --allow-address.
func (r AddressRule) String() string { return net.JoinHostPort(r.Host, r.Port) }

// isNumber tells the number of a checked port from its name.
func isNumber(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}
