package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	"k8s.io/apiserver/pkg/authentication/user"
)

// staticTokens is the token file authenticator of k8s.io/apiserver over digests:
// the table does not hold a token, and the time of a lookup does not depend on
// how much of a token was guessed.
type staticTokens struct {
	table *tokenfile.TokenAuthenticator
}

// AuthenticateToken implements authenticator.Token. It never returns an error.
func (s *staticTokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return s.table.AuthenticateToken(ctx, digest(token))
}

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// parseTokenFile is readTokenFile of bytes.
func parseTokenFile(data []byte) (map[string]*user.DefaultInfo, error) {
	return readTokenFile(bytes.NewReader(data))
}

// readTokenFile returns the users by the digest of their token, or every bad
// line. kube-apiserver only warns of empty and repeated tokens, and lets the last
// line win; here they are errors, since one of two people would be the other.
func readTokenFile(r io.Reader) (map[string]*user.DefaultInfo, error) {
	reader := csv.NewReader(r)
	reader.FieldsPerRecord = -1
	users := map[string]*user.DefaultInfo{}
	lines := map[string]int{}
	var problems []error
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// A csv.ParseError has line and column, and nothing of the content.
			problems = append(problems, err)
			break
		}
		line, _ := reader.FieldPos(0)
		info, err := tokenRecord(record)
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: %w", line, err))
			continue
		}
		key := digest(record[0])
		if first, repeated := lines[key]; repeated {
			problems = append(problems, fmt.Errorf("line %d: the token is that of line %d: give each line its own", line, first))
			continue
		}
		lines[key], users[key] = line, info
	}
	if len(users) == 0 && len(problems) == 0 {
		return nil, errors.New("holds no tokens: add a line token,user,uid,\"group1,group2\"")
	}
	return users, errors.Join(problems...)
}

func tokenRecord(record []string) (*user.DefaultInfo, error) {
	if len(record) < 3 || len(record) > 4 {
		return nil, fmt.Errorf("has %d columns: write token,user,uid,\"group1,group2\"", len(record))
	}
	if record[0] == "" {
		return nil, errors.New("the token is empty: set it or remove the line")
	}
	if reason := malformedToken(record[0]); reason != "" {
		return nil, errors.New(reason)
	}
	info := &user.DefaultInfo{Name: record[1], UID: record[2]}
	if len(record) == 4 && record[3] != "" {
		info.Groups = strings.Split(record[3], ",")
	}
	for _, group := range info.Groups {
		if strings.TrimSpace(group) != group || group == "" {
			return nil, fmt.Errorf("group %q is empty or has a space at an end: write \"group1,group2\"", group)
		}
	}
	if reason := refusedUser(info); reason != "" {
		return nil, errors.New(reason)
	}
	return info, nil
}
