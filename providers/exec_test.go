package providers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// script writes a program of the shell's and returns its path.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	writeFile(t, path, "#!/bin/sh\n"+body+"\n", 0o755)
	return path
}

func newTestExec(t *testing.T, opts Options) *Provider {
	t.Helper()
	p, err := New("exec", opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The example of the documentation, as it is shipped, against a real BIND.
func TestExecConformance(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	example, err := filepath.Abs("../docs/examples/exec-nsupdate.sh")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(b.Addr())
	p := newTestExec(t, options(fmt.Sprintf("command = [%q, %q, %q]", example, host+" "+port, b.KeyFile("acme-key")), ""))
	if len(p.Servers) > 0 || p.Timeout != 30*time.Second {
		t.Errorf("Servers = %q, Timeout = %v; want none and 30s", p.Servers, p.Timeout)
	}
	providertest.Run(t, serverHarness(b, "acme-key", p.Client))

	_, err = p.Client.AppendRecords(t.Context(), "example.org", oneRecord())
	want := example + ", zone example.org: nsupdate says: update failed: NOTAUTH"
	if failure, ok := errors.AsType[*Error](err); !ok || said(err) != want || failure.Retryable() {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := b.Kill(0); err != nil {
		t.Fatal(err)
	}
	_, err = p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	if failure, ok := errors.AsType[*Error](err); !ok || !failure.Retryable() || !strings.Contains(said(err), "Communication with") {
		t.Errorf("got %v, want a failure to communicate that may be retried", err)
	}
}

// What a program reads, byte for byte: the documentation promises the order of the keys.
func TestExecRequest(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "from \"a\" file\n", 0o600)
	t.Setenv("PASSED_ON", "yes")
	t.Setenv("KEPT_BACK", "no")
	path := script(t, `cat >"$1"; env >"$1.env"; pwd >"$1.pwd"; echo '{"version":1,"ok":true}'`)
	seen := filepath.Join(dir, "seen")
	text := fmt.Sprintf("command = [%q, %q]\nenv = [\"PASSED_ON\", \"NOT_SET\"]\n[options]\nuser = \"<me>\"\ntoken = { file = %q }", path, seen, filepath.Join(dir, "token"))
	p := newTestExec(t, options(text, dir))
	recs := []libdns.Record{
		libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "one&two"},
		libdns.TXT{Name: "@", TTL: time.Hour, Text: "apex"},
		libdns.TXT{Name: "_acme-challenge.full.corp.example.com.", TTL: 90 * time.Second, Text: "3"},
	}
	if _, err := p.Client.DeleteRecords(t.Context(), "Corp.Example.com", recs); err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"action":"delete","zone":"corp.example.com.","records":[` +
		`{"name":"_acme-challenge.www","type":"TXT","ttl":60,"value":"one&two"},` +
		`{"name":"@","type":"TXT","ttl":3600,"value":"apex"},` +
		`{"name":"_acme-challenge.full","type":"TXT","ttl":90,"value":"3"}],` +
		`"options":{"token":"from \"a\" file","user":"<me>"}}` + "\n"
	if got := readFile(t, seen); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	env := readFile(t, seen+".env")
	for _, name := range []string{"PATH=", "HOME=", "PASSED_ON=yes"} {
		if !strings.Contains("\n"+env, "\n"+name) {
			t.Errorf("the environment has no %s:\n%s", name, env)
		}
	}
	if strings.Contains(env, "KEPT_BACK") || strings.Contains(env, "NOT_SET") {
		t.Errorf("the environment isn't clean:\n%s", env)
	}
	if got := readFile(t, seen+".pwd"); got != "/\n" {
		t.Errorf("it ran in %s", got)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestExecFailures(t *testing.T) {
	const advice = `; it must print one reply, such as {"version":1,"ok":true}, on standard output and nothing else there`
	tests := []struct {
		name, body       string
		want             string // PROGRAM stands for its path; "" is success
		retryable, whole bool
	}{
		{name: "success without reading the request", body: `echo '{"version":1,"ok":true}'`},
		{name: "a refusal", body: `echo '{"version":1,"error":"no such zone"}'`,
			want: "PROGRAM, zone example.test: no such zone"},
		{name: "a refusal for now", body: `printf '%s' '{"version":1,"error":"too many\nrequests","retryable":true}'`,
			want: "PROGRAM, zone example.test: too many requests", retryable: true},
		{name: "a refusal that is nobody's", body: `echo '{"version":1,"error":"bad token","whole":true}'; exit 1`,
			want: "PROGRAM, zone example.test: bad token", whole: true},
		{name: "a refusal that tells the secret", body: `echo '{"version":1,"error":"token hunter2-hunter2 is unknown, so is a%2Fb+c%3D"}'`,
			want: "PROGRAM, zone example.test: token [token] is unknown, so is [other]"},
		{name: "a refusal that is cut within the secret", body: `printf '{"version":1,"error":"%0195d hunter2-hunter2"}' 0`,
			want: "PROGRAM, zone example.test: " + strings.Repeat("0", 195) + " [tok …"},
		{name: "nothing", body: ``,
			want: "PROGRAM gave no valid reply for zone example.test: it printed nothing" + advice, whole: true},
		{name: "a status and last words", body: `echo 'Traceback:' >&2; echo 'no module hunter2-hunter2' >&2; exit 3`,
			want: "PROGRAM failed for zone example.test (exit status 3) without saying why in a reply; its last line on standard error: no module [token]", whole: true},
		{name: "a signal", body: `kill -TERM $$`,
			want: "PROGRAM failed for zone example.test (signal: terminated) without saying why in a reply", whole: true},
		{name: "success and a status", body: `echo '{"version":1,"ok":true}'; exit 1`,
			want: "PROGRAM failed for zone example.test (exit status 1) without saying why in a reply", whole: true},
		{name: "no JSON", body: `echo 'done hunter2-hunter2'`,
			want: "PROGRAM gave no valid reply for zone example.test: it printed no JSON but \"done [token]\"" + advice, whole: true},
		{name: "another version", body: `echo '{"version":2,"ok":true}'`,
			want: "PROGRAM gave no valid reply for zone example.test: its version isn't 1, the only one that is known" + advice, whole: true},
		{name: "no version", body: `echo '{"ok":true}'`,
			want: "PROGRAM gave no valid reply for zone example.test: its version isn't 1, the only one that is known" + advice, whole: true},
		{name: "neither", body: `echo '{"version":1}'`,
			want: `PROGRAM gave no valid reply for zone example.test: it must hold either "ok": true or an "error" with a text` + advice, whole: true},
		{name: "both", body: `echo '{"version":1,"ok":true,"error":"but"}'`,
			want: `PROGRAM gave no valid reply for zone example.test: it must hold either "ok": true or an "error" with a text` + advice, whole: true},
		{name: "a slip in a key", body: `echo '{"version":1,"error":"later","retriable":true}'`,
			want: `PROGRAM gave no valid reply for zone example.test: json: unknown field "retriable"` + advice, whole: true},
		{name: "two replies", body: `echo '{"version":1,"ok":true}{"version":1,"ok":true}'`,
			want: "PROGRAM gave no valid reply for zone example.test: something follows the reply" + advice, whole: true},
		{name: "too much", body: `exec cat /dev/zero`,
			want: "PROGRAM failed for zone example.test: it wrote more than 1048576 bytes and was ended", whole: true},
		{name: "too slow", body: `exec sleep 600`,
			want: `PROGRAM didn't end within 1s for zone example.test; if it needs longer: timeout = "2s"`, retryable: true, whole: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := script(t, tt.body)
			text := fmt.Sprintf("command = [%q]\n", path)
			if strings.Contains(tt.body, "sleep") {
				text += "timeout = \"1s\"\n"
			}
			p := newTestExec(t, options(text+"options = { token = \"hunter2-hunter2\", other = \"a/b c=\" }", ""))
			_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			failure, ok := errors.AsType[*Error](err)
			if !ok || strings.ReplaceAll(said(err), path, "PROGRAM") != tt.want {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if failure.Retryable() != tt.retryable || failure.Whole() != tt.whole {
				t.Errorf("Retryable() = %v, Whole() = %v; want %v, %v", failure.Retryable(), failure.Whole(), tt.retryable, tt.whole)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %v", err, failure.Err, errors.Unwrap(err)), "hunter2") {
				t.Errorf("the secret is shown: %+v", err)
			}
		})
	}
}

