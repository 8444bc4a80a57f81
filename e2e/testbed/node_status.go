package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The kubelet's own times: a lease of 40 seconds is renewed at a quarter of it, and
// a status that did not change is sent every five minutes
// (https://kubernetes.io/docs/reference/node/node-status/#heartbeats).
const (
	leaseNamespace = "kube-node-lease"
	leaseDuration  = 40 * time.Second
	leaseInterval  = leaseDuration / 4
	statusInterval = 5 * time.Minute
	callTimeout    = 10 * time.Second
)

// register makes the node's object and its lease, and reports it as Ready.
func (n *Node) register(ctx context.Context) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{
		corev1.LabelHostname: n.name, corev1.LabelOSStable: "linux",
	}}}
	if _, err := n.nodes.Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := n.reportReady(ctx); err != nil {
		return err
	}
	// The API server makes the namespace of leases in the background.
	return Poll(ctx, "the lease of node "+n.name, n.renewLease)
}

// keepReady renews lease and status until the node's life ends. What fails is tried
// again at the next time: an API server may be restarted.
func (n *Node) keepReady() {
	lease, status := time.NewTicker(leaseInterval), time.NewTicker(statusInterval)
	defer lease.Stop()
	defer status.Stop()
	for {
		renew := n.renewLease
		select {
		case <-n.life.Done():
			return
		case <-lease.C:
		case <-status.C:
			renew = n.reportReady
		}
		ctx, cancel := context.WithTimeout(n.life, callTimeout)
		_ = renew(ctx)
		cancel()
	}
}

// reportReady sends the status of the node.
func (n *Node) reportReady(ctx context.Context) error {
	now := metav1.Now()
	resources := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	patch, err := json.Marshal(map[string]any{"status": corev1.NodeStatus{
		Capacity: resources, Allocatable: resources,
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: loopback.String()}, {Type: corev1.NodeHostName, Address: loopback.String()}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: n.port}},
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
		},
		NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.35.1", OperatingSystem: "linux", ContainerRuntimeVersion: runtimeName + "://1"},
	}})
	if err != nil {
		return err
	}
	_, err = n.nodes.Nodes().Patch(ctx, n.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// renewLease makes the lease or renews it.
func (n *Node) renewLease(ctx context.Context) error {
	now := metav1.NowMicro()
	seconds := int32(leaseDuration / time.Second)
	patch, err := json.Marshal(map[string]any{"spec": coordinationv1.LeaseSpec{RenewTime: &now}})
	if err != nil {
		return err
	}
	_, err = n.leases.Patch(ctx, n.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = n.leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: n.name, Namespace: leaseNamespace},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &n.name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}, metav1.CreateOptions{})
	}
	return err
}

// report sends the status of a pod. A pod that is gone needs none.
func (p *pod) report(ctx context.Context) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.uid}, // of another pod with its name it is none of ours
		"status":   p.status(),
	})
	if err != nil {
		return err
	}
	_, err = p.node.nodes.Pods(p.key.Namespace).Patch(ctx, p.key.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// status is what the containers make of the pod.
func (p *pod) status() corev1.PodStatus {
	var running, failed bool
	ready := corev1.ConditionTrue
	var statuses []corev1.ContainerStatus
	for _, c := range p.containers {
		s := c.status()
		running = running || s.State.Running != nil
		failed = failed || s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
		if !s.Ready {
			ready = corev1.ConditionFalse
		}
		statuses = append(statuses, s)
	}
	phase := corev1.PodSucceeded
	switch {
	case running:
		phase = corev1.PodRunning
	case failed:
		phase = corev1.PodFailed
	}
	now := metav1.Now()
	var conditions []corev1.PodCondition
	for kind, status := range map[corev1.PodConditionType]corev1.ConditionStatus{
		corev1.PodScheduled: corev1.ConditionTrue, corev1.PodInitialized: corev1.ConditionTrue, corev1.ContainersReady: ready, corev1.PodReady: ready,
	} {
		conditions = append(conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now})
	}
	ip := loopback.String()
	return corev1.PodStatus{
		Phase: phase, Conditions: conditions, HostIP: ip, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		HostIPs: []corev1.HostIP{{IP: ip}}, StartTime: &p.started, ContainerStatuses: statuses,
	}
}

// status is that of the container now.
func (c *container) status() corev1.ContainerStatus {
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: fmt.Sprintf("%s://%s", runtimeName, c.id),
	}
	select {
	case <-c.ended:
		reason := "Completed"
		if c.code != 0 {
			reason = "Error"
		}
		s.State.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: c.code, Reason: reason, Message: c.failure, StartedAt: c.started, FinishedAt: c.finished, ContainerID: s.ContainerID,
		}
	default:
		started := true
		s.Ready, s.Started = true, &started
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: c.started}
	}
	return s
}
