package answer

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	typeJSON     = "application/json"
	typeProtobuf = runtime.ContentTypeProtobuf
)

// protobufMagic begins every object of Kubernetes in protobuf; a runtime.Unknown
// follows it
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding).
const protobufMagic = "k8s\x00"

// maxAccept bounds what is read of an Accept header, in bytes. Callers of
// Kubernetes send some hundred.
const maxAccept = 4 << 10

// encode returns status as r's Accept header wants it, as kube-apiserver would:
// parameters such as "as=Table" and "stream=watch" are for objects and not for a
// Status. What asks for neither JSON nor protobuf gets JSON.
func encode(r *http.Request, status *metav1.Status) (contentType string, body []byte, err error) {
	if wantsProtobuf(r) {
		body, err = marshalProtobuf(status)
		return typeProtobuf, body, err
	}
	body, err = json.Marshal(status)
	return typeJSON, body, err
}

func wantsProtobuf(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	if accept == "" || len(accept) > maxAccept {
		return false
	}
	return goautoneg.Negotiate(accept, []string{typeJSON, typeProtobuf}) == typeProtobuf
}

func marshalProtobuf(status *metav1.Status) ([]byte, error) {
	raw, err := status.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	unknown := runtime.Unknown{
		TypeMeta: runtime.TypeMeta{APIVersion: status.APIVersion, Kind: status.Kind},
		Raw:      raw,
	}
	envelope, err := unknown.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	return append([]byte(protobufMagic), envelope...), nil
}
