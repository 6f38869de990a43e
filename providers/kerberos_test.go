package providers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// kerberosSite is a realm with its own KDC, and a BIND that takes updates signed by GSS-TSIG.
type kerberosSite struct {
	server string // of zone example.test, where autocertd@EXAMPLE.TEST may write at _acme-challenge.www
	keytab string // of autocertd@EXAMPLE.TEST
	other  string // the keytab of a principal that may write nothing
}

// startKerberos starts both on loopback. What runs in the test's environment finds the realm.
func startKerberos(t *testing.T) kerberosSite {
	for _, name := range []string{"krb5kdc", "kdb5_util", "kadmin.local"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s isn't installed: apt-get install krb5-kdc krb5-admin-server", name)
		}
	}
	dir := t.TempDir()
	site := kerberosSite{server: freeAddr(t), keytab: filepath.Join(dir, "autocertd.keytab"), other: filepath.Join(dir, "other.keytab")}
	t.Setenv("KRB5_CONFIG", filepath.Join(dir, "krb5.conf"))
	t.Setenv("KRB5_KDC_PROFILE", filepath.Join(dir, "kdc.conf"))
	kdc := freeAddr(t, site.server)
	writeFile(t, filepath.Join(dir, "krb5.conf"), "[libdefaults]\n default_realm = EXAMPLE.TEST\n dns_lookup_kdc = false\n"+
		" dns_canonicalize_hostname = false\n rdns = false\n[realms]\n EXAMPLE.TEST = {\n  kdc = "+kdc+"\n }\n"+
		"[domain_realm]\n example.test = EXAMPLE.TEST\n .example.test = EXAMPLE.TEST\n", 0o600)
	writeFile(t, filepath.Join(dir, "kdc.conf"), fmt.Sprintf("[kdcdefaults]\n kdc_listen = %s\n kdc_tcp_listen = %s\n[realms]\n EXAMPLE.TEST = {\n"+
		"  database_name = %s/db\n  key_stash_file = %s/stash\n  acl_file = %s/acl\n }\n[logging]\n kdc = FILE:%s/kdc.log\n", kdc, kdc, dir, dir, dir, dir), 0o600)
	command(t, "kdb5_util", "create", "-s", "-r", "EXAMPLE.TEST", "-P", "master")
	for principal, keytab := range map[string]string{"DNS/ns1.example.test": filepath.Join(dir, "dns.keytab"), "autocertd": site.keytab, "other": site.other} {
		command(t, "kadmin.local", "-q", "addprinc -randkey "+principal)
		command(t, "kadmin.local", "-q", "ktadd -k "+keytab+" "+principal)
	}
	_, port, _ := net.SplitHostPort(site.server)
	writeFile(t, filepath.Join(dir, "zone"), "$TTL 60\n@ SOA ns1 hostmaster 1 60 60 600 5\n@ NS ns1\nns1 A 127.0.0.1\n", 0o600)
	writeFile(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`options { directory "%s"; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
		pid-file none; lock-file none; session-keyfile "session.key"; recursion no; dnssec-validation no;
		tkey-gssapi-keytab "%s/dns.keytab"; };
		controls { };
		zone "example.test" { type primary; file "zone";
			update-policy { grant "autocertd@EXAMPLE.TEST" name _acme-challenge.www.example.test. TXT; }; };`, dir, port, dir), 0o600)
	background(t, "krb5kdc", "-n", "-P", filepath.Join(dir, "kdc.pid"))
	background(t, "named", "-g", "-c", filepath.Join(dir, "named.conf"))
	waitFor(t, func() bool {
		reply, err := prober{server: site.server}.soa(t.Context(), "example.test")
		return err == nil && reply.Rcode == dns.RcodeSuccess
	})
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", kdc)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return site
}

// freeAddr returns an address that nobody listens at, and that isn't taken for something else already. The port is above those that the system gives away by itself and
// begins with our process's id, so that no other process takes it before it is used.
func freeAddr(t *testing.T, not ...string) string {
	t.Helper()
	const first, last = 61000, 65535
	for i := range last - first {
		addr := fmt.Sprintf("127.0.0.1:%d", first+(os.Getpid()*8+i)%(last-first))
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		if !slices.Contains(not, addr) {
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args, err, out)
	}
}

// background runs a program until the test ends, and shows what it said if the test failed.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
}

func TestNSUpdateWithKerberos(t *testing.T) {
	site := startKerberos(t)
	t.Setenv("KRB5CCNAME", "FILE:"+filepath.Join(t.TempDir(), "none")) // not the tickets of whoever runs the test
	gss := fmt.Sprintf("server = %q\ngss = true\n", site.server)
	p := newTestNSUpdate(t, gss+fmt.Sprintf("keytab = %q", site.keytab))
	www := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}}
	ftp := []libdns.Record{libdns.TXT{Name: "_acme-challenge.ftp", TTL: time.Minute, Text: "value"}}
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", www); err != nil {
		t.Fatal(err)
	}
	if ttl, err := askTTL(t.Context(), site.server, "_acme-challenge.www.example.test"); err != nil || ttl != time.Minute {
		t.Errorf("the TTL is %v, %v; want 1m", ttl, err)
	}
	if _, err := p.Client.DeleteRecords(t.Context(), "example.test", www); err != nil {
		t.Error(err)
	}
	if ttl, err := askTTL(t.Context(), site.server, "_acme-challenge.www.example.test"); err == nil {
		t.Errorf("a record with TTL %v is left", ttl)
	}

	const forbidden = `SERVER forbids our Kerberos principal to write TXT at _acme-challenge.NAME.example.test (REFUSED); the principal is in the keytab (klist -k); ` +
		`for BIND add to update-policy of zone example.test: grant "PRINCIPAL@REALM" name _acme-challenge.NAME.example.test. TXT; ` +
		`for Active Directory let the account create dnsNode objects in the zone`
	const noTicket = "nsupdate got no Kerberos ticket for DNS/ns1.example.test on SERVER: Major = "
	tests := []struct {
		name, text, zone string
		records          []libdns.Record
		want             string // begins like this
		retryable, whole bool
	}{
		{"a name that the policy forbids", gss + fmt.Sprintf("keytab = %q", site.keytab), "example.test", ftp,
			strings.ReplaceAll(forbidden, "NAME", "ftp"), false, false},
		{"another principal", gss + fmt.Sprintf("keytab = %q", site.other), "example.test", www,
			strings.ReplaceAll(forbidden, "NAME", "www"), false, false},
		{"a zone that isn't served", gss + fmt.Sprintf("keytab = %q", site.keytab), "example.org", www,
			"SERVER doesn't serve zone example.org (NOTAUTH), nor another one", false, true},
		{"no key", gss, "example.test", www, noTicket, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newTestNSUpdate(t, tt.text).Client.AppendRecords(t.Context(), tt.zone, tt.records)
			failure, ok := errors.AsType[*Error](err)
			if !ok || !strings.HasPrefix(strings.ReplaceAll(said(err), site.server, "SERVER"), tt.want) {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if failure.Retryable() != tt.retryable || failure.Whole() != tt.whole {
				t.Errorf("Retryable() = %v, Whole() = %v; want %v, %v", failure.Retryable(), failure.Whole(), tt.retryable, tt.whole)
			}
		})
	}
}
