//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"autocertd/internal/testbed"
)

// wrongWorld is the servers that wrong set-ups meet: a site where all is well, and others.
type wrongWorld struct {
	*site
	secrets []string
	servers []wrongServer
}

// wrongServer is a server, host:port, and the word for it.
type wrongServer struct{ word, addr string }

// foreignConf is a BIND that knows the key and has none of the site's zones; lame.test is delegated to it all the same.
const foreignConf = `
options {
	directory "{{.Dir}}"; pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Port}} { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no;
};
controls { };
key "{{.Data.Name}}" { algorithm {{.Data.Algorithm}}; secret "{{.Data.Secret}}"; };
zone "elsewhere.example" { type primary; file "zone"; update-policy { grant {{.Data.Name}} zonesub TXT; }; };
`

const foreignZone = "$TTL 60\n@ SOA ns1 hostmaster 1 300 60 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n"

// newWrongWorld starts the servers. No other test may start a process meanwhile: see startLate.
func newWrongWorld(t *testing.T) *wrongWorld {
	t.Helper()
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{
		Keys: []testbed.TSIGKey{{Name: "acme-key"}, {Name: "wrong-key"}},
		Zones: []testbed.BINDZone{
			{Name: zone, Records: []string{`_acme-challenge.alias CNAME host.elsewhere.test.`},
				Policy: []string{"grant acme-key name _acme-challenge.www.example.test. TXT"}},
			{Name: "lame.test", Records: []string{`@ NS ns9`, `ns9 A 127.0.0.2`}},
		},
	}})
	key := s.bind.Key("acme-key")
	foreign, err := testbed.StartNamed(t.Context(), testbed.NamedConfig{Dir: s.dir, Conf: foreignConf, Data: key,
		Files: map[string]string{"zone": foreignZone}, Zones: []string{"elsewhere.example"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = foreign.Close() })
	w := &wrongWorld{site: s, secrets: []string{key.Secret, s.bind.Key("wrong-key").Secret}}
	w.servers = []wrongServer{
		{"PRIMARY", s.bind.Addr()},
		{"FOREIGN", foreign.Addr()},
		{"LAME", startRelay(t, "127.0.0.2:0", foreign.Addr())},
		{"LATE", startLate(t, key)},
		{"DEAD", startDead(t)},
		{"SILENT", startSilent(t, "")},
		{"NOTCP", startSilent(t, s.bind.Addr())},
	}
	return w
}

// pairs are the words of rows and what they stand for, in the order of strings.NewReplacer; forward replaces the words.
// Ports and hosts are only replaced by words, and only after whole addresses.
func (w *wrongWorld) pairs(s *site, forward bool) (pairs []string) {
	add := func(word, text string) {
		if !forward {
			word, text = text, word
		}
		pairs = append(pairs, word, text)
	}
	for _, server := range w.servers {
		if server.addr != "" {
			add(server.word, server.addr)
		}
	}
	add("WRONGSECRET", w.secrets[1])
	add("SECRET", w.secrets[0])
	add("KEYFILE", w.bind.KeyFile("acme-key"))
	add("UNREADABLE", s.path("unreadable.key"))
	add("DIR", s.dir)
	if !forward {
		for _, server := range w.servers {
			if _, port, err := net.SplitHostPort(server.addr); err == nil {
				add("PORT", port)
			}
		}
		add("HOST", "127.0.0.1")
	}
	return pairs
}

// lateClock is a library that puts the clock of the process that preloads it back by an hour. Debian's faketime would do
// the same, but not with the memory allocator of BIND.
const lateClock = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
	int failed = syscall(SYS_clock_gettime, id, now);
	if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec -= 3600;
	return failed;
}

// Without this the timers of BIND would be over before they begin, again and again.
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *late) {
	int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *) = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
	struct timespec until = *late;
	until.tv_sec += 3600;
	return wait(cond, mutex, &until);
}
`

// startLate starts a BIND whose clock is an hour late, or returns "" where there is no C compiler. The library is preloaded
// into what starts while the variable is set, so nothing else may.
func startLate(t *testing.T, key testbed.TSIGKey) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		return ""
	}
	library := filepath.Join(t.TempDir(), "late.so")
	compile := exec.CommandContext(t.Context(), cc, "-shared", "-fPIC", "-o", library, "-x", "c", "-")
	compile.Stdin = strings.NewReader(lateClock)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Setenv("LD_PRELOAD", library); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv("LD_PRELOAD")
	b, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir(), Keys: []testbed.TSIGKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.Addr()
}

// startDead returns the address of a BIND that has crashed.
func startDead(t *testing.T) string {
	t.Helper()
	b, err := testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Addr()
}

// startSilent listens as if a firewall were in between: whoever connects by TCP gets no answer, since the queue of
// connections that nobody accepts is full. What comes by UDP goes to the server behind, if there is one.
func startSilent(t *testing.T, behind string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	filler, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = filler.Close() })
	return startRelay(t, l.Addr().String(), behind)
}

// startRelay hands what comes by UDP to a server, and drops it when there is none.
func startRelay(t *testing.T, addr, server string) string {
	t.Helper()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	if server != "" {
		go relay(udp, server)
	}
	return udp.LocalAddr().String()
}

// relay hands datagrams to a server, one after the other, and its answers back, until from is closed.
func relay(from net.PacketConn, server string) {
	packet := make([]byte, 64<<10)
	for {
		n, client, err := from.ReadFrom(packet)
		if err != nil {
			return
		}
		conn, err := net.Dial("udp", server)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(packet[:n]); err == nil {
			if n, err = conn.Read(packet); err == nil {
				_, _ = from.WriteTo(packet[:n], client)
			}
		}
		_ = conn.Close()
	}
}

// has reports whether the server of that word could be started.
func (w *wrongWorld) has(word string) bool {
	return slices.ContainsFunc(w.servers, func(s wrongServer) bool { return s.word == word && s.addr != "" })
}
