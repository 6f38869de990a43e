package event

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
)

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
	Revoked         Kind = "certificate revoked"                                               // serial, hostnames, reason
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

// What happens at a CA. Each has CA.
const (
	AccountRegistered  Kind = "account registered"                                                  // account
	AccountLost        Kind = "the CA doesn't know the account any more; registering its key again" // account
	AccountKeyChanged  Kind = "account key changed"                                                 // account
	AccountDeactivated Kind = "account deactivated"                                                 // account
	RolloverUnfinished Kind = "a key rollover can't be finished now"                                // account; Err
	ContactUpdated     Kind = "account contact updated"                                             // account, contact
	ContactRefused     Kind = "the CA doesn't take the account's contact"                           // account; Err
	ContactNotSent     Kind = "the CA can't be told the account's contact"                          // Err
	OrderGivenUp       Kind = "the CA gave the open order up; ordering anew"                        // order; Err
	OrderWithoutKey    Kind = "open order has no usable key; ordering anew"                         // order
	OrderSenseless     Kind = "what the CA has of the order makes no sense, and is left to expire"  // order; Err
	ValidationEndless  Kind = "a validation doesn't end; ordering anew"                             // order, hostname
	NotAsOrdered       Kind = "the certificate isn't quite what was ordered"                        // hostname, what
	ChainNotOffered    Kind = "the CA offers no chain to the preferred root; taking its default"    // preferred
)

// What happens to TXT records.
const (
	RecordsAwaited        Kind = "waiting for servers that lack the records"                                                                                                                // provider, zone, and which
	RecordsNotRemoved     Kind = "records can't be removed now; trying again later"                                                                                                         // provider, zone, records, first; Retry, Err
	RecordsOfNoProvider   Kind = "records can't be removed: their provider isn't in the configuration any more; put it back until they are gone"                                            // provider, zone, records, first
	RecordsGivenUp        Kind = "records that couldn't be removed aren't tried again"                                                                                                      // Err
	RecordsLeft           Kind = "removing records that an earlier process left"                                                                                                            // provider, zone, records
	RecordsLeftWanted     Kind = "records that an earlier process left stay until their orders have ended"                                                                                  // provider, zone, records
	OrdersUnknown         Kind = "it isn't known which orders are open, so records of earlier processes stay for some minutes"                                                              // Err
	RecordsNotSwept       Kind = "records of earlier processes can't be looked for"                                                                                                         // Err
	JournalPartUnusable   Kind = "a part of the journal can't be used and stays as it is"                                                                                                   // the message says what is used instead; object, Err
	JournalEntryDamaged   Kind = "journal entry is damaged and stays: remove the _acme-challenge records that it names by hand, then the entry"                                             // object, Err
	JournalEntryUndeleted Kind = "journal entry can't be deleted; the next start does it"                                                                                                   // object, Err
	SignaturesUnverified  Kind = "the server's answers to updates carry signatures that can't be verified, as those of Samba's DNS server do; the records themselves are looked at instead" // server
	ProgramSays           Kind = "a provider's program says"                                                                                                                                // program, zone, line
)

// The steps of a deployment.
const (
	FilesWritten   Kind = "files written"                                                               // Certificate; output, repaired
	UnitReloaded   Kind = "unit reloaded"                                                               // unit
	UnitNotRunning Kind = "unit isn't running, so it isn't reloaded; it reads the files when it starts" // unit, state
	CommandDone    Kind = "command done"                                                                // Certificate; output, program
)

// What happens to the daemon.
const (
	Started         Kind = "started" // version, certificates, config
	Stopping        Kind = "stopping"
	Reloaded        Kind = "configuration taken over"                                                      // why, certificates, and what is different
	NotReloaded     Kind = "configuration not taken over; the one before stays"                            // why; Err, one event for each mistake
	ConfigWarning   Kind = "configuration"                                                                 // warning
	ListsNotSaved   Kind = "what was taken over of the configuration can't be saved; status can't show it" // Err
	HealthNotSaved  Kind = "the state directory can't be written"                                          // Err
	LockReplaced    Kind = "the file of the daemon's lock was removed or replaced; taken again"
	LockLost        Kind = "the lock of the daemon was removed, and can't be taken again" // Err
	ClockWentBack   Kind = "the clock went back; looking at every certificate again"      // from
	NotScheduled    Kind = "certificates can't be scheduled"                              // Err
	TemporariesStay Kind = "old temporary files can't be removed"                         // Err
	Panic           Kind = "panic"                                                        // where, panic, stack
)

// row is how the log writes events of a kind.
type row struct {
	level slog.Level
	retry string   // the key of Event.Retry, if another than "retry"
	order []string // the keys of the line, where facts stand in another order than those of other kinds
}

