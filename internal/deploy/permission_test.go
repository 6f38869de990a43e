package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
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

func TestCheckFilesForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	err := Output{Dir: dir + "/{name}"}.CheckFiles("site")
	if err == nil || !strings.Contains(err.Error(), "\ninstall -d -o ") {
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
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
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
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if errors.Is(err, ErrNoSystemd) != (tt.Err != nil) {
			t.Errorf("%s: %v: is ErrNoSystemd: %t", tt.name, err, errors.Is(err, ErrNoSystemd))
		}
	}
}
