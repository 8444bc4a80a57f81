package profile

import (
	"errors"
	"fmt"
	"os"
)

// The variables that are a profile of their own.
const (
	EnvironmentHub          = "CULVERT_HUB"
	EnvironmentHubCA        = "CULVERT_HUB_CA"
	EnvironmentToken        = "CULVERT_TOKEN"
	EnvironmentTokenFile    = "CULVERT_TOKEN_FILE"
	EnvironmentTokenCommand = "CULVERT_TOKEN_COMMAND"
	EnvironmentClientCert   = "CULVERT_CLIENT_CERT"
	EnvironmentClientKey    = "CULVERT_CLIENT_KEY"
)

// FromEnvironment is the profile of the environment; false without CULVERT_HUB. A hub
// without a credential is one: the environment wins over the file as a whole.
func FromEnvironment() (Profile, bool, error) {
	hub := os.Getenv(EnvironmentHub)
	if hub == "" {
		return Profile{}, false, nil
	}
	base, err := CheckHub(hub)
	if err != nil {
		return Profile{}, true, fmt.Errorf("%s: %w", EnvironmentHub, err)
	}
	p, err := EnvironmentCredential(base)
	return p, true, err
}

// EnvironmentCredential is what the environment says, CULVERT_HUB apart, for a hub that is
// named otherwise.
func EnvironmentCredential(hub string) (Profile, error) {
	p := Profile{
		Hub: hub, HubCA: os.Getenv(EnvironmentHubCA),
		Token: os.Getenv(EnvironmentToken), TokenFile: os.Getenv(EnvironmentTokenFile), TokenCommand: os.Getenv(EnvironmentTokenCommand),
		CertFile: os.Getenv(EnvironmentClientCert), KeyFile: os.Getenv(EnvironmentClientKey),
	}
	if err := p.CheckCredential(); err != nil {
		return Profile{}, errors.New("CULVERT_TOKEN, CULVERT_TOKEN_FILE, CULVERT_TOKEN_COMMAND, CULVERT_CLIENT_CERT with CULVERT_CLIENT_KEY: give one of them")
	}
	return p, nil
}
