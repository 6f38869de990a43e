package zones

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
	"autocertd/internal/printable"
)

// Validity is a resolver's judgement of the signatures of a zone (RFC 4035, section 4.3).
type Validity string

// A resolver that doesn't validate can't tell the first three apart.
const (
	Secure        Validity = "secure"         // signed, and the signatures are right
	Insecure      Validity = "insecure"       // not signed, and the zones above say so
	Bogus         Validity = "bogus"          // it must be signed and isn't, or not rightly: resolvers that validate get no answer
	NotValidating Validity = "not validating" // the resolver doesn't look at signatures
	Unanswered    Validity = "unanswered"     // the resolver has no answer, for another reason than signatures
)

// Verdict is the judgement of one resolver about a name.
type Verdict struct {
	Resolver string // host:port
	Zone     string // that holds the name, or its alias; "" when not known
	Validity Validity
	Signed   bool     // its records have signatures, whatever they are worth
	Reasons  []string // why it is bogus or unanswered, as far as the resolver says
}

// Validation asks each of the configured resolvers, which stand for the validating resolvers of a CA, what the signatures of
// a name are worth, best of a zone's apex. Without configured resolvers it returns nothing.
func (a *Asker) Validation(ctx context.Context, name string) []Verdict {
	resolvers := a.resolving
	verdicts := make([]Verdict, len(resolvers))
	var all sync.WaitGroup
	for i, resolver := range resolvers {
		all.Go(func() { verdicts[i] = validator(resolver).judge(ctx, dnsname.Canonical(name)) })
	}
	all.Wait()
	return verdicts
}

// validator is a resolver, host:port, that is asked about signatures.
type validator string

// ask asks for records with their signatures (RFC 4035, section 4.1). With checking disabled the answer comes as it is.
func (v validator) ask(ctx context.Context, name string, qtype uint16, disabled bool) (*dns.Msg, error) {
	q := question(name, qtype, true)
	q.IsEdns0().SetDo()
	q.CheckingDisabled = disabled
	return ask(ctx, server{addr: string(v)}, q)
}

func (v validator) judge(ctx context.Context, name string) Verdict {
	verdict := Verdict{Resolver: string(v), Validity: Unanswered}
	reply, err := v.ask(ctx, name, dns.TypeSOA, false)
	if err != nil {
		verdict.Reasons = []string{err.Error()}
		return verdict
	}
	verdict.Zone = zoneIn(reply, lastAlias(reply, name))
	verdict.Signed = isSigned(reply)
	switch {
	case isAnswer(reply) && reply.AuthenticatedData:
		verdict.Validity = Secure
	case isAnswer(reply) && v.validates(ctx):
		verdict.Validity = Insecure
	case isAnswer(reply):
		verdict.Validity = NotValidating
	case reply.Rcode == dns.RcodeServerFailure:
		v.explain(ctx, name, reply, &verdict)
	default:
		verdict.Reasons = []string{"it answers " + dns.RcodeToString[reply.Rcode]}
	}
	return verdict
}

// validates reports whether the resolver validates the root, which is signed.
func (v validator) validates(ctx context.Context) bool {
	reply, err := v.ask(ctx, ".", dns.TypeSOA, false)
	return err == nil && isAnswer(reply) && reply.AuthenticatedData
}

// isSigned reports whether an answer or denial comes with signatures.
func isSigned(reply *dns.Msg) bool {
	return slices.ContainsFunc(slices.Concat(reply.Answer, reply.Ns), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
}

// explain finds out why a resolver answers SERVFAIL: if it has the records, it is their signatures. Some resolvers say what
// is wrong with them.
func (v validator) explain(ctx context.Context, name string, failure *dns.Msg, verdict *Verdict) {
	verdict.Reasons = extendedErrors(failure)
	unchecked, err := v.ask(ctx, name, dns.TypeSOA, true)
	if err != nil || !isAnswer(unchecked) {
		verdict.Reasons = append([]string{"it answers SERVFAIL"}, verdict.Reasons...)
		return
	}
	verdict.Validity, verdict.Signed = Bogus, isSigned(unchecked)
	verdict.Zone = zoneIn(unchecked, lastAlias(unchecked, name))
}

// extendedErrors reads what a resolver says beside its answer (RFC 8914).
func extendedErrors(reply *dns.Msg) (words []string) {
	opt := reply.IsEdns0()
	if opt == nil {
		return nil
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
		words = append(words, text)
	}
	return words
}
