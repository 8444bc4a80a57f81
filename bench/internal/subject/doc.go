// Package subject starts what is measured: Culvert itself, the reference, and
// other people's tunnels as a file describes them. Each runs in processes of its
// own, beside the client on one side and beside the service on the other.
package subject
