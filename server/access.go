package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvertdev/culvert/internal/audit"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/policy/review"
)

// newAccess makes what decides about requests and what records them. Metrics are
// there already, if they are asked for.
func (s *Server) newAccess() (err error) {
	if err := s.newPolicy(); err != nil {
		return err
	}
	if s.cfg.Limits != nil {
		if s.limits, err = limit.New(*s.cfg.Limits); err != nil {
			return err
		}
	}
	if s.cfg.Audit == nil {
		return nil
	}
	opts := audit.Options{Logger: s.log, Stdout: os.Stdout, Hub: s.cfg.Name}
	if t := s.observation.telemetry; t != nil {
		opts.Meters = t.Provider()
	}
	s.audit, err = audit.New(*s.cfg.Audit, opts)
	return err
}

// newPolicy makes the authorizer. What answers from memory is asked first.
func (s *Server) newPolicy() (err error) {
	cfg := s.cfg.Policy
	if cfg == nil {
		cfg = &Policy{}
	}
	var authorizers []policy.Authorizer
	if cfg.File != "" {
		if s.policyFile, err = policy.Open(cfg.File, policy.Options{}, s.log); err != nil {
			return fmt.Errorf("policy.file: %w", err)
		}
		authorizers = append(authorizers, s.policyFile)
	}
	if r := cfg.SubjectAccessReview; r != nil {
		cluster, err := r.cluster()
		if err != nil {
			return err
		}
		s.reviewer, err = review.New(review.Config{
			Cluster: cluster, Timeout: r.Timeout.Duration, AllowedTTL: r.AllowedTTL.Duration, DeniedTTL: r.DeniedTTL.Duration, Logger: s.log,
		})
		if err != nil {
			return fmt.Errorf("policy.%w", err)
		}
		authorizers = append(authorizers, s.reviewer)
	}
	if len(authorizers) == 0 {
		standard, err := policy.Compile(policy.Document{APIVersion: policy.APIVersion, Kind: policy.Kind}, policy.Options{})
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		authorizers = append(authorizers, standard)
	}
	s.policy = policy.All(authorizers...)
	return nil
}

// cluster reads the credentials of the cluster that is asked.
func (r *SubjectAccessReview) cluster() (*rest.Config, error) {
	if r.InCluster {
		cluster, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("policy.subjectAccessReview.inCluster: %w", err)
		}
		return cluster, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: r.Kubeconfig}
	cluster, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("policy.subjectAccessReview.kubeconfig: %s: %w", r.Kubeconfig, err)
	}
	return cluster, nil
}

// closeAccess writes the audit lines that are left, for as long as ctx lets it.
func (s *Server) closeAccess(ctx context.Context) error {
	var errs []error
	if s.reviewer != nil {
		s.reviewer.Close()
	}
	if err := s.audit.Close(ctx); err != nil {
		errs = append(errs, fmt.Errorf("audit: %w", err))
	}
	return errors.Join(errs...)
}

// labels returns the labels that the hub gave to a cluster, by the join token that
// it came with. What an agent says of itself is not among them: it would choose who
// may reach it.
func (s *Server) labels(cluster string) (map[string]string, error) {
	if labels, known := s.registry.Labels(cluster); known {
		return labels, nil
	}
	return s.storedLabels(cluster)
}

func (s *Server) storedLabels(cluster string) (map[string]string, error) {
	known, _, err := s.store.Cluster(cluster)
	if err != nil {
		return nil, fmt.Errorf("the cluster's labels cannot be read: %w", err)
	}
	labels := maps.Clone(known.TokenLabels)
	if labels == nil {
		labels = map[string]string{}
	}
	return labels, nil
}
