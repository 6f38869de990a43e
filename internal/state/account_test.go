package state_test

import (
	"slices"
	"testing"

	"autocertd/internal/state"
	"autocertd/issuer"
)

// TestAccountNames finds the accounts that an issuer keeps, by the directory of their CA.
func TestAccountNames(t *testing.T) {
	s := open(t)
	const directory, other = "https://ca.example.test/directory", "https://other.example.test/directory"
	for _, key := range []string{issuer.AccountKey("one", directory) + "/account.json", issuer.AccountKey("two", directory) + "/account.json",
		issuer.AccountKey("two", directory) + "/rollover.json", issuer.AccountKey("keyless", directory) + "/rollover.json",
		issuer.AccountKey("elsewhere", other) + "/account.json"} {
		must(t, s.Save(t.Context(), key, []byte("{}")))
	}
	names, err := state.AccountNames(t.Context(), s, directory)
	if err != nil || !slices.Equal(names, []string{"one", "two"}) {
		t.Errorf("accounts of %q, %v", names, err)
	}
	if got, want := state.AccountKey("one", directory), issuer.AccountKey("one", directory); got != want {
		t.Errorf("the account is kept at %s, not at %s", want, got)
	}
}
