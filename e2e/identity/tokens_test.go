package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// expired returns a token of a service account of a cluster as its API server
// would sign it, but for a time that is over: the API server itself gives none
// for less than ten minutes. like is a good token of it.
func expired(c *testbed.Cluster, like string) (string, error) {
	token, err := jwt.ParseSigned(like, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", err
	}
	all := map[string]any{}
	if err := token.UnsafeClaimsWithoutVerification(&all); err != nil {
		return "", err
	}
	for claim, at := range map[string]time.Duration{"iat": -time.Hour, "nbf": -time.Hour, "exp": -time.Minute} {
		all[claim] = time.Now().Add(at).Unix()
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, "sa.key"))
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("sa.key is not PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return "", err
	}
	return signLike(key, token.Headers[0].KeyID, all)
}

func signLike(key *ecdsa.PrivateKey, id string, all map[string]any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		return "", err
	}
	signed, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		return "", err
	}
	the.plant("a token that has expired", signed)
	return signed, nil
}

// serviceAccount makes one more service account of a cluster with a fresh token.
func serviceAccount(ctx context.Context, c *testbed.Cluster, namespace, name string, flags ...string) (string, error) {
	err := c.Apply(ctx, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\n", name, namespace))
	if err != nil {
		return "", err
	}
	token, err := c.CreateToken(ctx, namespace, name, flags...)
	the.plant("a token of "+name, token)
	return token, err
}
