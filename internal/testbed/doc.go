// Package testbed runs what a certificate daemon meets in the world, on loopback and for tests alone: an ACME server, an
// authoritative DNS server that takes signed updates, and the real BIND. It leaves all ACME and DNS clients to those who test them.
package testbed
