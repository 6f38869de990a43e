package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"autocertd/internal/cure"
)

// TestCheckFiles also runs as root, for whom no mode forbids anything; what it must refuse is refused to everybody.
func TestCheckFiles(t *testing.T) {
	base := t.TempDir()
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		o    Output
		want string // in the error; "" for none
	}{
		{"a directory that is there", Output{Dir: base}, ""},
		{"one that will be made", Output{Dir: base + "/some/where/{name}"}, ""},
		{"one file in it", Output{Dir: base, Format: FormatCombined}, ""},
		{"a group of our own", Output{Dir: base, Group: "0"}, ""},
		{"a file in the way", Output{Dir: base + "/file/{name}"}, "a file and a directory stand in each other's place"},
		{"no such group", Output{Dir: base, Group: "no-such-group"}, "\ngroupadd --system no-such-group"},
		{"no such user", Output{Dir: base, Owner: "no-such-user"}, "create the user or correct owner"},
		{"where nobody writes", Output{Dir: "/proc/{name}"}, "make a file in /proc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.o.Group == "0" && os.Geteuid() != 0 {
				t.Skip("only root is in group 0")
			}
			err := tt.o.CheckFiles("site")
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error()+"\n"+cure.Of(err), tt.want)):
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
			if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Step != StepFiles || e.Output != tt.o.ID("site")) {
				t.Errorf("the error names neither step nor output: %#v", err)
			}
		})
	}
	left, err := os.ReadDir(base)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestCheckFilesUnreadable has a folder of a user's that may be written and not read: an output needs both.
func TestCheckFilesUnreadable(t *testing.T) {
	dir := openDir(t, 0o733)
	o := Output{Dir: dir + "/{name}"}
	asNobody(t, func() {
		if err := o.CheckFiles("site"); err == nil || !strings.Contains(err.Error(), "read "+dir+": permission denied") {
			t.Errorf("%v, want that it can't be read", err)
		}
	})
}

// TestCheckFilesImmutable has a folder and a file with an attribute that stops root too.
func TestCheckFilesImmutable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "site.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	o := Output{Dir: dir, Format: FormatCombined}
	for _, path := range []string{file, dir} {
		at, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		if err := unix.IoctlSetPointerInt(int(at.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
			t.Skipf("only root on some file systems can: %v", err)
		}
		defer func() { _ = unix.IoctlSetPointerInt(int(at.Fd()), unix.FS_IOC_SETFLAGS, 0) }()
		want := "to take it off: chattr -i " + path
		if err := o.CheckFiles("site"); err == nil || !strings.HasSuffix(cure.Of(err), want) {
			t.Errorf("%v, want the line %q", err, want)
		}
		if _, err := New(Config{Run: &counter{}}).Apply(t.Context(), newBundle(t, "site"), []Output{o}, nil); err == nil || !strings.HasSuffix(cure.Of(err), want) {
			t.Errorf("%v, want the line %q", err, want)
		}
	}
}

func TestCheckFilesForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	err := Output{Dir: dir + "/{name}"}.CheckFiles("site")
	if err == nil || !strings.Contains(cure.Of(err), "\ninstall -d -o ") {
		t.Errorf("error %v, want the line that makes the directory", err)
	}
}

func TestCheckProgram(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"push-site": 0o755, "data": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ name, program, want string }{
		{"it is there", dir + "/push-{name}", ""},
		{"it isn't", dir + "/absent", "correct the path in run, or install the program"},
		{"it isn't executable", dir + "/data", "permission denied"},
	} {
		err := Output{Dir: dir}.CheckProgram("site", []string{tt.program, "{name}"})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error()+"\n"+cure.Of(err), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := (Output{Dir: dir}).CheckProgram("site", nil); !errors.Is(err, errNoProgram) {
		t.Errorf("an empty command: %v", err)
	}
}

// systemd is a Runner that answers as systemctl does.
type systemd struct {
	LoadState string
	Err       error
}

func (s systemd) Run(_ context.Context, args, _ []string) ([]byte, error) {
	if args[len(args)-1] != "nginx.service" {
		return nil, errors.New("asked about something else")
	}
	return []byte(s.LoadState + "\n"), s.Err
}

func TestCheckUnit(t *testing.T) {
	for _, tt := range []struct {
		name string
		systemd
		want string
	}{
		{"loaded", systemd{"loaded", nil}, ""},
		{"absent", systemd{"not-found", nil}, "systemd knows no unit nginx.service"},
		{"masked", systemd{"masked", nil}, "unit nginx.service is masked"},
		{"no systemd", systemd{"System has not been booted with systemd", errors.New("exit status 1")}, "has not been booted with systemd"},
	} {
		err := New(Config{Run: tt.systemd}).CheckUnit(t.Context(), "nginx.service")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error()+"\n"+cure.Of(err), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if errors.Is(err, ErrNoSystemd) != (tt.Err != nil) {
			t.Errorf("%s: %v: is ErrNoSystemd: %t", tt.name, err, errors.Is(err, ErrNoSystemd))
		}
	}
}

