package policy

// verdict is what holding a rule against a request gave: one of the ways to
// match, or what did not.
type verdict uint8

const (
	// A rule can match by what is known, or, when it denies, by what may be.
	matched verdict = iota
	matchedUnknownUser
	matchedSubresource
	matchedAllNamespaces
	matchedAllNames
	matchedUnknownPort
	matchedUnknownAddress
	matchedSealed

	// The further down, the more of the rule did match.
	missKind
	missCluster
	missLabels
	missSubject
	missSealed
	missResource // a rule for resources and a request for another path, or the reverse
	missVerb
	missPath
	missGroup
	missName
	missNamespace
	missResourceName
	missHost
	missService
	missScheme
	missPort
	missPortUnknown
	missAddress
	missAddressUnknown
	missSpecial
	missPart
	missEverything
)

func (v verdict) matches() bool { return v < missKind }

// why tells a caller who is denied what is not obvious.
func (v verdict) why() string {
	if !v.matches() || v == matched {
		return ""
	}
	return ": " + verdictText[v]
}

var verdictText = map[verdict]string{
	matched:               "matches",
	matchedUnknownUser:    "it is for some callers, and who asks is not known here",
	matchedSubresource:    "it includes the subresources of what it names",
	matchedAllNamespaces:  "a request for all namespaces includes those that it names",
	matchedAllNames:       "a request without a name includes those that it names",
	matchedUnknownPort:    "the port may be the one that it names, ask for it by number",
	matchedUnknownAddress: "the name may lead to an address that it names, which is not known before it is resolved",

	matchedSealed: "TLS to the API server may carry what it names, which nobody on the way sees",

	missKind:           "is not about this kind of request",
	missCluster:        "is for other clusters",
	missLabels:         "is for clusters with other labels",
	missSubject:        "is for other users and groups",
	missSealed:         "is for a part of the Kubernetes API, and what TLS to the API server carries is not known",
	missResource:       "is not for resources, or for resources only",
	missVerb:           "has other verbs",
	missPath:           "has other nonResourceURLs",
	missGroup:          "has other apiGroups",
	missResourceName:   "has other resources",
	missNamespace:      "has other namespaces",
	missName:           "has other names",
	missHost:           "has other hosts",
	missService:        "has other services",
	missScheme:         "has another scheme",
	missPort:           "has other ports",
	missAddress:        "has other cidrs",
	missSpecial:        "does not list this special address: an entry of cidrs has to lie inside of its range",
	missPortUnknown:    "is for a number, and that of this port is not known here",
	missAddressUnknown: "is for cidrs, and the addresses of this name are not known here",
	missPart:           "has others to impersonate",
	missEverything:     "leaves some targets",
}
