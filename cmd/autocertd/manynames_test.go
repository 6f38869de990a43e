//go:build linux

package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestOneCauseOfManyNames has a certificate for a hundred hostnames and a key with a wrong secret: the problem and its cure are
// said once, wherever a person or a program reads them.
func TestOneCauseOfManyNames(t *testing.T) {
	s := newSite(t, siteConfig{})
	s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\nserver = %q\nkey_name = \"acme-key\"\nkey = %q\n",
		s.bind.Addr(), base64.StdEncoding.EncodeToString([]byte("another secret")))}
	s.tables = fmt.Sprintf("[[certificate]]\nname = \"site\"\nhostnames = [%s]\n", quoted(hosts(100)))
	s.write(t)
	const (
		problem = `has another secret for TSIG key "acme-key" (BADSIG)`
		cure    = "copy the key from the server again, or make a new one for both sides: tsig-keygen -a hmac-sha256 acme-key"
		names   = " and 97 more: " // the first three stand before
	)
	once := func(where, text string, words ...string) {
		t.Helper()
		for _, word := range words {
			if n := strings.Count(text, word); n != 1 {
				t.Errorf("%s says %d times %q:\n%s", where, n, word, text)
			}
		}
	}
	r := s.command(t, "renew")
	if r.status != exitFailed {
		t.Errorf("status %d", r.status)
	}
	once("renew", strings.ReplaceAll(r.stderr, `\"`, `"`), problem, cure, names)
	once("status", s.command(t, "status", "site").stdout, problem, cure, names)
	once("the table of status", s.command(t, "status").stdout, problem, cure, names)
	var report statusReport
	if err := json.Unmarshal([]byte(s.command(t, "status", "--json").stdout), &report); err != nil {
		t.Fatal(err)
	}
	if trouble := report.Certificates[0].Issue; !strings.HasSuffix(trouble.Error, problem) || trouble.Cure != cure {
		t.Errorf("status --json has the problem %q and the cure %q", trouble.Error, trouble.Cure)
	}
}
