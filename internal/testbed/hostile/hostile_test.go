package hostile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

// TestTurn: a hostile CA is one only after it was turned, and behaves again when it is told to.
func TestTurn(t *testing.T) {
	ca, err := Start("text-directory", testbed.CAConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.TLSRootsPEM())
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	hostile := func() bool {
		resp, err := client.Get(ca.Directory())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(body), `bad\u001b`)
	}
	for _, turned := range []bool{false, true, false} {
		ca.Turn(turned)
		if got := hostile(); got != turned {
			t.Errorf("hostile is %t after Turn(%t)", got, turned)
		}
	}
	if _, err := client.Get(ca.Stranger.HTTPS); err != nil {
		t.Error("the stranger isn't trusted, so that nobody would go there anyway: ", err)
	}
	if ca.Stranger.Visits() != 1 {
		t.Error("visits to the stranger aren't counted")
	}
}

func TestProgram(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-dir", t.TempDir(), "order-null"}, strings.NewReader("turn\nseen order-null newOrder\nvisits\n"), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if want := "done done 0 done done"; !strings.HasPrefix(lines[0], "order-null https://127.0.0.1:") || strings.TrimSpace(strings.Join(lines[1:], " ")) != want {
		t.Errorf("it says %q", out.String())
	}
	if err := run([]string{"no-such-mode"}, strings.NewReader(""), &out); err == nil {
		t.Error("it takes a mode that doesn't exist")
	}
}
