package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"autocertd/internal/testbed"
)

// scriptBINDWorld starts a CA and BIND, a primary and a secondary, for example.test. It sets $DIRECTORY, $NS1 and $NS2,
// writes ca.pem and root.pem, and adds the command nsupdate.
func scriptBINDWorld(ts *testscript.TestScript, _ bool, _ []string) {
	bind, err := testbed.StartBIND(context.Background(), testbed.BINDConfig{Dir: ts.MkAbs("."), Secondaries: []testbed.Secondary{{}}})
	ts.Check(err)
	ts.Defer(func() { _ = bind.Close() })
	ca, err := testbed.StartCA(testbed.CAConfig{DNS: bind.Addr()})
	ts.Check(err)
	ts.Defer(func() { _ = ca.Close() })
	root, err := ca.IssuerRootPEM()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca.TLSRootsPEM(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("root.pem"), root, 0o644))
	ts.Setenv("DIRECTORY", ca.Directory())
	host := strings.TrimSuffix(strings.TrimPrefix(ca.Directory(), "https://"), "/dir")
	ts.Setenv("CANAME", strings.ReplaceAll(host, ":", "_"))
	ts.Setenv("NS1", bind.Servers()[0])
	ts.Setenv("NS2", bind.Servers()[1])
	ts.SetCmd("nsupdate", func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) != 1 || neg {
			ts.Fatalf("usage: nsupdate FILE")
		}
		out, err := nsupdate(context.Background(), bind, ts.ReadFile(args[0]))
		ts.Logf("%s", out)
		ts.Check(err)
	})
	ts.SetCmd("verifyhand", func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) < 3 || neg {
			ts.Fatalf("usage: verifyhand DIR NAME HOSTNAME…")
		}
		leaf, err := handPair(ts.MkAbs(args[0]), args[1], root)
		ts.Check(err)
		for _, host := range args[2:] {
			ts.Check(leaf.VerifyHostname(host))
		}
	})
}

// handPair reads the files that order finish has written, and fails unless they are of use and the key is private.
func handPair(dir, name string, root []byte) (*x509.Certificate, error) {
	base := filepath.Join(dir, name)
	pair, err := tls.LoadX509KeyPair(base+".fullchain.crt", base+".key")
	if err != nil {
		return nil, err
	}
	if leaf, err := tls.LoadX509KeyPair(base+".crt", base+".key"); err != nil || !leaf.Leaf.Equal(pair.Leaf) {
		return nil, fmt.Errorf("%s.crt is another certificate (%v)", base, err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		between.AddCert(cert)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return nil, err
	}
	info, err := os.Stat(base + ".key")
	if err == nil && info.Mode().Perm() != 0o600 {
		err = fmt.Errorf("%s.key has mode %v", base, info.Mode())
	}
	return pair.Leaf, err
}

// nsupdate lets BIND's own tool send a script to the primary, as whoever edits the zone would.
func nsupdate(ctx context.Context, bind *testbed.BIND, script string) (string, error) {
	host, port, err := net.SplitHostPort(bind.Addr())
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsupdate", "-k", bind.KeyFile("acme-key"))
	cmd.Stdin = strings.NewReader("server " + host + " " + port + "\n" + script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
