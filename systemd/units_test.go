// Package systemd_test holds the units to what systemd itself says of them: that
// they are valid, and how exposed the service is. Running them is left to a
// machine that was booted by systemd.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const unit = "autocertd.service"

// maxExposure is 1.5 in tenths, as systemd-analyze --threshold takes it.
const maxExposure = "15"

func TestVerify(t *testing.T) {
	tests := []struct {
		name   string
		dropIn string
	}{
		{name: "as it is"},
		{name: "with the example for outputs", dropIn: "outputs.conf.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeUnit(t, dir)
			if tt.dropIn != "" {
				writeFile(t, filepath.Join(dir, unit+".d", "outputs.conf"), readFile(t, tt.dropIn))
			}
			if out := analyze(t, "verify", "--man=no", path); out != "" {
				t.Errorf("systemd-analyze verify complains:\n%s", out)
			}
		})
	}
}

func TestExposure(t *testing.T) {
	out := analyze(t, "security", "--offline=true", "--no-pager", "--threshold="+maxExposure, unit)
	if !strings.Contains(out, "Overall exposure level") {
		t.Errorf("systemd-analyze security gives no level:\n%s", out)
	}
}

// writeUnit puts a copy of the unit into dir whose commands exist on this
// machine: verify refuses those that don't.
func writeUnit(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const installed = "ExecStart=/usr/local/bin/autocertd "
	text := readFile(t, unit)
	if strings.Count(text, installed) != 1 {
		t.Fatalf("%s doesn't say %q once; make install replaces that path", unit, installed)
	}
	path := filepath.Join(dir, unit)
	writeFile(t, path, strings.Replace(text, installed, "ExecStart="+self+" ", 1))
	return path
}

// analyze runs systemd-analyze, which must succeed, and returns all it says.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		const need = "systemd-analyze is missing: install Debian's package systemd"
		if os.Getenv("CI") == "true" || os.Geteuid() == 0 {
			t.Fatal(need)
		}
		t.Skip(need)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
