package preflight

import (
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/zones"
)

// grant is what one issue or issuewild property allows (RFC 8659, section 4.2; RFC 8657).
type grant struct {
	ca       string   // issuer domain name, "" for nobody
	accounts []string // accounturi parameters; nil for every account
	methods  []string // validationmethods parameters; nil for every method
}

// parseGrant reads the value of a property. One that is malformed allows nobody.
func parseGrant(value string) (g grant) {
	parts := strings.Split(value, ";")
	ca := strings.TrimSpace(parts[0])
	if strings.ContainsAny(ca, " \t=") {
		return grant{}
	}
	for _, part := range parts[1:] {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, setting, ok := strings.Cut(part, "=")
		if !ok {
			return grant{}
		}
		setting = strings.TrimSpace(setting)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "accounturi":
			g.accounts = append(g.accounts, setting)
		case "validationmethods":
			g.methods = append(g.methods, setting)
		}
	}
	g.ca = strings.ToLower(strings.TrimSuffix(ca, "."))
	return g
}

// forCA reports whether the CA itself is meant.
func (g grant) forCA(ca authority) bool {
	return slices.ContainsFunc(ca.identities, func(id string) bool { return g.ca != "" && strings.EqualFold(id, g.ca) })
}

// forAccount reports whether our account is meant. No account fits two parameters (RFC 8657, section 3).
func (g grant) forAccount(account string) bool {
	return g.accounts == nil || len(g.accounts) == 1 && account != "" && g.accounts[0] == account
}

// challenges returns the types of challenges that the CA may ask for.
func (ca authority) challenges() []string {
	if ca.methods == nil {
		return []string{string(dnschallenge.DNS01)}
	}
	return ca.methods
}

// forMethod reports whether a type of challenge is allowed (RFC 8657, section 4).
func (g grant) forMethod(method string) bool {
	return g.methods == nil || len(g.methods) == 1 && slices.Contains(strings.Split(g.methods[0], ","), method)
}

// reject says why none of the properties allows the CA to issue for us; "" when one does. The nearest miss is told.
func reject(properties []zones.CAARecord, ca authority) (reason string) {
	for _, method := range ca.challenges() { // the CA may ask for each
		if reason = rejectMethod(properties, ca, method); reason != "" {
			break
		}
	}
	return reason
}

func rejectMethod(properties []zones.CAARecord, ca authority, method string) (reason string) {
	us := strings.Join(ca.identities, " or ")
	var others []string
	for _, p := range properties {
		g := parseGrant(p.Value)
		switch {
		case g.ca == "":
		case !g.forCA(ca):
			others = append(others, g.ca)
		case g.forAccount(ca.account) && g.forMethod(method):
			return ""
		case !g.forMethod(method):
			reason = fmt.Sprintf("allows %s only by %s, not by %s", g.ca, strings.Join(g.methods, " and "), method)
		case ca.account == "":
			reason = fmt.Sprintf("allows %s only for account %s, and there is no account yet", g.ca, strings.Join(g.accounts, " and "))
		default:
			reason = fmt.Sprintf("allows %s only for account %s, not for ours, which is %s", g.ca, strings.Join(g.accounts, " and "), ca.account)
		}
	}
	switch {
	case reason != "":
		return reason
	case len(others) > 0:
		return fmt.Sprintf("allows %s, not %s", strings.Join(others, " and "), us)
	}
	return "forbids every CA to issue"
}