// kinds has a row for each kind.
var kinds = map[Kind]row{
	Issued:                {level: slog.LevelInfo, order: []string{"certificate", "why", "ca", "hostnames", "not_after", "took"}},
	NotIssued:             {level: slog.LevelWarn},
	NotForced:             {level: slog.LevelWarn, retry: "renews"},
	Held:                  {level: slog.LevelInfo, retry: "until", order: []string{"certificate", "ca", "until", "reason"}},
	StillWorking:          {level: slog.LevelInfo, retry: "again"},
	CAFailed:              {level: slog.LevelWarn},
	KeyRefused:            {level: slog.LevelWarn},
	RenewalUrgent:         {level: slog.LevelWarn},
	NoRenewalInfo:         {level: slog.LevelWarn},
	Deployed:              {level: slog.LevelInfo},
	NotDeployed:           {level: slog.LevelWarn},
	RecordWanted:          {level: slog.LevelWarn},
	RecordRemovable:       {level: slog.LevelInfo},
	Rehearsed:             {level: slog.LevelInfo},
	NotRehearsed:          {level: slog.LevelWarn},
	Waits:                 {level: slog.LevelWarn},
	Forgotten:             {level: slog.LevelInfo},
	Revoked:               {level: slog.LevelInfo, order: []string{"serial", "hostnames", "ca", "reason"}},
	NotLookedAt:           {level: slog.LevelError},
	BundleUnreadable:      {level: slog.LevelError},
	BundleSetAside:        {level: slog.LevelError},
	OrderUnreadable:       {level: slog.LevelWarn},
	OrderNotDropped:       {level: slog.LevelWarn},
	OrdersNotListed:       {level: slog.LevelWarn},
	OrdersNotDropped:      {level: slog.LevelWarn},
	OrderNotCounted:       {level: slog.LevelWarn},
	KeyNotMarked:          {level: slog.LevelWarn},
	KeyUnknown:            {level: slog.LevelWarn},
	StoreUnwritable:       {level: slog.LevelError},
	StoreWritable:         {level: slog.LevelInfo},
	AccountRegistered:     {level: slog.LevelInfo},
	AccountLost:           {level: slog.LevelWarn},
	AccountKeyChanged:     {level: slog.LevelInfo},
	AccountDeactivated:    {level: slog.LevelInfo},
	RolloverUnfinished:    {level: slog.LevelWarn},
	ContactUpdated:        {level: slog.LevelInfo},
	ContactRefused:        {level: slog.LevelWarn},
	ContactNotSent:        {level: slog.LevelWarn},
	OrderGivenUp:          {level: slog.LevelInfo},
	OrderWithoutKey:       {level: slog.LevelWarn},
	OrderSenseless:        {level: slog.LevelWarn},
	ValidationEndless:     {level: slog.LevelWarn},
	NotAsOrdered:          {level: slog.LevelWarn},
	ChainNotOffered:       {level: slog.LevelWarn},
	RecordsAwaited:        {level: slog.LevelWarn},
	RecordsNotRemoved:     {level: slog.LevelWarn},
	RecordsOfNoProvider:   {level: slog.LevelWarn},
	RecordsGivenUp:        {level: slog.LevelWarn},
	RecordsLeft:           {level: slog.LevelInfo},
	RecordsLeftWanted:     {level: slog.LevelInfo},
	OrdersUnknown:         {level: slog.LevelWarn},
	RecordsNotSwept:       {level: slog.LevelError},
	JournalPartUnusable:   {level: slog.LevelError},
	JournalEntryDamaged:   {level: slog.LevelError},
	JournalEntryUndeleted: {level: slog.LevelWarn},
	SignaturesUnverified:  {level: slog.LevelWarn},
	ProgramSays:           {level: slog.LevelInfo},
	FilesWritten:          {level: slog.LevelInfo},
	UnitReloaded:          {level: slog.LevelInfo},
	UnitNotRunning:        {level: slog.LevelInfo},
	CommandDone:           {level: slog.LevelInfo},
	Started:               {level: slog.LevelInfo},
	Stopping:              {level: slog.LevelInfo},
	Reloaded:              {level: slog.LevelInfo},
	NotReloaded:           {level: slog.LevelError},
	ConfigWarning:         {level: slog.LevelWarn},
	ListsNotSaved:         {level: slog.LevelError},
	HealthNotSaved:        {level: slog.LevelError},
	LockReplaced:          {level: slog.LevelWarn},
	LockLost:              {level: slog.LevelError},
	ClockWentBack:         {level: slog.LevelWarn},
	NotScheduled:          {level: slog.LevelError},
	TemporariesStay:       {level: slog.LevelWarn},
	Panic:                 {level: slog.LevelError},
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }

// level returns that of the kind. A message that is no kind counts as a warning.
func (k Kind) level() slog.Level {
	if r, known := kinds[k]; known {
		return r.level
	}
	return slog.LevelWarn
}

// retryKey returns the key of Retry in the log.
func (k Kind) retryKey() string { return cmp.Or(kinds[k].retry, "retry") }
