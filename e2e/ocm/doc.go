// Package ocm installs Culvert's agent as an addon of Open Cluster Management: the
// objects of deploy/ocm on a real API server, OCM's own addon manager, which renders
// the agent and signs its certificate, and a real agent that runs as rendered.
package ocm
