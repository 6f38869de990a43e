package providers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// sambaDir is where the test finds what it has prepared for itself, once it is in a network of its own.
const sambaDir = "AUTOCERTD_SAMBA_DIR"

// TestNSUpdateWithRealSamba makes an Active Directory domain and writes into its zone. Samba wants well-known ports, so it
// gets a network of its own. Making the domain takes half a minute.
func TestNSUpdateWithRealSamba(t *testing.T) {
	if os.Getenv("AUTOCERTD_LONG") == "" {
		t.Skip("AUTOCERTD_LONG isn't set")
	}
	if _, err := exec.LookPath("samba-tool"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and: apt-get install samba samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind")
	}
	if dir := os.Getenv(sambaDir); dir != "" {
		writeToSamba(t, dir)
		return
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"samba-tool", "domain", "provision", "--realm=AD.TEST", "--domain=AD", "--server-role=dc", "--dns-backend=SAMBA_INTERNAL",
			"--targetdir=" + filepath.Join(dir, "dc"), "--host-name=dc1", "--host-ip=127.0.0.1"},
		{"unshare", "-n", "-m", os.Args[0], "-test.run=^TestNSUpdateWithRealSamba$", "-test.v"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), sambaDir+"="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
}

// writeToSamba runs inside the network.
func writeToSamba(t *testing.T, dir string) {
	conf := filepath.Join(dir, "smb.conf")
	given := readFile(t, filepath.Join(dir, "dc", "etc", "smb.conf"))
	own := fmt.Sprintf("[global]\n\tserver services = dns, kdc, ldap, cldap, rpc\n\tpid directory = %[1]s\n\tncalrpc dir = %[1]s/ncalrpc\n\tlog file = %[1]s/log\n\tinterfaces = lo\n\tbind interfaces only = yes\n", dir)
	writeFile(t, conf, strings.Replace(given, "[global]\n", own, 1), 0o600)
	writeFile(t, filepath.Join(dir, "hosts"), "127.0.0.1 localhost dc1.ad.test dc1\n", 0o644)
	writeFile(t, filepath.Join(dir, "krb5.conf"), "[libdefaults]\n default_realm = AD.TEST\n dns_lookup_kdc = false\n rdns = false\n dns_canonicalize_hostname = false\n"+
		"[realms]\n AD.TEST = {\n  kdc = 127.0.0.1\n }\n[domain_realm]\n .ad.test = AD.TEST\n", 0o644)
	t.Setenv("KRB5_CONFIG", filepath.Join(dir, "krb5.conf"))
	command(t, "ip", "link", "set", "lo", "up")
	command(t, "mount", "--bind", filepath.Join(dir, "hosts"), "/etc/hosts")
	background(t, "samba", "-i", "-M", "single", "-s", conf)
	const server = "dc1.ad.test:53"
	waitFor(t, func() bool {
		reply, err := prober{server: server}.soa(t.Context(), "ad.test")
		return err == nil && reply.Rcode == dns.RcodeSuccess
	})
	keytab := filepath.Join(dir, "krb5.keytab")
	command(t, "samba-tool", "user", "create", "autocertd", "--random-password", "-s", conf)
	command(t, "samba-tool", "domain", "exportkeytab", keytab, "--principal=autocertd@AD.TEST", "-s", conf)

	opts := options(fmt.Sprintf("server = \"dc1.ad.test\"\ngss = true\nkeytab = %q", keytab), "")
	var log strings.Builder
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p, err := New("nsupdate", opts)
	if err != nil {
		t.Fatal(err)
	}
	txt := func(names ...string) (recs []libdns.Record) {
		for _, name := range names {
			recs = append(recs, libdns.TXT{Name: name, TTL: time.Minute, Text: "value"})
		}
		return recs
	}
	values := func(name string) []string { return prober{server: server}.look(t.Context(), name+".ad.test").txt }

	three := []string{"_acme-challenge.a", "_acme-challenge.b", "_acme-challenge.c"}
	if _, err := p.Client.AppendRecords(t.Context(), "ad.test", txt(three...)); err != nil {
		t.Fatal(err)
	}
	for _, name := range three {
		if got := values(name); len(got) != 1 || got[0] != "value" {
			t.Errorf("%s has %q", name, got)
		}
	}
	if _, err := p.Client.DeleteRecords(t.Context(), "ad.test", txt(three...)); err != nil {
		t.Fatal(err)
	}
	for _, name := range three {
		if got := values(name); len(got) != 0 {
			t.Errorf("%s still has %q", name, got)
		}
	}
	if strings.Count(log.String(), "can't be verified") != 1 {
		t.Errorf("it warned otherwise than once:\n%s", log.String())
	}

	// dc1 is a name of the domain's own, which our account has no right to.
	const want = "dc1.ad.test:53 answered SERVFAIL to the update of zone ad.test with TXT at dc1.ad.test; often our account has no right for the name, which somebody else has made"
	_, err = p.Client.AppendRecords(t.Context(), "ad.test", txt("dc1"))
	failure, ok := errors.AsType[*Error](err)
	if !ok || said(err) != want || failure.Whole() || failure.Uncertain() {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
