//go:build linux

package bench_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"autocertd/internal/testbed"
)

// caEnv makes the binary of the benchmarks be a CA, which asks the DNS server that the variable names.
const caEnv = "AUTOCERTD_BENCH_CA"

// ca is Pebble in a process of its own, as a CA is for everybody: neither side shares its scheduler and its memory.
type ca struct {
	Directory string // URL
	Roots     []byte // PEM, for the connection
}

func TestMain(m *testing.M) {
	dns, ok := os.LookupEnv(caEnv)
	if !ok {
		os.Exit(m.Run())
	}
	if err := serveCA(dns); err != nil {
		fmt.Fprintln(os.Stderr, "CA:", err)
		os.Exit(1)
	}
}

// serveCA says on standard output how to reach the CA, and serves until standard input ends.
func serveCA(dns string) error {
	server, err := testbed.StartCA(testbed.CAConfig{DNS: dns})
	if err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(ca{Directory: server.Directory(), Roots: server.TLSRootsPEM()})
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return errors.Join(err, server.Close())
}

// startCA starts the process and has it end with the benchmark.
func startCA(b *testing.B, dns string) (c ca) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), caEnv+"="+dns)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	check(b, err)
	stdout, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	b.Cleanup(func() { check(b, errors.Join(stdin.Close(), cmd.Wait())) })
	check(b, json.NewDecoder(stdout).Decode(&c))
	return c
}

// pool is Roots for a client.
func (c ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.Roots)
	return pool
}
