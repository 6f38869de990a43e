package event

import "log/slog"

// Kind says what happened. It is the message of the line in the log, so that docs/operate.md's table explains each to
// administrators, and it stays as it is from version to version.
type Kind string

// What happens to a certificate. Each has Certificate; those about a CA have CA too.
const (
	Issued          Kind = "certificate issued"                                                // its bundle is durable: why, hostnames, took; NotAfter
	NotIssued       Kind = "certificate not issued"                                            // all its CAs failed: why_due, failures; Retry, Err
	NotForced       Kind = "certificate not renewed by hand; it isn't due"                     // the one that there is stays in use: Retry is its ordinary renewal; Err
	Held            Kind = "certificate held"                                                  // the CA would refuse the order: reason; Retry is when there is room
	StillWorking    Kind = "certificate still being made"                                      // the CA hasn't decided about the order: order; Retry
	CAFailed        Kind = "a CA failed; trying the next"                                      // Err
	KeyRefused      Kind = "the CA refuses the key that is to be used again; taking a new one" // Err
	RenewalUrgent   Kind = "the CA asks for a renewal now"                                     // its window is past: window_end, explanation
	NoRenewalInfo   Kind = "no renewal information"                                            // though a person waits for it: Err
	Deployed        Kind = "certificate deployed"                                              // files are right and all steps done: files, reloaded, not_running
	NotDeployed     Kind = "certificate not deployed"                                          // files, reloaded, not_running, failures; Retry, Err
	RecordWanted    Kind = "a person must add this TXT record"                                 // record
	RecordRemovable Kind = "a person may remove this TXT record"                               // record
	Rehearsed       Kind = "rehearsed; nothing is kept"                                        // directory, hostnames, lifetime, took
	NotRehearsed    Kind = "rehearsal failed"                                                  // Err
	Waits           Kind = "certificate waits"                                                 // a command came to nothing, though nothing failed: Err
	Forgotten       Kind = "certificate forgotten"                                             // all that was kept of it is deleted
	Revoked         Kind = "certificate revoked"                                               // serial, reason
)

// What is wrong with stored objects.
const (
	NotLookedAt      Kind = "certificate can't be looked at"                                                                    // Retry, Err
	BundleUnreadable Kind = "bundle still can't be read, a new certificate is needed"                                           // Err
	BundleSetAside   Kind = "bundle set aside, a new certificate is needed"                                                     // it was damaged: kept_as; Err
	OrderUnreadable  Kind = "open order can't be read; ordering anew"                                                           // object, Err
	OrderNotDropped  Kind = "open order can't be forgotten"                                                                     // Err
	OrdersNotListed  Kind = "open orders can't be listed, so that they don't come first"                                        // Err
	OrdersNotDropped Kind = "orders that are over can't be dropped"                                                             // Err
	OrderNotCounted  Kind = "what was ordered can't be counted"                                                                 // Err
	KeyNotMarked     Kind = "that a key is blocked can't be noted"                                                              // Err
	KeyUnknown       Kind = "whether the key is compromised can't be found out"                                                 // Err
	StoreUnwritable  Kind = "the state directory can't be written; nothing is issued until it can, which is tried all the time" // Err
	StoreWritable    Kind = "the state directory can be written again"                                                          // after, certificates
)

// What happens to an account at a CA.
const (
	ContactNotSent Kind = "the CA can't be told the account's contact" // Err
)

func (k Kind) level() slog.Level {
	switch k {
	case Issued, Held, StillWorking, Deployed, RecordRemovable, Rehearsed, Forgotten, Revoked, StoreWritable:
		return slog.LevelInfo
	case NotLookedAt, BundleUnreadable, BundleSetAside, StoreUnwritable:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// retryKey is the key of Retry in the log.
func (k Kind) retryKey() string {
	switch k {
	case Held:
		return "until"
	case StillWorking:
		return "again"
	case NotForced:
		return "renews"
	}
	return "retry"
}
