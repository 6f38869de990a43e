package zones

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/printable"
)

// Fault is what is wrong with a bogus zone, as far as its records tell.
type Fault string

// What the records can tell.
const (
	UnknownFault Fault = ""
	Unsigned     Fault = "unsigned"      // the zone above has a DS record, the zone no key or no signature
	WrongKey     Fault = "wrong key"     // no DS record of the zone above is one of the zone's keys
	Expired      Fault = "expired"       // the signatures were valid once
	NotYetValid  Fault = "not yet valid" // the signatures will be valid
)

// explain finds out why a resolver answers SERVFAIL: if it has the records, it is their signatures. Some resolvers say what
// is wrong (RFC 8914); for those that don't, the records are looked at.
func (v validator) explain(name string, failure *dns.Msg, verdict *Verdict) {
	codes, words := extendedErrors(failure)
	verdict.Reasons = words
	unchecked, err := v.ask(name, dns.TypeSOA, true)
	if err != nil || !isAnswer(unchecked) {
		verdict.Reasons = append([]string{"it answers SERVFAIL"}, words...)
		return
	}
	verdict.Validity, verdict.Signed = Bogus, isSigned(unchecked)
	verdict.Zone = zoneIn(unchecked, lastAlias(unchecked, name))
	fault, reason := v.fault(verdict.Zone, time.Now())
	if fault == UnknownFault {
		verdict.Fault = faultOf(codes)
		return
	}
	verdict.Fault, verdict.Reasons = fault, append([]string{reason}, words...)
}

// fault looks at the records of a bogus zone.
func (v validator) fault(zone string, now time.Time) (Fault, string) {
	soa, errSOA := v.ask(zone, dns.TypeSOA, true)
	keys, errKeys := v.ask(zone, dns.TypeDNSKEY, true)
	ds, errDS := v.ask(zone, dns.TypeDS, true)
	if zone == "" || errSOA != nil || errKeys != nil || errDS != nil {
		return UnknownFault, ""
	}
	above, own := recordsIn[*dns.DS](ds), recordsIn[*dns.DNSKEY](keys)
	switch {
	case len(own) == 0, len(recordsIn[*dns.RRSIG](soa)) == 0:
		return Unsigned, "the zone isn't signed, and the zone above says that it is"
	case len(above) > 0 && !anyMatches(above, own):
		return WrongKey, fmt.Sprintf("the DS records of the zone above are of %s, the zone has %s", tagsOf(above, dsTag), tagsOf(own, (*dns.DNSKEY).KeyTag))
	}
	for _, signed := range []*dns.Msg{soa, keys} {
		if fault, reason := outOfTime(recordsIn[*dns.RRSIG](signed), now); fault != UnknownFault {
			return fault, reason
		}
	}
	return UnknownFault, ""
}

// outOfTime looks whether one of the signatures of a record is valid now. It looks at the one that ends last.
func outOfTime(signatures []*dns.RRSIG, now time.Time) (Fault, string) {
	var first, last time.Time
	for _, s := range signatures {
		if end := signatureTime(s.Expiration, now); end.After(last) {
			first, last = signatureTime(s.Inception, now), end
		}
	}
	switch {
	case len(signatures) == 0:
		return UnknownFault, ""
	case last.Before(now):
		return Expired, "the signatures expired on " + last.Format(time.DateTime) + " UTC"
	case first.After(now):
		return NotYetValid, "the signatures aren't valid before " + first.Format(time.DateTime) + " UTC"
	}
	return UnknownFault, ""
}

// anyMatches reports whether one of the DS records is of one of the keys.
func anyMatches(above []*dns.DS, own []*dns.DNSKEY) bool {
	return slices.ContainsFunc(above, func(ds *dns.DS) bool {
		return slices.ContainsFunc(own, func(key *dns.DNSKEY) bool {
			of := key.ToDS(ds.DigestType)
			return of != nil && of.KeyTag == ds.KeyTag && strings.EqualFold(of.Digest, ds.Digest)
		})
	})
}

func dsTag(ds *dns.DS) uint16 { return ds.KeyTag }

// tagsOf names keys as the tools of BIND do.
func tagsOf[R any](records []R, tag func(R) uint16) string {
	tags := map[string]bool{}
	for _, r := range records {
		tags[strconv.Itoa(int(tag(r)))] = true
	}
	word := "key "
	if len(tags) > 1 {
		word = "keys "
	}
	return word + strings.Join(slices.Sorted(maps.Keys(tags)), ", ")
}

// signatureTime is a moment in a signature: seconds of a clock of 32 bits that goes round (RFC 4034, section 3.1.5).
func signatureTime(seconds uint32, now time.Time) time.Time {
	return now.Add(time.Duration(int32(seconds-uint32(now.Unix()))) * time.Second).UTC().Truncate(time.Second)
}

// extendedErrors reads what a resolver says beside its answer (RFC 8914).
func extendedErrors(reply *dns.Msg) (codes []uint16, words []string) {
	opt := reply.IsEdns0()
	if opt == nil {
		return nil, nil
	}
	for _, option := range opt.Option {
		ede, ok := option.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		text, known := dns.ExtendedErrorCodeToString[ede.InfoCode]
		if !known {
			text = "extended error " + strconv.Itoa(int(ede.InfoCode))
		}
		if ede.ExtraText != "" {
			text += fmt.Sprintf(" (%q)", printable.Short(ede.ExtraText, 200))
		}
		codes, words = append(codes, ede.InfoCode), append(words, text)
	}
	return codes, words
}

// faultOf is what the codes of a resolver say.
func faultOf(codes []uint16) Fault {
	for _, code := range codes {
		switch code {
		case dns.ExtendedErrorCodeSignatureExpired, dns.ExtendedErrorCodeSignatureExpiredBeforeValid:
			return Expired
		case dns.ExtendedErrorCodeSignatureNotYetValid:
			return NotYetValid
		case dns.ExtendedErrorCodeDNSKEYMissing:
			return WrongKey
		case dns.ExtendedErrorCodeRRSIGsMissing:
			return Unsigned
		}
	}
	return UnknownFault
}
