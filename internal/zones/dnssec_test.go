//go:build linux

package zones

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/testbed"
	"autocertd/providers"
)

// signedConf is a server with a root of its own and zones below it. BIND signs some by itself; the others are served as
// they are in their files.
const signedConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory "."; key-directory "{{.Data.Keys}}";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
};
controls { };
key "{{.Data.Key.Name}}" { algorithm {{.Data.Key.Algorithm}}; secret "{{.Data.Key.Secret}}"; };
zone "." { type primary; file "root.zone"; dnssec-policy default; inline-signing yes; };
zone "signed.test" { type primary; file "empty.zone"; dnssec-policy default; inline-signing yes;
	update-policy { grant "{{.Data.Key.Name}}" subdomain signed.test. TXT; }; };
zone "rolled.test" { type primary; file "empty2.zone"; dnssec-policy default; inline-signing yes; };
zone "plain.test" { type primary; file "plain.zone"; };
zone "stripped.test" { type primary; file "stripped.zone"; };
zone "expired.test" { type primary; file "{{.Data.Keys}}/expired.test.signed"; };
zone "early.test" { type primary; file "{{.Data.Keys}}/early.test.signed"; };
`

// resolverConf is a resolver that asks the server for everything. It knows the root's key, if it validates.
const resolverConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; }; reuseport no;
	recursion yes; empty-zones-enable no; max-cache-ttl 1; max-ncache-ttl 1; servfail-ttl 0;
	forward only; forwarders { 127.0.0.1 port {{.Data.Server}}; };
	dnssec-validation {{if .Data.Anchor}}yes{{else}}no{{end}};
};
controls { };
{{with .Data.Anchor}}trust-anchors { . static-key {{.}}; };{{end}}
`

// signedWorld is the server, and resolvers that do and don't validate.
type signedWorld struct {
	key                   testbed.TSIGKey
	server                *testbed.Named
	validating, believing string
}

func startSignedWorld(t *testing.T) signedWorld {
	t.Helper()
	keys := t.TempDir()
	key := testbed.TSIGKey{Name: "acme-key", Algorithm: "hmac-sha256", Secret: "c2VjcmV0IG9mIHRoZSB0ZXN0IGZvciBzaWduZWQgem9uZXM="}
	root := []string{"signed.test", "rolled.test", "plain.test", "stripped.test", "expired.test", "early.test"}
	var delegations []string
	for _, zone := range root {
		delegations = append(delegations, zone+". NS ns.root-servers.test.")
	}
	for _, zone := range []string{"signed.test", "expired.test", "early.test"} {
		delegations = append(delegations, newKey(t, keys, zone).ToDS(dns.SHA256).String())
	}
	for _, zone := range []string{"rolled.test", "stripped.test"} { // keys that the zones don't have
		foreign := newKey(t, t.TempDir(), zone)
		delegations = append(delegations, foreign.ToDS(dns.SHA256).String())
	}
	signFile(t, keys, "expired.test", "-s", "20200101000000", "-e", "20200201000000")
	signFile(t, keys, "early.test", "-s", "+1y", "-e", "+2y")
	anchor := newKey(t, keys, ".")
	server := startNamed(t, testbed.NamedConfig{Conf: signedConf, Data: map[string]any{"Keys": keys, "Key": key},
		Zones: append(root, "."), Files: map[string]string{
			"root.zone":  zoneText("ns.root-servers.test.", delegations...),
			"empty.zone": zoneText("ns"), "empty2.zone": zoneText("ns"), "plain.zone": zoneText("ns"), "stripped.zone": zoneText("ns"),
		}})
	resolver := func(anchor string) string {
		data := map[string]any{"Server": server.Port(), "Anchor": anchor}
		return startNamed(t, testbed.NamedConfig{Conf: resolverConf, Data: data}).Addr()
	}
	text := strings.SplitN(anchor.String(), "DNSKEY\t", 2)[1]
	fields := strings.Fields(text) // flags, protocol, algorithm, key
	w := signedWorld{key: key, server: server, believing: resolver(""),
		validating: resolver(strings.Join(fields[:3], " ") + ` "` + fields[3] + `"`)}
	eventually(t, "the signed zone is signed and the resolver knows", func() bool {
		s := asking([]string{w.validating})
		return s.Validation(t.Context(), "signed.test")[0].Validity == Secure && s.Validation(t.Context(), "plain.test")[0].Validity == Insecure
	})
	return w
}

