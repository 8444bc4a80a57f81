package identity

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// maxAuthenticationConfig bounds the file, in bytes.
const maxAuthenticationConfig = 1 << 20

// loadAuthentication reads an AuthenticationConfiguration with the decoder and the
// validation of k8s.io/apiserver, and refuses beyond them what a hub has no meaning
// for. An error has every problem with the path of its field.
func loadAuthentication(data []byte, compiler authenticationcel.Compiler) (*apiserver.AuthenticationConfiguration, error) {
	config, err := decodeAuthentication(data)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, problem := range validation.ValidateAuthenticationConfiguration(compiler, config, nil) {
		problems = append(problems, problem)
	}
	if config.Anonymous != nil && config.Anonymous.Enabled {
		problems = append(problems, errors.New("anonymous.enabled: the hub serves nobody without a name: remove it"))
	}
	for i, issuer := range config.JWT {
		if issuer.Issuer.EgressSelectorType != "" {
			problems = append(problems, fmt.Errorf("jwt[%d].issuer.egressSelectorType: a hub has no egress selector: remove it", i))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return config, nil
}

// decodeAuthentication accepts every version of the format, and no field that its
// version does not have.
func decodeAuthentication(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	if err := oneDocument(data); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	object, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	config, ok := object.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("is a %T: write an AuthenticationConfiguration of apiserver.config.k8s.io", object)
	}
	return config, nil
}

// oneDocument refuses a file of several YAML documents, of which the decoder would
// take the first and say nothing of the rest.
func oneDocument(data []byte) error {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for documents := 0; ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read YAML: %w", err)
		}
		if len(bytes.TrimSpace(document)) > 0 {
			documents++
		}
		if documents > 1 {
			return errors.New("has several YAML documents: write one AuthenticationConfiguration")
		}
	}
}
