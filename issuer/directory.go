package issuer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Directory returns the CA's directory (RFC 8555 section 7.1.1), at most twelve hours old.
func (i *Issuer) Directory(ctx context.Context) (acme.Directory, error) {
	return i.directoryWithin(ctx, directoryAge)
}

func (i *Issuer) directoryWithin(ctx context.Context, age time.Duration) (acme.Directory, error) {
	noting, noted := observe(ctx)
	k, err := i.client.within(noting, age)
	if err != nil {
		return acme.Directory{}, i.failed("directory", noted, err)
	}
	return k.directory, nil
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