// newKey makes a key as a zone of the default policy has it, with BIND's own tool.
func newKey(t *testing.T, dir, zone string) *dns.DNSKEY {
	t.Helper()
	base := strings.TrimSpace(runTool(t, dir, "dnssec-keygen", "-q", "-k", "default", "-K", dir, zone))
	text, err := os.ReadFile(filepath.Join(dir, base+".key"))
	if err != nil {
		t.Fatal(err)
	}
	rr, err := dns.NewRR(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return rr.(*dns.DNSKEY)
}

// signFile signs a zone once, with signatures of another time.
func signFile(t *testing.T, dir, zone string, times ...string) {
	t.Helper()
	path := filepath.Join(dir, zone)
	if err := os.WriteFile(path, []byte(zoneText("ns")), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, dir, "dnssec-signzone", append(times, "-P", "-S", "-z", "-K", dir, "-o", zone, "-f", path+".signed", path)...)
}

func runTool(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	return string(out)
}

func TestValidation(t *testing.T) {
	w := startSignedWorld(t)
	tests := []struct {
		name, zone, resolver string
		validity             Validity
		reasons              string
	}{
		{name: "a signed zone", zone: "signed.test", resolver: w.validating, validity: Secure},
		{name: "a zone that isn't signed", zone: "plain.test", resolver: w.validating, validity: Insecure},
		{name: "signatures that have expired", zone: "expired.test", resolver: w.validating, validity: Bogus},
		{name: "signatures of tomorrow", zone: "early.test", resolver: w.validating, validity: Bogus},
		{name: "a DS of a key that is gone", zone: "rolled.test", resolver: w.validating, validity: Bogus},
		{name: "a zone whose signatures are gone", zone: "stripped.test", resolver: w.validating, validity: Bogus},
		{name: "who doesn't validate says so of a signed zone", zone: "signed.test", resolver: w.believing, validity: NotValidating},
		{name: "who doesn't validate sees nothing wrong", zone: "expired.test", resolver: w.believing, validity: NotValidating},
		{name: "who isn't there", zone: "signed.test", resolver: "127.0.0.1:1", validity: Unanswered, reasons: "nothing listens at 127.0.0.1:1 (connection refused)"},
		{name: "who refuses", zone: "signed.test", resolver: refusing(t), validity: Unanswered, reasons: "it answers REFUSED"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := asking([]string{tt.resolver}).Validation(t.Context(), tt.zone)
			if len(got) != 1 || got[0].Resolver != tt.resolver || got[0].Validity != tt.validity {
				t.Fatalf("%+v", got)
			}
			if reasons := strings.Join(got[0].Reasons, "; "); !strings.HasPrefix(reasons, tt.reasons) || (reasons == "") != (tt.reasons == "") {
				t.Errorf("reasons %q, want %q", reasons, tt.reasons)
			}
			signed := tt.zone != "plain.test" && tt.zone != "stripped.test"
			if got[0].Validity != Unanswered && (got[0].Zone != tt.zone || got[0].Signed != signed) {
				t.Errorf("zone %q, signed %t", got[0].Zone, got[0].Signed)
			}
		})
	}
	t.Run("updates of a signed zone are signed too", func(t *testing.T) { updateSigned(t, w) })
	t.Run("extended errors", func(t *testing.T) { extendedErrorsInWords(t, w) })
	if got := New(Config{}).Validation(t.Context(), "signed.test"); len(got) != 0 {
		t.Errorf("without resolvers: %+v", got)
	}
}

// updateSigned publishes a record as a provider does, waits for it as an order does, and asks the validating resolver for it.
func updateSigned(t *testing.T, w signedWorld) {
	text := fmt.Sprintf("server = %q\nkey_name = %q\nkey_alg = %q\nkey = %q", w.server.Addr(), w.key.Name, w.key.Algorithm, w.key.Secret)
	p, err := providers.New("rfc2136", providers.Options{Decode: func(dst any) error { return toml.Unmarshal([]byte(text), dst) }})
	if err != nil {
		t.Fatal(err)
	}
	record := TXT{"bind", "signed.test", "_acme-challenge.www.signed.test", "value"}
	written := libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: record.Value}
	if _, err := p.Client.AppendRecords(t.Context(), "signed.test.", []libdns.Record{written}); err != nil {
		t.Fatal(err)
	}
	s := asking(nil, Provider{
		Name:    "bind",
		Servers: p.Servers,
		Zones:   []string{"signed.test"},
		Key:     &Key{Name: p.Key.Name, Algorithm: p.Key.Algorithm, Secret: p.Key.Secret},
		Check:   CheckPrimary,
	})
	defer s.Close()
	if err := s.Wait(t.Context(), []TXT{record}, func(have, want int) {}); err != nil {
		t.Fatal(err)
	}
	reply, err := validator(w.validating).ask(t.Context(), record.Name, dns.TypeTXT, false)
	if err != nil || !holds(reply, record.Value) || !reply.AuthenticatedData {
		t.Errorf("%v, %v", reply, err)
	}
}

// extendedErrorsInWords puts a resolver in front of the real one that says more than that one can: 9.18 has no words for
// signatures.
func extendedErrorsInWords(t *testing.T, w signedWorld) {
	addr := serveDNS(t, func(q *dns.Msg) *dns.Msg {
		reply, err := dns.Exchange(q, w.validating)
		if err != nil {
			t.Error(err)
			return new(dns.Msg).SetRcode(q, dns.RcodeRefused)
		}
		if reply.Rcode == dns.RcodeServerFailure {
			reply.SetEdns0(udpSize, true)
			opt := reply.IsEdns0()
			opt.Option = append(opt.Option,
				&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSignatureExpired, ExtraText: "for SOA [31mexpired.test"}, &dns.EDNS0_EDE{InfoCode: 4711})
		}
		return reply
	})
	got := asking([]string{addr}).Validation(t.Context(), "expired.test")[0]
	want := `Signature Expired ("for SOA [31mexpired.test"); extended error 4711`
	if reasons := strings.Join(got.Reasons, "; "); got.Validity != Bogus || reasons != want {
		t.Errorf("%s: %s\nwant %s", got.Validity, reasons, want)
	}
}

// refusing is a server that refuses all.
func refusing(t *testing.T) string {
	return serveDNS(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) })
}

// serveDNS answers by UDP until the test ends.
func serveDNS(t *testing.T, answer func(q *dns.Msg) *dns.Msg) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(answer(q)) })}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}
