package config

import (
	"os"
	"path/filepath"
	"regexp"
)

var stateDirLine = regexp.MustCompile(`(?m)^\s*state_dir\s*=\s*["']([^"'\n]+)["']`)

// StateDir returns the state directory that the files name, however wrong the rest of them is: who looks for what a
// running daemon says must find it although the configuration can't be loaded. Where none is named it is the default.
func StateDir(path string) string {
	dropIns, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "conf.d", "*.toml")) // the pattern is fine
	for _, file := range append([]string{path}, dropIns...) {
		text, err := os.ReadFile(file)
		if err != nil || len(text) > maxFileSize {
			continue
		}
		if found := stateDirLine.FindSubmatch(text); found != nil {
			return string(found[1])
		}
	}
	return DefaultStateDir
}
