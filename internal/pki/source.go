package pki

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Source says where a certificate and its key are. Every text, in a file or not,
// is PEM or the base64 of PEM.
type Source struct {
	// CertFile holds the certificate, the peer's own first and the ones that signed
	// it after it, and KeyFile its key. Without KeyFile, CertFile holds the key as
	// well, before or after.
	CertFile, KeyFile string
	// CAFile holds what clients have to trust for this certificate; empty when that
	// is not known, or the system's CAs.
	CAFile string
	// Dir is a folder with tls.crt, tls.key and, where it is there, ca.crt, as
	// cert-manager and Secrets of Kubernetes have them. It stands for the three
	// above.
	Dir string
	// CertData, KeyData and CAData are the texts themselves, in place of files.
	// They stay as they are. Without KeyData, CertData holds the key as well.
	CertData, KeyData, CAData string
	// Names are those that the certificate of a server has to be good for, as in
	// [Authority.IssueServing]; nil when any will do.
	Names []string
}

// parts are the pieces of a source, each a file or a text.
type parts struct {
	cert, key, ca part
	passphrase    part
}

// part is the index of a file in what is followed, or a text.
type part struct {
	file int // -1 when it is not a file
	name string
	text []byte
}

func (p part) given() bool { return p.file >= 0 || p.text != nil }

// input returns what a part holds.
func (p part) input(files []input) input {
	if p.file >= 0 {
		return files[p.file]
	}
	return input{path: p.name, data: p.text}
}

func (s Source) parts(o options) (parts, []file, error) {
	if err := o.check(); err != nil {
		return parts{}, nil, err
	}
	var files []file
	add := func(path string, optional bool) part {
		for i, f := range files {
			if f.path == path {
				return part{file: i}
			}
		}
		files = append(files, file{path, optional})
		return part{file: len(files) - 1}
	}
	text := func(name, text string) part {
		if text == "" {
			return part{file: -1}
		}
		return part{file: -1, name: name, text: []byte(text)}
	}
	p := parts{ca: part{file: -1}, passphrase: part{file: -1}}
	ways := 0
	for _, given := range []bool{s.Dir != "", s.CertFile != "" || s.KeyFile != "", s.CertData != "" || s.KeyData != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return p, nil, errors.New("no certificate given: want a file, a folder with tls.crt and tls.key, or its text")
	case ways > 1:
		return p, nil, errors.New("the certificate is given more than once: want files, a folder or a text, and one of them only")
	case s.CAFile != "" && s.CAData != "" || s.Dir != "" && s.CAFile != "":
		return p, nil, errors.New("the CA is given more than once: want a file, a text or ca.crt in the folder")
	case s.Dir != "":
		p.cert, p.key = add(filepath.Join(s.Dir, "tls.crt"), false), add(filepath.Join(s.Dir, "tls.key"), false)
		if s.CAData == "" {
			p.ca = add(filepath.Join(s.Dir, "ca.crt"), true)
		}
	case s.KeyFile != "" && s.CertFile == "":
		return p, nil, fmt.Errorf("%s: a key file without a certificate file", s.KeyFile)
	case s.KeyData != "" && s.CertData == "":
		return p, nil, errors.New("a key without a certificate")
	case s.CertData != "":
		p.cert, p.key = text("the given certificate", s.CertData), text("the given key", s.KeyData)
		if s.KeyData == "" {
			p.key = p.cert
		}
	default:
		p.cert = add(s.CertFile, false)
		p.key = p.cert
		if s.KeyFile != "" {
			p.key = add(s.KeyFile, false)
		}
	}
	if s.CAFile != "" {
		p.ca = add(s.CAFile, false)
	}
	if s.CAData != "" {
		p.ca = text("the given CA", s.CAData)
	}
	if o.passphraseFile != "" {
		p.passphrase = add(o.passphraseFile, false)
	}
	return p, files, nil
}
