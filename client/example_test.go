package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

// example gives a function a client of a hub with the clusters edge-1 and edge-2. A
// program has client.New(client.Config{}) in its place.
func example(f func(ctx context.Context, c *client.Client) error) {
	ctx := context.Background()
	hub, err := culverttest.Run(ctx, culverttest.Config{Clusters: []string{"edge-1", "edge-2"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := client.New(hub.Config())
	if err == nil {
		err = errors.Join(f(ctx, c), c.Close())
	}
	if err := errors.Join(err, hub.Close()); err != nil {
		fmt.Println(err)
	}
}

// serveGreeting is a server that speaks first. Its address is one that only the agent
// would reach.
func serveGreeting() (address string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(conn, "220 mail.prod ready\r\n")
			err = errors.Join(err, conn.Close())
		}
		ended <- err
	}()
	return l.Addr().String(), func() error { return errors.Join(l.Close(), <-ended) }, nil
}

func ExampleClient_DialContext() {
	example(func(ctx context.Context, c *client.Client) error {
		address, stop, err := serveGreeting()
		if err != nil {
			return err
		}
		conn, err := c.DialContext(ctx, "edge-1", "tcp", address)
		if err != nil {
			return errors.Join(err, stop())
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		fmt.Printf("%q\n", line)
		return errors.Join(err, conn.Close(), stop())
	})
	// Output: "220 mail.prod ready\r\n"
}

// What fails says where, and why.
func ExampleError() {
	example(func(ctx context.Context, c *client.Client) error {
		_, err := c.DialContext(ctx, "edge-7", "tcp", "db.prod:5432")
		if e, ok := errors.AsType[*client.Error](err); ok {
			fmt.Printf("%s, said by the %s about %s\n", e.Code, e.Hop, e.Cluster)
		}
		return nil
	})
	// Output: not found, said by the hub about edge-7
}

// HTTP to a service in a cluster.
func ExampleClient_EarlyDialer() {
	example(func(ctx context.Context, c *client.Client) error {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
		}))
		defer service.Close()
		transport := &http.Transport{DialContext: c.EarlyDialer("edge-1")}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, service.URL+"/status", http.NoBody)
		if err != nil {
			return err
		}
		res, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		fmt.Println(res.Status, string(text))
		return errors.Join(err, res.Body.Close())
	})
	// Output: 200 OK GET /status
}

// gRPC to a service in a cluster. The scheme "passthrough" leaves the name to the agent.
func ExampleClient_DialerFor() {
	example(func(ctx context.Context, c *client.Client) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		service := grpc.NewServer()
		healthpb.RegisterHealthServer(service, health.NewServer())
		served := make(chan error, 1)
		go func() { served <- service.Serve(l) }()

		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
			grpc.WithContextDialer(c.DialerFor("edge-1")), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		fmt.Println(answer.GetStatus())
		err = errors.Join(err, conn.Close())
		service.Stop()
		return errors.Join(err, <-served)
	})
	// Output: SERVING
}

// Requests to the Kubernetes API of the cluster that the context names. The test's API
// server answers with what it was asked.
func ExampleClient_RoundTripper() {
	example(func(ctx context.Context, c *client.Client) error {
		web := &http.Client{Transport: c.RoundTripper()}
		for _, cluster := range []string{"edge-1", "edge-2"} {
			r, err := http.NewRequestWithContext(client.WithCluster(ctx, cluster), http.MethodGet, "https://cluster/api/v1/nodes", http.NoBody)
			if err != nil {
				return err
			}
			res, err := web.Do(r)
			if err != nil {
				return err
			}
			text, err := io.ReadAll(res.Body)
			fmt.Print(string(text))
			if err := errors.Join(err, res.Body.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	// Output:
	// GET /api/v1/nodes as cluster:hub:tester at edge-1
	// GET /api/v1/nodes as cluster:hub:tester at edge-2
}

func ExampleClient_Clusters() {
	example(func(ctx context.Context, c *client.Client) error {
		clusters, err := c.Clusters(ctx)
		for _, cluster := range clusters {
			fmt.Println(cluster.Name, cluster.Connected, cluster.Agents[0].Name)
		}
		return err
	})
	// Output:
	// edge-1 true edge-1-agent
	// edge-2 true edge-2-agent
}

// A watch begins with what there is, and goes on with what changes, also when the
// connection was lost meanwhile.
func ExampleClient_WatchClusters() {
	example(func(ctx context.Context, c *client.Client) error {
		for event, err := range c.WatchClusters(ctx) {
			if err != nil {
				return err
			}
			fmt.Println(event.Type, event.Cluster.Name)
			if event.Type == client.Synced {
				break // a program goes on
			}
		}
		return nil
	})
	// Output:
	// ADDED edge-1
	// ADDED edge-2
	// SYNCED
}