// asked answers as systemd would, and keeps what it was asked.
type asked struct {
	out  string
	err  error
	args []string
}

func (a *asked) Run(_ context.Context, args, _ []string) ([]byte, error) {
	a.args = args
	return []byte(a.out), a.err
}

// TestCheckReload has the answers of systemd 252.
func TestCheckReload(t *testing.T) {
	failed := errors.New("exit status 1")
	for _, tt := range []struct {
		what      string
		systemd   asked
		forbidden bool
	}{
		{"polkit allows it", asked{out: "Failed to reload or restart nginx.service: Isolate is only valid for start.\n", err: failed}, false},
		{"polkit forbids it", asked{out: "Failed to try-reload-or-restart nginx.service: Interactive authentication required.\nSee system logs", err: failed}, true},
		{"there is no polkit", asked{out: "Failed to try-reload-or-restart nginx.service: Access denied\n", err: failed}, true},
		{"nobody answers", asked{out: "Failed to connect to bus: No such file or directory\n", err: failed}, false},
	} {
		err := New(Config{Run: &tt.systemd}).CheckReload(t.Context(), "nginx.service")
		if errors.Is(err, ErrReloadForbidden) != tt.forbidden {
			t.Errorf("%s: %v", tt.what, err)
		}
		if !slices.Contains(tt.systemd.args, "--job-mode=isolate") || !slices.Contains(tt.systemd.args, "--no-ask-password") {
			t.Errorf("%s: asked %q, which may reload or wait for a password", tt.what, tt.systemd.args)
		}
	}
}

func TestCheckService(t *testing.T) {
	locked := map[string]string{"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "StateDirectory": "autocertd",
		"ReadWritePaths": "-/etc/ssl/autocertd +/srv/certs", "InaccessiblePaths": "/srv/certs/secret"}
	gid := strconv.Itoa(os.Getegid())
	for _, tt := range []struct {
		what   string
		values map[string]string
		groups []int
		o      Output
		want   string // in the error; "" for none
	}{
		{"a folder that is opened", locked, nil, Output{Dir: "/etc/ssl/autocertd/{name}"}, ""},
		{"one beside it", locked, nil, Output{Dir: "/etc/ssl/autocertd2/{name}"}, "the service may not write /etc/ssl/autocertd2/site: autocertd.service doesn't open it by ReadWritePaths="},
		{"the cure is to be pasted", locked, nil, Output{Dir: "/srv/x/{name}"}, "\necho 'ReadWritePaths=-/srv/x' >>/etc/systemd/system/autocertd.service.d/outputs.conf\nsystemctl daemon-reload"},
		{"the state directory", locked, nil, Output{Dir: "/var/lib/autocertd/live/{name}"}, ""},
		{"closed again below", locked, nil, Output{Dir: "/srv/certs/secret/{name}"}, "may not write"},
		{"home", map[string]string{"ProtectHome": "read-only"}, nil, Output{Dir: "/home/web/{name}"}, "may not write"},
		{"a unit that locks nothing in", map[string]string{"ProtectHome": "no", "ProtectSystem": "no"}, nil, Output{Dir: "/home/web/{name}"}, ""},
		{"/usr is more often closed than /srv", map[string]string{"ProtectSystem": "yes"}, nil, Output{Dir: "/srv/{name}"}, ""},
		{"/etc too", map[string]string{"ProtectSystem": "full"}, nil, Output{Dir: "/etc/haproxy/{name}"}, "may not write"},
		{"a /tmp that nobody else sees", locked, nil, Output{Dir: "/tmp/{name}"}, "has a /tmp of its own"},
		{"a group that it has", nil, []int{1, os.Getegid()}, Output{Dir: "/srv", Group: gid}, ""},
		{"a group that it will have", nil, []int{1}, Output{Dir: "/srv", Group: "4711"}, "isn't in group 4711 yet"},
		{"no process runs", nil, nil, Output{Dir: "/srv", Group: "4711"}, ""},
		{"it may give files away", map[string]string{"AmbientCapabilities": "cap_chown cap_fowner"}, []int{1}, Output{Dir: "/srv", Group: "4711"}, ""},
	} {
		s := newService("autocertd.service", tt.values)
		s.groups = tt.groups
		err := tt.o.CheckService("site", s)
		text := ""
		if e, ok := errors.AsType[*Error](err); ok {
			text = e.Err.Error() + "\n" + e.Cure()
		}
		if tt.want == "" && err != nil || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
	if groups := groupsOf(os.Getpid()); !slices.Contains(groups, os.Getegid()) {
		t.Errorf("our own groups are %v", groups)
	}
	other := &asked{out: "LoadState=loaded\nUser=nobody-such\n"}
	if s := New(Config{Run: other}).Service(t.Context(), "autocertd.service"); s != nil {
		t.Error("a unit of another user says something about us")
	}
}
