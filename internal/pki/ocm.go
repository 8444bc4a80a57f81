package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/route"
)

// What the default subject of an addon's agent is made of in Open Cluster
// Management: DefaultUser and DefaultGroups of its addon framework
// (https://github.com/open-cluster-management-io/addon-framework/blob/v1.0.0/pkg/agent/inteface.go).
const (
	ocmPrefix        = "system:open-cluster-management:"
	ocmCluster       = "cluster"
	ocmAddon         = "addon"
	ocmAgent         = "agent"
	ocmAuthenticated = "system:authenticated"
	// ocmParts is how many parts the user has between its colons.
	ocmParts = 6
)

// Attributes of a subject, X.520 (RFC 5280 appendix A.1).
func oidCommonName() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{2, 5, 4, 3} }
func oidOrganization() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 4, 10} }

// OCMAddon is the rule by which Open Cluster Management names the agents of one
// addon in the certificates that it has signed for them.
type OCMAddon struct {
	// Name is the addon's. Agents of another addon are nobody, though their
	// certificates may come from the same CA.
	Name string
}

// Check reports whether Name can be that of an addon.
func (r OCMAddon) Check() error {
	if err := checkDNSName("addon", r.Name); err != nil {
		return err
	}
	return nil
}

// ClusterOf returns the cluster that the subject of a certificate names. The
// subject has to be OCM's default one to the last attribute: the common name
//
//	system:open-cluster-management:cluster:<cluster>:addon:<addon>:agent:<agent>
//
// once, and, in any order and each once, the organizations
//
//	system:open-cluster-management:cluster:<cluster>:addon:<addon>
//	system:open-cluster-management:addon:<addon>
//	system:authenticated
//
// of one cluster and of the addon of the rule. A subject with anything else in it,
// a part twice, or in an encoding that has several spellings of one name is an
// error that says what is wrong. Subject alternative names are never read.
//
// It judges the name alone: who signed the certificate is for [VerifyAgents].
func (r OCMAddon) ClusterOf(cert *x509.Certificate) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	user, groups, err := readSubject(cert.RawSubject)
	if err != nil {
		return "", fmt.Errorf("subject: %w", err)
	}
	cluster, err := r.parseUser(user)
	if err != nil {
		return "", fmt.Errorf("subject's common name %s: %w", quote(user), err)
	}
	want := []string{
		ocmPrefix + ocmAddon + ":" + r.Name,
		ocmPrefix + ocmCluster + ":" + cluster + ":" + ocmAddon + ":" + r.Name,
		ocmAuthenticated,
	}
	slices.Sort(groups)
	slices.Sort(want)
	if !slices.Equal(groups, want) {
		return "", fmt.Errorf("subject's organizations are %s, want %s, each once", quoteAll(groups), quoteAll(want))
	}
	return cluster, nil
}

// parseUser takes the cluster from the common name.
func (r OCMAddon) parseUser(user string) (string, error) {
	form := ocmPrefix + "cluster:<cluster>:addon:" + r.Name + ":agent:<agent>"
	rest, ok := strings.CutPrefix(user, ocmPrefix)
	parts := strings.Split(rest, ":")
	if !ok || len(parts) != ocmParts || parts[0] != ocmCluster || parts[2] != ocmAddon || parts[4] != ocmAgent {
		return "", fmt.Errorf("want %s", form)
	}
	cluster, addon, agent := parts[1], parts[3], parts[5]
	if addon != r.Name {
		return "", fmt.Errorf("it is of the addon %s, want %s", quote(addon), r.Name)
	}
	// OCM allows dots in the names of clusters; the hub has no such cluster.
	if err := route.CheckCluster(cluster); err != nil {
		return "", err
	}
	if err := checkOCMAgent(agent); err != nil {
		return "", err
	}
	return cluster, nil
}

// checkOCMAgent accepts what OCM calls an agent: a UUID, some letters and digits by
// chance, which may be digits alone, or what an addon has set.
func checkOCMAgent(agent string) error {
	if err := checkDNSName("agent", "a."+agent+".a"); agent == "" || err != nil {
		return fmt.Errorf("agent: %s, want labels of lower-case letters, digits and '-', joined by dots", quote(agent))
	}
	return nil
}

// quoteAll bounds what of a peer's list gets into an error.
func quoteAll(values []string) string {
	const most = 5
	var quoted []string
	for _, value := range values[:min(len(values), most)] {
		quoted = append(quoted, quote(value))
	}
	if over := len(values) - most; over > 0 {
		quoted = append(quoted, fmt.Sprintf("and %d others", over))
	}
	if len(quoted) == 0 {
		return "none"
	}
	return strings.Join(quoted, ", ")
}

// subjectAttribute is AttributeTypeAndValue of RFC 5280 section 4.1.2.4. crypto/x509
// would accept more encodings of the value than one.
type subjectAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// subjectSET is a RelativeDistinguishedName; encoding/asn1 takes the end of the
// type's name for a set.
type subjectSET []subjectAttribute

// readSubject returns the common name and the organizations of a subject which has
// nothing else.
func readSubject(der []byte) (commonName string, organizations []string, err error) {
	var sets []subjectSET
	rest, err := asn1.Unmarshal(der, &sets)
	if err != nil {
		return "", nil, fmt.Errorf("malformed: %w", err)
	}
	if len(rest) > 0 {
		return "", nil, errors.New("malformed: data after the end")
	}
	names := 0
	for _, set := range sets {
		for _, attribute := range set {
			text, err := subjectText(attribute.Value)
			if err != nil {
				return "", nil, err
			}
			switch {
			case attribute.Type.Equal(oidCommonName()):
				commonName = text
				names++
			case attribute.Type.Equal(oidOrganization()):
				organizations = append(organizations, text)
			default:
				return "", nil, fmt.Errorf("attribute %s is not of an addon's subject, which has a common name and organizations alone", attribute.Type)
			}
		}
	}
	if names != 1 {
		return "", nil, fmt.Errorf("%d common names, want one", names)
	}
	return commonName, organizations, nil
}

// subjectText returns the text of an attribute. Only the two encodings are taken
// that RFC 5280 section 4.1.2.4 has for new certificates, and of them only ASCII.
func subjectText(value asn1.RawValue) (string, error) {
	if value.Class != asn1.ClassUniversal || value.IsCompound || value.Tag != asn1.TagUTF8String && value.Tag != asn1.TagPrintableString {
		return "", errors.New("an attribute is neither a UTF8String nor a PrintableString")
	}
	for _, c := range value.Bytes {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("byte %#02x is not allowed", c)
		}
	}
	return string(value.Bytes), nil
}
