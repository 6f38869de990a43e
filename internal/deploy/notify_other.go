//go:build !linux

package deploy

import "errors"

// notifier is what Linux can do: elsewhere all files are looked at one by one.
type notifier struct{}

type change struct {
	watch             int32
	moved, gone, lost bool
}

func newNotifier() *notifier                      { return nil }
func (*notifier) add(string, bool) (int32, error) { return 0, errors.ErrUnsupported }
func (*notifier) next([]byte, func(change)) error { return errors.ErrUnsupported }
func (*notifier) close()                          {}
