package main // pods lists the pods of two clusters over one connection
import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/kube"
)

func main() {
	c := must(client.New(client.Config{})) // the hub of CULVERT_HUB, or of culvert login
	defer c.Close()
	for _, cluster := range []string{"edge-1", "edge-2"} {
		api := kubernetes.NewForConfigOrDie(must(kube.RESTConfig(c, cluster)))
		for _, pod := range must(api.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})).Items {
			fmt.Println(cluster, pod.Namespace, pod.Name)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
