package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// portRange is first to last, both included.
type portRange struct{ first, last uint16 }

var portSets = map[string][]portRange{
	"ssl":      {{443, 443}},
	"safe":     {{80, 80}, {21, 21}, {443, 443}, {70, 70}, {210, 210}, {280, 280}, {488, 488}, {591, 591}, {777, 777}, {1025, 65535}},
	"consoles": {{5900, 6923}},
}

// PortSets returns the names that stand for sets of ports in [TCPRule.Ports],
// sorted: "ssl" is 443, "consoles" 5900-6923, and "safe" is 21, 70, 80, 210, 280,
// 443, 488, 591, 777 and everything from 1025. "ssl" and "safe" are what CONNECT
// proxies are commonly configured with.
func PortSets() []string { return slices.Sorted(maps.Keys(portSets)) }

// Ports is a set of ports. The zero value is empty. It is safe for concurrent use.
type Ports struct{ ranges []portRange }

// ParsePorts returns the union of what texts name, each in the form of
// [TCPRule.Ports]: a number, a range as 5900-6923, "*", or one of [PortSets]. The
// error has every text that is none of these, with its index.
func ParsePorts(texts []string) (Ports, error) {
	var all Ports
	var problems []error
	for i, text := range texts {
		ranges, err := parsePorts(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("[%d]: %w", i, err))
		}
		all.ranges = append(all.ranges, ranges...)
	}
	if err := errors.Join(problems...); err != nil {
		return Ports{}, err
	}
	return all, nil
}

// Contains reports whether port is in the set.
func (p Ports) Contains(port uint16) bool { return inPorts(p.ranges, port) }

// String returns the ranges as they are written in a policy, joined by commas.
func (p Ports) String() string {
	texts := make([]string, 0, len(p.ranges))
	for _, r := range p.ranges {
		text := strconv.Itoa(int(r.first))
		if r.last != r.first {
			text += "-" + strconv.Itoa(int(r.last))
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ",")
}

func parsePorts(text string) ([]portRange, error) {
	if text == "*" {
		return []portRange{{1, 65535}}, nil
	}
	if set, ok := portSets[text]; ok {
		return set, nil
	}
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err1 := parsePort(from)
	last, err2 := parsePort(to)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%q, want a number, a range as 5900-6923, \"*\", or one of %s", text, strings.Join(PortSets(), ", "))
	}
	if first > last {
		return nil, fmt.Errorf("%q is a range that ends before it starts", text)
	}
	return []portRange{{first, last}}, nil
}

// parsePort reads a port in the one spelling that a request has it in.
func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%q is not a port between 1 and 65535", text)
	}
	return uint16(n), nil
}

func inPorts(ranges []portRange, port uint16) bool {
	for _, r := range ranges {
		if r.first <= port && port <= r.last {
			return true
		}
	}
	return false
}
