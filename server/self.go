package server

import (
	"context"
	"maps"
	"time"

	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/registry"
)

// self is what callers ask about themselves.
func (s *Server) self() *https.Self {
	return &https.Self{
		Clusters: s.selfClusters,
		Changed:  s.registry.Changed,
		Ping: func(ctx context.Context, cluster string) (https.SelfAgent, time.Duration, error) {
			agent, rtt, err := s.registry.Ping(ctx, cluster)
			return selfAgent(agent), rtt, err
		},
	}
}

func selfAgent(a registry.Agent) https.SelfAgent {
	return https.SelfAgent{Name: a.Name, Version: a.Version, Since: a.Since.UTC().Round(0)}
}

// selfClusters are all clusters, by name.
func (s *Server) selfClusters() ([]https.SelfCluster, error) {
	known, err := s.store.Clusters()
	if err != nil {
		return nil, err
	}
	agents := map[string][]https.SelfAgent{}
	for _, a := range s.registry.Agents("") {
		agents[a.Cluster] = append(agents[a.Cluster], selfAgent(a))
	}
	out := make([]https.SelfCluster, 0, len(known))
	for _, c := range known { // by name, as the store has them
		labels := maps.Clone(c.Labels)
		if len(c.TokenLabels) > 0 && labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, c.TokenLabels) // what the hub gave goes before what the agent says
		one := https.SelfCluster{Name: c.Name, Labels: labels, Agents: agents[c.Name]}
		one.Connected = len(one.Agents) > 0
		if !one.Connected {
			one.LastSeen = c.LastSeen
		}
		out = append(out, one)
	}
	return out, nil
}
