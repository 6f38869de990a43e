package providers

import (
	"fmt"
	"strings"

	"github.com/libdns/libdns"

	"autocertd/internal/dnsname"
)

// maxText is the longest value of a TXT record that is one string (RFC 1035, 3.3.14).
const maxText = 255

// txtRecords returns recs as TXT records with plain names and values, and refuses everything else. Providers build zone
// file lines and JSON from them, so nothing may pass that needs quoting; and a record without a value would delete
// everybody's.
func txtRecords(recs []libdns.Record) ([]libdns.TXT, error) {
	txts := make([]libdns.TXT, 0, len(recs))
	for _, rec := range recs {
		rr := rec.RR()
		if rr.Name == "" {
			rr.Name = "@"
		}
		if rr.Name != "@" && !isName(rr.Name) {
			return nil, fmt.Errorf("record %.80q isn't a DNS name", rr.Name)
		}
		if rr.Type != "TXT" {
			return nil, fmt.Errorf("record %s is of type %.20q: only TXT records can be written", rr.Name, rr.Type)
		}
		if !isPlainText(rr.Data) {
			return nil, fmt.Errorf("record %s: a value must be 1 to %d printable ASCII characters without quotes and backslashes", rr.Name, maxText)
		}
		txts = append(txts, libdns.TXT{Name: rr.Name, TTL: rr.TTL, Text: rr.Data})
	}
	return txts, nil
}

// relativeRecords returns the zone and recs as TXT records with names relative to it, and refuses names outside.
func relativeRecords(zone string, recs []libdns.Record) (string, []libdns.TXT, error) {
	zone, err := zoneName(zone)
	if err != nil {
		return "", nil, err
	}
	txts, err := txtRecords(recs)
	if err != nil {
		return "", nil, fmt.Errorf("zone %s: %w", zone, err)
	}
	for i, t := range txts {
		name := dnsname.Canonical(libdns.AbsoluteName(t.Name, zone))
		if !dnsname.In(name, zone) {
			return "", nil, &Error{Problem: fmt.Sprintf("%s isn't in zone %s", name, zone)}
		}
		txts[i].Name = libdns.RelativeName(name, zone)
	}
	return zone, txts, nil
}

// zoneName returns zone in lower case without the trailing dot.
func zoneName(zone string) (string, error) {
	if !isName(zone) {
		return "", fmt.Errorf("zone %.80q isn't a DNS name", zone)
	}
	return dnsname.Canonical(zone), nil
}

// isName reports whether s is a DNS name made of letters, digits, hyphens, underscores and asterisks.
func isName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool { return !isNameRune(r) }) < 0
}

func isNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.*", r)
}

func isPlainText(s string) bool {
	if s == "" || len(s) > maxText {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) < 0
}

// asRecords returns txts as the interface that libdns takes.
func asRecords(txts []libdns.TXT) []libdns.Record {
	recs := make([]libdns.Record, len(txts))
	for i, t := range txts {
		recs[i] = t
	}
	return recs
}
