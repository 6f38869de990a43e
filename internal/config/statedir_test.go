package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"autocertd/internal/config"
)

func TestStateDirOfABrokenConfiguration(t *testing.T) {
	tests := []struct{ name, main, dropIn, want string }{
		{"named beside a mistake", "hostnmaes = []\nstate_dir = \"/srv/certs\"\n", "", "/srv/certs"},
		{"named beside a syntax error", "state_dir = '/srv/certs'\nhostnames = [\n", "", "/srv/certs"},
		{"named in a drop-in", "hostnames = [\n", "state_dir=\"/srv/drop\"\n", "/srv/drop"},
		{"in a comment only", "# state_dir = \"/srv/certs\"\n", "", config.DefaultStateDir},
		{"not named", "", "", config.DefaultStateDir},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "config.toml")
			if err := os.WriteFile(path, []byte(tt.main), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "conf.d", "a.toml"), []byte(tt.dropIn), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := config.StateDir(path); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
