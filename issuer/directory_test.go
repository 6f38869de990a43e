package issuer_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// TestProfileThatIsNotOffered: the error lists what is, and nothing was ordered.
func TestProfileThatIsNotOffered(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{Profiles: map[string]time.Duration{"classic": 0, "short": time.Hour}}, nil)
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"p.example.test"}, Profile: "shrot", Orders: keep}
	_, err := w.Obtain(t.Context(), request)
	want := `CA pebble: order: the CA doesn't offer the profile "shrot"; it offers "classic" (classic), "short" (short)`
	if err == nil || said(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if n := w.CA.Requests()["newOrder"]; n != 0 || keep.Open != nil || len(w.Solver.Published) > 0 {
		t.Errorf("%d orders were sent", n)
	}
	if _, ok := errors.AsType[*issuer.Error](err); !ok {
		t.Error("it isn't this CA's failure, so that no other CA would be asked")
	}

	request.Profile = "short"
	bundle, err := w.Obtain(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if lifetime := bundle.Cert.NotAfter.Sub(bundle.Cert.NotBefore).Round(time.Minute); lifetime != time.Hour {
		t.Errorf("the certificate is for %v", lifetime)
	}
}

// TestOtherThanADirectory: what answers under the directory's URL may be anything.
func TestOtherThanADirectory(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) {
		c.Directory = strings.Replace(c.Directory, "/dir", "/roots/0", 1)
	})
	if _, err := w.Directory(t.Context()); err == nil || !strings.Contains(said(err), "CA pebble: directory:") {
		t.Errorf("got %v", err)
	}
}