// The program was there when the configuration was read, and is gone now.
func TestExecProgramDisappears(t *testing.T) {
	path := script(t, "")
	p := newTestExec(t, options(fmt.Sprintf("command = [%q]", path), ""))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
	want := fmt.Sprintf("%s failed for zone example.test: fork/exec %s: no such file or directory; see whether it is there and may be executed: ls -l %s", path, path, path)
	if err == nil || said(err) != want || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// What a program says goes to the log: line by line, without secrets, within bounds.
func TestExecLog(t *testing.T) {
	var log bytes.Buffer
	handler := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "program" {
			return slog.Attr{}
		}
		return a
	}})
	path := script(t, `printf 'token hunter2-hunter2\n\nred \033[31m\n%0195d hunter2-hunter2\n' 0 >&2
		i=0; while [ $i -lt 150 ]; do echo line $i; i=$((i+1)); done >&2
		printf 'no end' >&2; echo '{"version":1,"ok":true}'`)
	opts := options(fmt.Sprintf("command = [%q]\noptions = { token = \"hunter2-hunter2\" }", path), "")
	opts.Logger = slog.New(handler)
	if _, err := newTestExec(t, opts).Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	const prefix = `level=INFO msg="a provider's program says" zone=example.test line=`
	if len(lines) != 101 || lines[0] != prefix+`"token [token]"` || lines[1] != prefix+`"red [31m"` || lines[2] != prefix+`"`+strings.Repeat("0", 195)+` [tok …"` || lines[100] != prefix+`"(and more, which is left out)"` {
		t.Errorf("%d lines: %q ... %q", len(lines), lines[:3], lines[len(lines)-1])
	}
}

