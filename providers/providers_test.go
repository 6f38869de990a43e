package providers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"autocertd/internal/cure"
)

// options decodes text as strictly as the configuration does.
func options(text, dir string) Options {
	return Options{Dir: dir, Decode: func(dst any) error {
		md, err := toml.Decode(text, dst)
		if err == nil && len(md.Undecoded()) > 0 {
			err = fmt.Errorf("unknown key %s", md.Undecoded()[0])
		}
		return err
	}}
}

func TestNames(t *testing.T) {
	if want := []string{"cloudflare", "desec", "exec", "manual", "nsupdate", "rfc2136"}; !slices.Equal(Names(), want) {
		t.Errorf("Names() = %q, want %q", Names(), want)
	}
}

func TestUnknownType(t *testing.T) {
	for typ, guess := range map[string]string{
		"rfc2163":    `did you mean "rfc2136"? `,
		"rfc-2136":   `did you mean "rfc2136"? `,
		"CloudFlare": `did you mean "cloudflare"? `,
		"cloudfare":  `did you mean "cloudflare"? `,
		"nsupdte":    `did you mean "nsupdate"? `,
		"rfc1035":    "",
		"":           "",
	} {
		_, err := New(typ, options("", ""))
		if want := fmt.Sprintf("unknown provider type %q; %sknown types: cloudflare, desec, exec, manual, nsupdate, rfc2136", typ, guess); err == nil || said(err) != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

func TestUnknownKeysAreErrors(t *testing.T) {
	for _, typ := range Names() {
		if _, err := New(typ, options(`colour = "green"`, "")); err == nil || !strings.Contains(said(err), "colour") {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

// said is an error as a person reads it.
func said(err error) string {
	if text := cure.Of(err); text != "" {
		return err.Error() + "; " + text
	}
	return err.Error()
}
