package kube

import (
	"encoding/json"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientauthentication "k8s.io/client-go/pkg/apis/clientauthentication/v1"

	"github.com/culvertdev/culvert/internal/credential"
)

// APIVersion is that of the answers of an exec credential plugin
// (https://kubernetes.io/docs/reference/config-api/client-authentication.v1/).
const APIVersion = "client.authentication.k8s.io/v1"

// EnvironmentInfo is the variable in which a client tells its plugin what it wants.
const EnvironmentInfo = "KUBERNETES_EXEC_INFO"

// CheckInfo refuses a client that wants another version of the answer; empty is a
// person who looks.
func CheckInfo(info string) error {
	if info == "" {
		return nil
	}
	var asked metav1.TypeMeta
	if err := json.Unmarshal([]byte(info), &asked); err != nil {
		return fmt.Errorf("%s: not an ExecCredential: %w", EnvironmentInfo, err)
	}
	if asked.APIVersion != APIVersion || asked.Kind != "ExecCredential" {
		return fmt.Errorf("%s: the client wants %.64q, %.64q; set apiVersion: %s in the exec section of its kubeconfig",
			EnvironmentInfo, asked.APIVersion, asked.Kind, APIVersion)
	}
	return nil
}

// Write prints a token as a client wants it. The client keeps it until it would be
// renewed here, so that it asks again in time.
func Write(w io.Writer, token credential.Token) error {
	out := clientauthentication.ExecCredential{
		TypeMeta: metav1.TypeMeta{APIVersion: APIVersion, Kind: "ExecCredential"},
		Status:   &clientauthentication.ExecCredentialStatus{Token: token.Value},
	}
	if !token.Expires.IsZero() {
		until := metav1.NewTime(token.Fresh())
		out.Status.ExpirationTimestamp = &until
	}
	text, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("print the credential: %w", err)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}
