package providers

import (
	"errors"
	"strings"
	"testing"

	"github.com/libdns/libdns"
)

func TestManualWritesNothing(t *testing.T) {
	p, err := New("manual", options("", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !p.Manual {
		t.Error("nobody can see that a person writes the records")
	}
	record := []libdns.Record{libdns.TXT{Name: "_acme-challenge", Text: "value"}}
	_, add := p.Client.AppendRecords(t.Context(), "example.test.", record)
	_, remove := p.Client.DeleteRecords(t.Context(), "example.test.", record)
	for _, err := range []error{add, remove} {
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Retryable() || !e.Whole() || !strings.Contains(said(err), "autocertd order new") {
			t.Errorf("got %v, want a refusal for good that names another way", err)
		}
	}
}
