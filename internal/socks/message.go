package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
)

// The bytes of RFC 1928 and RFC 1929.
const (
	version5     = 0x05
	versionLogin = 0x01

	methodNone     = 0x00
	methodPassword = 0x02
	methodRefused  = 0xff

	commandConnect = 0x01

	addressIPv4 = 0x01
	addressName = 0x03
	addressIPv6 = 0x04
)

// Reply is the field REP of RFC 1928 section 6.
type Reply byte

// The replies.
const (
	Succeeded           Reply = 0x00
	GeneralFailure      Reply = 0x01
	NotAllowed          Reply = 0x02
	NetworkUnreachable  Reply = 0x03
	HostUnreachable     Reply = 0x04
	ConnectionRefused   Reply = 0x05
	TTLExpired          Reply = 0x06
	CommandNotSupported Reply = 0x07
	AddressNotSupported Reply = 0x08
)

// Error is a request that is refused with a reply before anybody was dialled.
type Error struct {
	Reply Reply
	Err   error
}

// Error returns the reason.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

func refuse(r Reply, format string, args ...any) error {
	return &Error{Reply: r, Err: fmt.Errorf(format, args...)}
}

// errHTTP is for browsers and tools that take the port for an HTTP proxy's.
var errHTTP = errors.New("the peer speaks HTTP, and this is a SOCKS5 proxy: give it as socks5h://, in curl with --socks5-hostname")

// errMethods is for a peer that wants to prove who it is in a way that is not served.
var errMethods = errors.New("the peer offers no method of authentication that is served")

// readGreeting reads which methods of authentication the peer offers (section 3).
func readGreeting(r io.Reader) (methods []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the peer has left before it said anything: %w", err)
		}
		return nil, err
	}
	switch v := head[0]; {
	case v == version5:
	case v == 4:
		return nil, errors.New("the peer speaks SOCKS4, which has no names: give the proxy as socks5h://")
	case 'A' <= v && v <= 'Z':
		return nil, errHTTP
	default:
		return nil, fmt.Errorf("the peer does not speak SOCKS5: it begins with %#x", v)
	}
	methods = make([]byte, head[1])
	if _, err := io.ReadFull(r, methods); err != nil {
		return nil, fmt.Errorf("methods: %w", whole(err))
	}
	return methods, nil
}

// readLogin reads a user name and a password (RFC 1929 section 2). The password counts
// for nothing and is not kept.
func readLogin(r io.Reader) (user string, err error) {
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return "", fmt.Errorf("login: %w", whole(err))
	}
	if version[0] != versionLogin {
		return "", fmt.Errorf("login: version %#x, want 1", version[0])
	}
	name, err := readShort(r)
	if err != nil {
		return "", fmt.Errorf("user name: %w", err)
	}
	if _, err := readShort(r); err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return string(name), nil
}

// readRequest reads what the peer wants (section 4): the address of a CONNECT, as host
// and port. An [*Error] is for a request that is understood and not served.
func readRequest(r io.Reader) (host string, port uint16, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", 0, fmt.Errorf("request: %w", whole(err))
	}
	if head[0] != version5 {
		return "", 0, fmt.Errorf("request: version %#x, want 5", head[0])
	}
	switch head[3] {
	case addressIPv4:
		var a [4]byte
		_, err = io.ReadFull(r, a[:])
		host = netip.AddrFrom4(a).String()
	case addressIPv6:
		var a [16]byte
		_, err = io.ReadFull(r, a[:])
		host = netip.AddrFrom16(a).Unmap().String()
	case addressName:
		var name []byte
		name, err = readShort(r)
		host = string(name)
	default:
		return "", 0, refuse(AddressNotSupported, "request: an address of type %#x, want IPv4, IPv6 or a name", head[3])
	}
	if err != nil {
		return "", 0, fmt.Errorf("address: %w", whole(err))
	}
	var p [2]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return "", 0, fmt.Errorf("port: %w", whole(err))
	}
	if head[1] != commandConnect {
		return "", 0, refuse(CommandNotSupported, "request: command %s, only CONNECT is served", commandName(head[1]))
	}
	return host, binary.BigEndian.Uint16(p[:]), nil
}

func commandName(b byte) string {
	switch b {
	case 2:
		return "BIND"
	case 3:
		return "UDP ASSOCIATE"
	default:
		return strconv.Itoa(int(b))
	}
}

// readShort reads a field with its length in one byte.
func readShort(r io.Reader) ([]byte, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, whole(err)
	}
	text := make([]byte, n[0])
	_, err := io.ReadFull(r, text)
	return text, whole(err)
}

// whole makes an end within a message what it is.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// replyTo is the answer to a request (section 6). The bound address is that of a
// connection elsewhere, which means nothing here: zero, as RFC 1928 allows for.
func replyTo(r Reply) []byte {
	return []byte{version5, byte(r), 0, addressIPv4, 0, 0, 0, 0, 0, 0}
}