// A program that is cancelled or too slow dies with its children.
func TestExecEndsTheWholeGroup(t *testing.T) {
	for _, name := range []string{"cancelled", "too slow", "leaves a child behind"} {
		t.Run(name, func(t *testing.T) {
			pidFile := filepath.Join(t.TempDir(), "pid")
			body := `sleep 600 & echo $! >"$1.new"; mv "$1.new" "$1"; wait`
			if name == "leaves a child behind" {
				body = `sleep 600 >/dev/null 2>&1 & echo $! >"$1"; echo '{"version":1,"ok":true}'`
			}
			timeout := "10m"
			if name == "too slow" {
				timeout = "2s"
			}
			p := newTestExec(t, options(fmt.Sprintf("command = [%q, %q]\ntimeout = %q", script(t, body), pidFile, timeout), ""))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "cancelled" {
				go func() {
					waitFor(t, func() bool { _, err := os.Stat(pidFile); return err == nil })
					cancel()
				}()
			}
			_, err := p.Client.AppendRecords(ctx, "example.test", oneRecord())
			if name == "cancelled" && !errors.Is(err, context.Canceled) || (name == "leaves a child behind") != (err == nil) {
				t.Errorf("got %v", err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(readFile(t, pidFile)))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return !alive(pid) })
		})
	}
}

// alive reports whether a process runs; one that has ended and isn't waited for doesn't.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, fs.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("it didn't happen")
			return
		}
	}
}

func TestExecOptionMistakes(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "plain"), "", 0o644)
	writeFile(t, filepath.Join(dir, "open"), "", 0o777)
	tests := []struct{ name, text, want string }{
		{"nothing", "", `command: missing; name a program by its absolute path: command = ["/usr/local/bin/my-dns"]`},
		{"a relative path", `command = ["my-dns"]`, `command: "my-dns" must be an absolute path; no shell and no search path looks for it`},
		{"a program that isn't there", `command = ["DIR/none"]`, "command: DIR/none doesn't exist"},
		{"a folder", `command = ["DIR"]`, "command: DIR isn't a file"},
		{"a file that isn't executable", `command = ["DIR/plain"]`, "command: DIR/plain can't be executed: chmod a+x DIR/plain"},
		{"a program that everybody may change", `command = ["DIR/open"]`, "command: DIR/open can be changed by everybody (mode 0777): chmod o-w DIR/open"},
		{"a timeout and a variable with a value", "command = [\"/bin/true\"]\ntimeout = \"1h\"\nenv = [\"TOKEN=hunter2-hunter2\"]",
			"timeout: must be between 1s and 10m0s\n" + `env: a list of the names of variables that are passed on, without values: env = ["SSL_CERT_FILE"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New("exec", options(strings.ReplaceAll(tt.text, "DIR", dir), dir))
			if err == nil || strings.ReplaceAll(said(err), dir, "DIR") != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// FuzzExecReply looks for replies that make the reader panic, or pass without saying either yes or why not.
func FuzzExecReply(f *testing.F) {
	f.Add([]byte(`{"version":1,"ok":true}`))
	f.Add([]byte(`{"version":1,"error":"x","retryable":true,"whole":true}`))
	f.Add([]byte(`{"Version":1,"ok":true} x`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, out []byte) {
		reply, err := parseExecReply(out)
		if err == nil && (reply.Version != execVersion || reply.OK == (reply.Error != "")) {
			t.Errorf("%q passed as %+v", out, reply)
		}
	})
}
