package telemetry_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestLiveUnderLoad(t *testing.T) {
	t.Run("N11: requests come and go while somebody looks, and none is left", func(t *testing.T) {
		links, live := telemetry.NewLinks(), telemetry.NewLive()
		url := debugged(t, telemetry.DebugConfig{Links: links, Live: live})
		tel, metrics := scraped(t, telemetry.Config{Links: links})
		o := telemetry.Observer{Metrics: tel.Metrics(), Live: live}
		p := muxtest.New(t)
		remove := links.Add(telemetry.LinkInfo{Cluster: "edge"}, p.Dialler)
		var busy sync.WaitGroup
		for worker := range 4 {
			busy.Go(func() {
				for range 200 {
					seen, _ := o.Begin(request(t), finished{status: 200})
					seen.Route("edge", wire.KubernetesAPI())
					seen.User(fmt.Sprint("user-", worker))
					seen.End()
				}
			})
		}
		for range 10 {
			read(t, url+"/debug/requests")
			read(t, url+"/debug/sessions")
			get(t, metrics)
		}
		busy.Wait()
		remove()
		if got := read(t, url+"/debug/requests"); got["all"] != 0.0 {
			t.Errorf("left: %v", got)
		}
		has(t, metrics, `culvert_requests_total{cluster="edge",code="ok",hop="",kind="kubernetes",role="hub",status="200"} 800`)
	})
}

func TestManyLinks(t *testing.T) {
	t.Run("K10: links of clusters beyond the bound are counted together", func(t *testing.T) {
		links := telemetry.NewLinks()
		_, url := scraped(t, telemetry.Config{Links: links})
		p := muxtest.New(t)
		for i := range telemetry.MaxClusters + 10 {
			links.Add(telemetry.LinkInfo{Cluster: fmt.Sprint("cluster-", i)}, p.Dialler)
		}
		has(t, url, `culvert_links{cluster="_other"} 10`, `culvert_links{cluster="cluster-4999"} 1`)
	})
}
