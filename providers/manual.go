package providers

import (
	"context"

	"github.com/libdns/libdns"
)

// newManual builds a provider for zones that a person edits. It has no keys of its own.
func newManual(opts Options) (*Provider, error) {
	var none struct{}
	if err := opts.Decode(&none); err != nil {
		return nil, err
	}
	return &Provider{Client: manualClient{}, Manual: true}, nil
}

// manualClient stands for a person who writes the records.
type manualClient struct{}

// AppendRecords refuses: nothing can be written here.
func (manualClient) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errManual()
}

// DeleteRecords refuses: nothing can be removed here.
func (manualClient) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errManual()
}

func errManual() error {
	return &Error{Problem: "the provider is of type manual: a person writes its records, so that nothing can be tried",
		Hint: "to get a certificate step by step: autocertd order new NAME", whole: true}
}
