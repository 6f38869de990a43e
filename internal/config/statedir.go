package config

import (
	"path/filepath"
	"regexp"

	"autocertd/internal/durable"
)

var stateDirLine = regexp.MustCompile(`(?m)^\s*state_dir\s*=\s*["']([^"'\n]+)["']`)

// StateDir returns the state directory that the files name, however wrong the rest of them is: who looks for what a
// running daemon says must find it although the configuration can't be loaded. Where none is named it is the default.
func StateDir(path string) string {
	dropIns, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "conf.d", "*.toml")) // the pattern is fine
	for _, file := range append([]string{path}, dropIns...) {
		text, err := durable.Read(file, maxFileSize)
		if err != nil {
			continue
		}
		if found := stateDirLine.FindSubmatch(text); found != nil {
			return string(found[1])
		}
	}
	return DefaultStateDir
}
