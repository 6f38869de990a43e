package dnschallenge

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestChallenge(t *testing.T) {
	// The account and its label are those of the example in draft-ietf-acme-dns-account-label.
	const account, accountName = "https://example.com/acme/acct/ExampleAccount", "_ujmmovf2vn55tgye._acme-challenge."
	tests := []struct {
		name string
		c    Challenge
		want string
	}{
		{"a hostname", Challenge{Hostname: "www.example.test"}, "_acme-challenge.www.example.test"},
		{"a hostname, by its type", Challenge{Type: DNS01, Hostname: "www.example.test"}, "_acme-challenge.www.example.test"},
		{"a wildcard has the name of its parent", Challenge{Hostname: "*.example.test"}, "_acme-challenge.example.test"},
		{"an account of its own", Challenge{Type: DNSAccount01, Hostname: "example.org", Account: account}, accountName + "example.org"},
		{"a wildcard of an account", Challenge{Type: DNSAccount01, Hostname: "*.example.org", Account: account}, accountName + "example.org"},
		{"dns-01 has one name for all accounts", Challenge{Type: DNS01, Hostname: "example.org", Account: account}, "_acme-challenge.example.org"},
	}
	for _, tt := range tests {
		got := tt.c.Name()
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if host := Hostname(got); host != strings.TrimPrefix(tt.c.Hostname, "*.") {
			t.Errorf("%s: %s is for %s", tt.name, got, host)
		}
		if tt.c.Standing() {
			t.Errorf("%s stands for good", tt.name)
		}
	}
	for _, name := range []string{"www.example.test", "x_acme-challenge.example.test", ""} {
		if got := Hostname(name); got != name {
			t.Errorf("%q, which is no challenge, is for %q", name, got)
		}
	}
	// The token of RFC 8555 section 8.4 with a thumbprint of our choice.
	if got := (Challenge{KeyAuthorization: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.thumb"}).Value(); len(got) != 43 {
		t.Errorf("the value %q isn't a SHA-256 in base64url", got)
	}
}

func TestPossible(t *testing.T) {
	const account = "https://ca.test/acct/1"
	longest := strings.Repeat("a", MaxHostname)
	tests := []struct {
		name     string
		types    []Type
		hostname string
		account  string
		want     []Type
		missing  bool
	}{
		{name: "nothing is configured", hostname: "www.example.test", want: []Type{DNS01}},
		{name: "in the order of the configuration", types: []Type{DNSAccount01, DNS01}, hostname: "www.example.test", account: account, want: []Type{DNSAccount01, DNS01}},
		{name: "no account yet", types: []Type{DNSAccount01, DNS01}, hostname: "www.example.test", want: []Type{DNS01}, missing: true},
		{name: "a name that leaves no room for the account", types: []Type{DNSAccount01, DNS01}, hostname: longest, account: account, want: []Type{DNS01}},
	}
	for _, tt := range tests {
		list, missing := Possible(tt.types, tt.hostname, tt.account)
		var got []Type
		for _, c := range list {
			got = append(got, c.Type)
			if c.Hostname != tt.hostname || c.Account != tt.account {
				t.Errorf("%s: %+v", tt.name, c)
			}
		}
		if !slices.Equal(got, tt.want) || missing != tt.missing {
			t.Errorf("%s: %v, missing %t", tt.name, got, missing)
		}
	}
}

// TestOneHome finds the label in no other file of the product: whoever makes, or reads, the name of a challenge does it
// here. Prose may name it.
func TestOneHome(t *testing.T) {
	root := filepath.Join("..", "..")
	others := []string{"internal/dnschallenge", "internal/testbed", "providers/providertest", "cmd/sandbox", "bench"} // the product has none of these but the first
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || entry.IsDir() && slices.Contains(others, filepath.ToSlash(rel)) {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		var s scanner.Scanner
		s.Init(set.AddFile(path, set.Base(), len(text)), text, nil, 0)
		for {
			pos, tok, lit := s.Scan()
			if tok == token.EOF {
				return nil
			}
			if tok == token.STRING && (strings.Contains(lit, label+".") || strings.Trim(lit, "\"`") == label) {
				t.Errorf("%s: %s makes a challenge's name by itself", set.Position(pos), lit)
			}
		}
	})
	if err != nil || files < 100 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
}
