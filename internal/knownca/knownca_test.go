package knownca

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	names, directories := map[string]bool{}, map[string]bool{}
	for _, ca := range All() {
		if names[ca.Name] || directories[ca.Directory] {
			t.Errorf("%s stands in the table twice", ca.Name)
		}
		names[ca.Name], directories[ca.Directory] = true, true
		if ca.Staging != "" && Directory(ca.Staging) == "" {
			t.Errorf("%s rehearses at %s, which isn't there", ca.Name, ca.Staging)
		}
		if !strings.HasPrefix(ca.Directory, "https://") || At(ca.Directory).Name != ca.Name {
			t.Errorf("%s isn't found at %q", ca.Name, ca.Directory)
		}
		if got, want := Directory(ca.Name) == "", ca.Ended; got != want {
			t.Errorf("%s has no directory: %t, want %t", ca.Name, got, want)
		}
	}
	if got, want := Names(), []string{Google, LetsEncrypt, LetsEncryptStaging, ZeroSSL}; !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	if At("https://ca.corp.example.com/directory").Limits.Any() {
		t.Error("a CA that isn't known has limits")
	}
}

func TestProfiles(t *testing.T) {
	tests := []struct {
		directory, profile, at string
		names                  int
		lifetime               time.Duration
	}{
		{Directory(LetsEncrypt), "", "2026-12-01", 100, 90 * day},
		{Directory(LetsEncrypt), "classic", "2027-02-09", 100, 90 * day},
		{Directory(LetsEncrypt), "classic", "2027-02-10", 100, 64 * day},
		{Directory(LetsEncrypt), "classic", "2028-02-16", 100, 45 * day},
		{Directory(LetsEncryptStaging), "tlsserver", "2026-12-01", 25, 45 * day},
		{Directory(LetsEncrypt), "shortlived", "2026-12-01", 25, 160 * hour},
		{Directory(LetsEncrypt), "own", "2026-12-01", 0, 0},
		{Directory(ZeroSSL), "", "2026-12-01", 0, 0},
		{"https://ca.corp.example.com/directory", "classic", "2026-12-01", 0, 0},
	}
	for _, tt := range tests {
		at, err := time.Parse(time.DateOnly, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		p := At(tt.directory).Profile(tt.profile)
		if p.MostNames != tt.names || p.Lifetime(at) != tt.lifetime {
			t.Errorf("%s, profile %q at %s: %d names for %s, want %d for %s", tt.directory, tt.profile, tt.at, p.MostNames, p.Lifetime(at), tt.names, tt.lifetime)
		}
	}
}

// TestRateIsReadAsWritten: UnmarshalText reads the texts that String writes.
func TestRateIsReadAsWritten(t *testing.T) {
	for _, text := range []string{"50 per 7d", "300 per 3h", "1 per 90m", "10 per 2s", "none", "7 per 1m30s"} {
		var r, again Rate
		if err := errors.Join(r.UnmarshalText([]byte(text)), again.UnmarshalText([]byte(r.String()))); err != nil || r != again {
			t.Errorf("%s is read as %+v, written as %s and read as %+v (%v)", text, r, r, again, err)
		}
	}
	for _, text := range []string{"", "50", "0 per 1h", "-1 per 1h", "1 per 367d", "1 per 0s", "2 per 1us", "1 per x", "1.5 per 1h", "1 per 1d1h", "50 per 7d ago"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil || r.Limited() {
			t.Errorf("%q is read as %s", text, r)
		}
	}
	if each := (Rate{50, week}).Each(); each != 201*time.Minute+36*time.Second {
		t.Errorf("one more after %s", each)
	}
}

// TestFactsStandHereAlone looks through the product's code for the addresses of the table.
func TestFactsStandHereAlone(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "testbed" || entry.Name() == "knownca" || entry.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		code, err := os.ReadFile(path)
		for _, ca := range All() {
			if strings.Contains(string(code), ca.Directory) {
				t.Errorf("%s has the directory of %s", path, ca.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
