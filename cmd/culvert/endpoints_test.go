package main

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEndpointsOf(t *testing.T) {
	service := func(kind corev1.ServiceType, change func(s *corev1.Service)) *corev1.Service {
		s := &corev1.Service{}
		s.Name, s.Namespace = "culvert-hub", "culvert"
		s.Spec.Type = kind
		s.Spec.Ports = []corev1.ServicePort{{Name: "https", Port: 443, NodePort: 30443}}
		change(s)
		return s
	}
	inside := endpoint{Port: "https", From: "cluster", Address: "culvert-hub.culvert.svc:443"}
	for _, c := range []struct {
		name    string
		service *corev1.Service
		want    []endpoint
	}{
		{"ClusterIP", service(corev1.ServiceTypeClusterIP, func(*corev1.Service) {}), []endpoint{inside}},
		{"NodePort", service(corev1.ServiceTypeNodePort, func(*corev1.Service) {}), []endpoint{{"https", "nodes", ":30443"}, inside}},
		{"LoadBalancer with both forms, of which kubectl shows the address", service(corev1.ServiceTypeLoadBalancer, func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "2001:db8::7", Hostname: "hub.example.com"}}
		}), []endpoint{{"https", "everywhere", "[2001:db8::7]:443"}, inside}},
		{"external addresses", service(corev1.ServiceTypeClusterIP, func(s *corev1.Service) {
			s.Spec.ExternalIPs = []string{"203.0.113.9"}
		}), []endpoint{{"https", "everywhere", "203.0.113.9:443"}, inside}},
	} {
		if got, err := endpointsOf(c.service); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	if got, err := endpointsOf(service(corev1.ServiceTypeLoadBalancer, func(*corev1.Service) {})); err == nil {
		t.Errorf("a load balancer without an address: %v", got)
	}
}
