package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"autocertd/internal/testbed"
)

// scriptPatience is how long scripts wait for what happens in another process.
const scriptPatience = 60 * time.Second

// TestScripts runs the sessions of testdata/script: what a user types, and what is to be seen then. Beside testscript's
// own commands they know those below; a script that talks to a CA or a DNS server begins with world.
func TestScripts(t *testing.T) {
	testscript.RunT(scriptT{t}, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("AUTOCERTD_CONFIG", filepath.Join(env.WorkDir, "config.toml"))
			env.Setenv("STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TERM", "xterm")
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=10") // of a second that each process otherwise takes to end under -race
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"world":      scriptWorld,
			"bindworld":  scriptBINDWorld,
			"expand":     scriptExpand,
			"exits":      scriptExits,
			"signal":     scriptSignal,
			"eventually": scriptEventually,
			"terminal":   scriptTerminal,
			"verifypair": scriptVerifyPair,
			"asother":    scriptAsOther,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		RequireUniqueNames: true,
	})
}

// world starts a CA and a DNS server for corp.example.com, which refuses names that begin with "locked". It sets $DIRECTORY
// and $DNS, writes tsig.key, ca.pem (what to trust of the CA's server) and root.pem (what certificates chain to), and
// expands config.toml. The command "zoneline RECORD" puts a line into the zone.
func scriptWorld(ts *testscript.TestScript, _ bool, _ []string) {
	dns, err := testbed.StartDNS(testbed.DNSConfig{Zones: []string{"corp.example.com"}, Allow: func(_, name string) bool {
		return !strings.HasPrefix(name, "_acme-challenge.locked")
	}})
	ts.Check(err)
	ts.Defer(func() { _ = dns.Close() })
	ca, err := testbed.StartCA(testbed.CAConfig{DNS: dns.Addr()})
	ts.Check(err)
	ts.Defer(func() { _ = ca.Close() })
	root, err := ca.IssuerRootPEM()
	ts.Check(err)
	key := dns.Key("acme-key")
	secret := fmt.Sprintf("key %q {\n\talgorithm %s;\n\tsecret %q;\n};\n", key.Name, key.Algorithm, key.Secret)
	ts.Check(os.WriteFile(ts.MkAbs("tsig.key"), []byte(secret), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca.TLSRootsPEM(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("root.pem"), root, 0o644))
	ts.Setenv("DIRECTORY", ca.Directory())
	ts.Setenv("DNS", dns.Addr())
	ts.Setenv("SECRET", key.Secret)
	ts.SetCmd("txtcount", scriptTXTCount(dns))
	ts.SetCmd("zoneline", func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(dns.Set(strings.Join(args, " "))) })
	ts.SetCmd("certstatus", scriptCertStatus(ca))
	scriptExpand(ts, false, []string{"config.toml"})
}

// expand FILE… puts the values of variables in the place of $NAME.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o644))
	}
}

// exits STATUS COMMAND… runs a command that must end with the status.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	status := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// asother COMMAND… runs a command, by root, as a user who owns nothing.
func scriptAsOther(ts *testscript.TestScript, neg bool, args []string) {
	program, err := exec.LookPath(args[0])
	ts.Check(err)
	program, err = filepath.EvalSymlinks(program)
	ts.Check(err)
	copied := filepath.Join(ts.MkAbs("for-others"), args[0]) // the name makes a test's binary the program
	ts.Check(os.MkdirAll(filepath.Dir(copied), 0o755))
	if _, err := os.Stat(copied); err != nil {
		data, err := os.ReadFile(program)
		ts.Check(err)
		ts.Check(os.WriteFile(copied, data, 0o755))
	}
	err = ts.Exec("setpriv", append([]string{"--reuid=12345", "--regid=12345", "--clear-groups", copied}, args[1:]...)...)
	if neg == (err == nil) {
		ts.Fatalf("ends with %v", err)
	}
}

// signal NAME sends a signal to the daemon that runs in the background.
func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}
	running := ts.BackgroundCmds()
	if len(args) != 1 || signals[args[0]] == 0 || len(running) != 1 {
		ts.Fatalf("usage: signal HUP|TERM, while one command runs in the background")
	}
	ts.Check(running[0].Process.Signal(signals[args[0]]))
}

// eventually PATTERN COMMAND… repeats a command until it ends well and its output, of both kinds, has the pattern.
func scriptEventually(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(scriptPatience); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")+ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("nothing like %q within %s (%v)", args[0], scriptPatience, err)
		}
	}
}

// txtcount N wants so many TXT values in the zone.
func scriptTXTCount(dns *testbed.DNS) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		count := 0
		for _, values := range dns.All() {
			count += len(values)
		}
		if len(args) != 1 || strconv.Itoa(count) != args[0] {
			ts.Fatalf("%d TXT values in the zone, want %q", count, args)
		}
	}
}

// verifypair DIR HOSTNAME… wants files in DIR that a service can use for the hostnames: key and certificate belong
// together and chain to the root, and nobody else can read the key.
func scriptVerifyPair(ts *testscript.TestScript, _ bool, args []string) {
	file := func(name string) string { return filepath.Join(ts.MkAbs(args[0]), name) }
	pair, err := tls.LoadX509KeyPair(file("fullchain.pem"), file("privkey.pem"))
	ts.Check(err)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile("root.pem")))
	between.AppendCertsFromPEM([]byte(ts.ReadFile(file("chain.pem"))))
	for _, host := range args[1:] {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
		ts.Check(err)
	}
	info, err := os.Stat(file("privkey.pem"))
	ts.Check(err)
	if info.Mode().Perm() != 0o600 {
		ts.Fatalf("privkey.pem has mode %v", info.Mode())
	}
}
