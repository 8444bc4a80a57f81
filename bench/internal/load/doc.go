// Package load generates load on a tunnel and measures what comes through. It
// knows a tunnel only as a [Dialer] that leads to package service, or as a [Web]
// address, so it drives every tunnel alike.
package load
