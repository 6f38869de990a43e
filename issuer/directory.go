package issuer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	directoryAge = 12 * time.Hour
	freshAge     = time.Minute // of a directory that says that something isn't offered
)

// Directory returns the CA's directory (RFC 8555 section 7.1.1), at most twelve hours old.
func (i *Issuer) Directory(ctx context.Context) (acme.Directory, error) {
	return i.directoryWithin(ctx, directoryAge)
}

func (i *Issuer) directoryWithin(ctx context.Context, age time.Duration) (acme.Directory, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.directory != nil && time.Since(i.fetched) < age {
		return *i.directory, nil
	}
	var dir acme.Directory
	// The observer shows the library a directory without renewalInfo; this request asks past it.
	if noted, err := i.getJSON(unfiltered(ctx), i.cfg.Directory, &dir); err != nil {
		return dir, i.failed("directory", noted, err)
	}
	if dir.NewOrder == "" || dir.NewNonce == "" || dir.NewAccount == "" {
		return dir, i.explain("directory", errors.New("what answered isn't an ACME directory: newOrder, newNonce or newAccount is missing"))
	}
	i.directory, i.fetched = &dir, time.Now()
	return dir, nil
}

// checkProfile refuses a profile that the CA doesn't offer, before anything is ordered.
func (i *Issuer) checkProfile(ctx context.Context, profile string) error {
	if profile == "" {
		return nil
	}
	var offered map[string]string
	for _, age := range []time.Duration{directoryAge, freshAge} {
		dir, err := i.directoryWithin(ctx, age)
		if err != nil {
			return err
		}
		if dir.Meta != nil {
			offered = dir.Meta.Profiles
		}
		if _, ok := offered[profile]; ok {
			return nil
		}
	}
	e := &Error{CA: i.cfg.Name, Step: "order", Err: fmt.Errorf("the CA has no profiles, so that it can't offer %q", profile),
		Hint: "leave profile out"}
	if len(offered) > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(offered)) {
			list = append(list, fmt.Sprintf("%q (%s)", name, offered[name]))
		}
		e.Err, e.Hint = fmt.Errorf("the CA doesn't offer the profile %q", profile), "it offers "+strings.Join(list, ", ")
	}
	return e
}
