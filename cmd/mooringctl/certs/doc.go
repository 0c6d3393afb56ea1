// Package certs makes the certificates with which agents and controller know
// one another: an authority of their own, a server certificate for all agents
// and a client certificate for the controller.
//
// It is not a certificate manager: nothing runs, nothing is renewed by itself.
// A cluster that has cert-manager needs none of this.
//
// A directory holds agent/ and controller/, each with tls.crt, tls.key and
// ca.crt as in a Secret of type kubernetes.io/tls, and ca/ with the authority's
// key. Keys are readable by their owner only. Every file is written beside its
// name and then renamed, so that a reader sees the old one or the new one; when
// a step fails, what was written before stays, and the same call can be
// repeated. The authority is changed in three steps (NewCA, Renew, DropOldCA),
// between which both sides are to read their files, so that at no time does one
// side present what the other does not yet trust.
//
// Functions may be called from any goroutine, for different directories.
package certs
