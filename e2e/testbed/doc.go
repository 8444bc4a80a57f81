// Package testbed runs the real parts that Culvert stands between: etcd,
// kube-apiserver, kubectl and CoreDNS, in processes and network namespaces of
// its own.
//
// A test package enters the bed in its TestMain:
//
//	func TestMain(m *testing.M) {
//		testbed.Isolate(func(ctx context.Context, dir string) error {
//			_, err := testbed.ServerBinaries(ctx, os.Stderr)
//			return err
//		})
//		goleak.VerifyTestMain(m)
//	}
//
// and then starts what it needs:
//
//	bed, err := testbed.New(ctx, testbed.Config{Dir: t.TempDir(), Servers: servers})
//	defer bed.Close()
//	clusters, err := bed.StartClusters(ctx, testbed.ClusterConfig{Name: "hub"}, testbed.ClusterConfig{Name: "managed"})
//	out, err := clusters[0].Kubectl(ctx, "create", "token", "test-sa")
//
// Isolate is optional where no private network is wanted: the demo runs its
// clusters on the machine's own loopback, as an ordinary user.
//
// # What is left behind
//
// Nothing. Every process is killed by the kernel when the one that started it
// dies, namespaces have no name and vanish with their last process, and Isolate
// removes the folder of the run whatever way the tests end. CULVERT_E2E_KEEP=1
// keeps that folder, logs included, and prints where it is.
//
// # Limitations
//
// Linux only. There is no controller manager or scheduler: a deleted namespace
// stays Terminating, service accounts are made by the test that wants them, and a
// pod stays Pending unless its nodeName is that of a [Node], which runs it as
// processes of this machine. A ClusterIP answers only where the test has given
// that address to a namespace with [Namespace.AddAddress].
package testbed
