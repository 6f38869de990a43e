package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"autocertd/internal/term"
)

func versionCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "version",
		Short: "Which version is this?",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return term.JSON(os.Stdout, built())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "the same for programs")
	return command
}

// binary describes this program, from the build information that Go puts into it.
type binary struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, when that is known
	Changed  bool   `json:"changed"`            // the source had changes beside the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func built() binary {
	b := binary{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Changed = s.Value == "true"
			}
		}
	}
	return b
}

// version returns a line that describes the build.
func version() string {
	b, revision, changes := built(), "", ""
	if b.Revision != "" {
		revision = " " + b.Revision[:min(12, len(b.Revision))]
	}
	if b.Changed {
		changes = "+changes"
	}
	return fmt.Sprintf("autocertd %s%s%s (%s, %s/%s)", b.Version, revision, changes, b.Go, b.OS, b.Arch)
}

// userAgent returns the name of this program for CAs.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return "autocertd/" + info.Main.Version
	}
	return "autocertd"
}
