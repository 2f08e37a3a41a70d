// Package login turns a person's factors, and their device's proof, into certificates.
package login

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// DefaultTTL is how long a login lives where neither the person nor a role says otherwise.
const DefaultTTL = 12 * time.Hour

// Conversation is the person and their device, on the other end of one login.
type Conversation interface {
	// Ask asks the person something and returns their answer.
	Ask(ctx context.Context, p Prompt) (string, error)
	// Hello asks for the first message of a device ceremony; nil and a reason mean that there is none.
	Hello(ctx context.Context, mode string) (msg []byte, reason string, err error)
	// Receive waits for a further message of the ceremony.
	Receive(ctx context.Context) ([]byte, error)
	// Exchange sends a message of the ceremony and returns the answer.
	Exchange(ctx context.Context, msg []byte) ([]byte, error)
	// Send sends the ceremony's last message.
	Send(ctx context.Context, msg []byte) error
	// Refuse says that the device's proof was refused, and why.
	Refuse(ctx context.Context, f *fault.Error) error
}

// PromptKind is what a person is asked for.
type PromptKind uint8

// The prompts.
const (
	AskPassword PromptKind = iota + 1
	AskNewPassword
	AskOTP
	AskNewOTP
)

// Prompt is one question; URL is the otpauth:// URL of AskNewOTP.
type Prompt struct {
	Kind PromptKind
	URL  string
}

// Start is what a login asks for.
type Start struct {
	User          string
	Invite        string
	TTL           time.Duration
	Key           crypto.PublicKey
	Reissue       bool
	ClientVersion string
	Token         string // a bot's, at its first login
}

// Devices proves devices.
type Devices interface {
	// Authenticate runs a ceremony from its first message for a user and returns the proven device. It records the
	// outcome, whatever it is. The notices are for the person.
	Authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c Conversation) (*identity.Device, []string, error)
}

// Pictures gives the current picture.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
}

// Audit records an event together with what it tells of.
type Audit interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
}

// Service is the use case.
type Service struct {
	Records   *records.Records
	CA        *ca.CA
	Audit     Audit
	Pictures  Pictures
	Devices   Devices
	Passwords *Passwords
	Throttle  *Throttle
	Now       func() time.Time
}

// Result is what a login brings home.
type Result struct {
	ca.UserCertificates
	Notices []string
}

// Login runs one login, or with Start.Reissue the upgrade of the certificate that the caller showed.
func (s *Service) Login(ctx context.Context, from identity.Caller, start Start, c Conversation) (Result, error) {
	return s.Recorded(ctx, from, start, func() (Result, error) {
		if start.Reissue {
			return s.reissue(ctx, from, start, c)
		}
		return s.login(ctx, from, start, c)
	})
}

// Recorded runs a login and records one that fails.
func (s *Service) Recorded(ctx context.Context, from identity.Caller, start Start, run func() (Result, error)) (Result, error) {
	ev := event.Event{Kind: event.UserLogin, User: start.User, Session: &event.Session{Addr: from.Addr.String()}}
	if start.Reissue {
		ev.User = from.Name()
	}
	r, err := run()
	if err != nil {
		ev.Message, ev.Session.Reason = fault.Of(err).Text, fault.Of(err).Reason
		if !identity.ValidName(ev.User) {
			ev.User = "invalid"
		}
		if _, rerr := s.Audit.Record(context.WithoutCancel(ctx), ev); rerr != nil {
			return Result{}, rerr
		}
		return Result{}, err
	}
	return r, nil
}

func (s *Service) login(ctx context.Context, from identity.Caller, start Start, c Conversation) (Result, error) {
	if err := s.Throttle.Allow(start.User, from.Addr); err != nil {
		return Result{}, err
	}
	mfa, err := s.factors(ctx, from, start, c)
	if err != nil {
		return Result{}, err
	}
	s.Throttle.Succeeded(start.User, from.Addr)
	a, err := s.Apply(ctx, from, start, mfa)
	if err != nil {
		return Result{}, err
	}
	told, err := s.device(ctx, from, start, &a.ID, c)
	if err != nil {
		return Result{}, err
	}
	r, err := s.Admit(ctx, start, a)
	if err != nil {
		return Result{}, err
	}
	notices, ops, err := s.notices(ctx, a.ID.Name, a.ID.Device)
	if err != nil {
		return Result{}, err
	}
	r.Notices = append(notices, told...)
	ev := LoggedIn(from, a.ID)
	if _, err := s.Audit.Record(ctx, ev, ops...); err != nil && !errors.Is(err, store.ErrConflict) {
		return Result{}, err
	} else if err != nil { // somebody else took the notices; they are shown twice rather than never
		if _, err := s.Audit.Record(ctx, ev); err != nil {
			return Result{}, err
		}
	}
	return r, nil
}

// Applicant is who logs in: their account, and the identity that they are to get.
type Applicant struct {
	Account  *identity.Account
	ID       identity.User
	revision uint64
	logins   []string
}

// Carries puts a proven device into the identity.
func (a *Applicant) Carries(d *identity.Device) {
	a.ID.Device = d
	if d.Level.Hardware() {
		a.ID.KeyPolicy = identity.KeyHardware
	}
}

// Apply reads who logs in, and refuses those who may not whatever they prove; mfa is the second factor that was used.
func (s *Service) Apply(ctx context.Context, from identity.Caller, start Start, mfa string) (Applicant, error) {
	account, revision, err := s.Records.Account(ctx, start.User)
	if err != nil {
		return Applicant{}, err
	}
	a := Applicant{Account: account, revision: revision, ID: identity.User{Name: account.Name, Kind: kindOf(account), Roles: account.Roles, Traits: account.Traits,
		KeyPolicy: identity.KeyAnywhere, MFADevice: mfa, LoginIP: from.Addr.Unmap()}}
	picture, _ := s.Pictures.Current()
	var ttl time.Duration
	a.logins, ttl = s.grants(picture, &a.ID, start.TTL)
	a.ID.Validity.Expires = s.Now().Add(ttl)
	if end := account.Expires; end.Year() > 1 && end.Before(a.ID.Validity.Expires) {
		a.ID.Validity.Expires = end
	}
	return a, s.standing(picture.Locks, account, &a.ID)
}

// kindOf is an account's kind; what says none is a person's.
func kindOf(a *identity.Account) identity.Kind {
	if a.Kind == identity.Bot {
		return identity.Bot
	}
	return identity.Human
}

// Admit issues, where nothing was changed while the other side answered.
func (s *Service) Admit(ctx context.Context, start Start, a Applicant) (Result, error) {
	locks, err := s.still(ctx, a.revision, &a.ID)
	if err != nil {
		return Result{}, err
	}
	return s.issue(ctx, start, a, locks)
}

// LoggedIn is the event of a login that succeeded.
func LoggedIn(from identity.Caller, id identity.User) event.Event {
	return event.Event{Kind: event.UserLogin, User: id.Name, Success: true, Device: event.DeviceOf(id.Device),
		Session: &event.Session{Addr: from.Addr.String(), MFADevice: id.MFADevice}}
}

// still refuses, once the person and the device have answered, a user who was changed or locked meanwhile. It asks the
// store, which the picture may be behind; the revision is a condition of what is issued, so nothing slips in after it.
func (s *Service) still(ctx context.Context, revision uint64, id *identity.User) (lock.Set, error) {
	account, now, err := s.Records.Account(ctx, id.Name)
	if err != nil {
		return lock.Set{}, err
	}
	if now != revision {
		return lock.Set{}, userChanged()
	}
	locks, err := s.Records.Locks(ctx)
	if err != nil {
		return lock.Set{}, err
	}
	if err := s.standing(locks, account, id); err != nil {
		return lock.Set{}, err
	}
	if wait := locks.Ahead(id, s.Now()); wait > 0 {
		select {
		case <-time.After(wait + time.Millisecond):
		case <-ctx.Done():
			return lock.Set{}, ctx.Err()
		}
	}
	return locks, nil
}

func userChanged() *fault.Error {
	return fault.New(fault.Conflict, "the user was changed meanwhile").WithReason("user_changed").WithFix("tsh login")
}

// standing refuses users that may not log in, whatever they prove. The identity counts as issued now.
func (s *Service) standing(locks lock.Set, a *identity.Account, id *identity.User) error {
	now := s.Now()
	if a.Locked(now) {
		return fault.New(fault.Denied, "user %q is locked", a.Name).WithReason("user_locked").
			WithFix("ask an administrator: tctl get users/%s", a.Name)
	}
	fresh := *id
	fresh.Validity.IssuedAt = now
	for l := range locks.Candidates(&fresh, target.Target{}, target.Action{}) {
		if !l.InForce(now) || l.Target.Login != "" || l.Target.ServerID != "" || l.Ahead(now) > 0 || !l.Matches(&fresh, target.Target{}, target.Action{}) {
			continue
		}
		return fault.New(fault.Denied, "lock targeting %s is in force", l.Target).WithReason("locked").
			WithCause("%s", lockCause(l.Message, l.Name)).WithFix("ask an administrator: tctl rm lock/%s", l.Name)
	}
	return nil
}

func lockCause(message, name string) string {
	if message != "" {
		return fault.Plain(message)
	}
	return "lock " + name
}

// grants gathers what a user's roles give a login: the SSH principals, the grants, how long it lives, and whether
// its address is pinned.
func (s *Service) grants(p *snapshot.Picture, id *identity.User, wanted time.Duration) ([]string, time.Duration) {
	ttl := DefaultTTL
	if wanted > 0 {
		ttl = wanted
	}
	ttl = min(ttl, identity.MaxLifetime)
	var logins []string
	for _, name := range id.Roles {
		policy := p.Roles[name]
		if policy == nil {
			continue
		}
		o := policy.Options()
		if o.MaxSessionTTL > 0 {
			ttl = min(ttl, time.Duration(o.MaxSessionTTL))
		}
		id.Grant.PTY = true
		id.Grant.PortForwarding = id.Grant.PortForwarding || o.PortForwarding
		id.Grant.AgentForwarding = id.Grant.AgentForwarding || o.ForwardAgent
		if o.PinSourceIP {
			id.PinnedIP = id.LoginIP
		}
		for _, l := range role.Expand(policy.Logins(), id.Traits) {
			if l != "*" && !slices.Contains(logins, l) {
				logins = append(logins, l)
			}
		}
	}
	return logins, ttl
}

// device asks for the device's proof. A proof that fails leaves the login without a device; the person is told why. What
// comes back is for the person.
func (s *Service) device(ctx context.Context, from identity.Caller, start Start, id *identity.User, c Conversation) ([]string, error) {
	picture, _ := s.Pictures.Current()
	hello, _, err := c.Hello(ctx, string(picture.Settings.DeviceTrust.Mode))
	if err != nil || hello == nil {
		return nil, err
	}
	pin, err := s.ClusterCA(ctx)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(start.Key)
	if err != nil {
		return nil, err
	}
	b := ceremony.Binding{Purpose: ceremony.Login, ClusterCA: pin, User: id.Name, SessionKey: spki}
	if start.Reissue {
		b.Purpose, b.Upgraded = ceremony.Reissue, from.Certificate
	}
	dev, told, err := s.Devices.Authenticate(ctx, b, hello, c)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, c.Refuse(ctx, fault.Of(err))
	}
	id.Device = dev
	if dev.Level.Hardware() {
		id.KeyPolicy = identity.KeyHardware
	}
	return told, nil
}

// ClusterCA is what device proofs are bound to: the hash of the TLS host authority.
func (s *Service) ClusterCA(ctx context.Context) ([]byte, error) {
	public, err := s.CA.Public(ctx)
	if err != nil {
		return nil, err
	}
	return cluster.PinHash(public.TLSHost), nil
}

// reissue upgrades the caller's certificate: the same user, roles, traits and expiry, and a device beside.
func (s *Service) reissue(ctx context.Context, from identity.Caller, start Start, c Conversation) (Result, error) {
	if from.User == nil || len(from.Certificate) == 0 {
		return Result{}, fault.New(fault.Unauthenticated, "a reissue needs a login").WithFix("tsh login")
	}
	if from.User.PinnedIP.IsValid() && from.User.PinnedIP.Unmap() != from.Addr.Unmap() {
		return Result{}, fault.New(fault.Denied, "the login is pinned to another address").WithReason("wrong_address").WithFix("tsh login")
	}
	account, revision, err := s.Records.Account(ctx, from.User.Name)
	if err != nil {
		return Result{}, err
	}
	if kindOf(account) != from.User.Kind {
		return Result{}, fault.New(fault.Denied, "the certificate is a %s's, and user %q is a %s", from.User.Kind, account.Name, kindOf(account)).
			WithReason("kind_changed").WithFix("tsh login")
	}
	if account.Kind == identity.Bot && len(account.Addresses) > 0 && !account.From(from.Addr) {
		return Result{}, OutOfRange(account, from)
	}
	id := *from.User
	had := id.Device
	id.Device, id.KeyPolicy = nil, identity.KeyAnywhere
	picture, _ := s.Pictures.Current()
	if err := s.current(picture.Locks, from.User); err != nil {
		return Result{}, err
	}
	if err := s.standing(picture.Locks, account, &id); err != nil {
		return Result{}, err
	}
	told, err := s.device(ctx, from, start, &id, c)
	if err != nil {
		return Result{}, err
	}
	locks, err := s.still(ctx, revision, &id)
	if err != nil {
		return Result{}, err
	}
	if err := s.current(locks, from.User); err != nil {
		return Result{}, err
	}
	if had != nil && (id.Device == nil || id.Device.ID != had.ID) {
		return Result{}, fault.New(fault.Denied, "a reissue keeps its device").WithReason("reissue_drops_device").
			WithCause("the certificate carries device %s, and the proof was not by it", had.AssetTag).WithFix("tsh login")
	}
	scratch := identity.User{Name: id.Name, Roles: id.Roles, Traits: id.Traits}
	logins, _ := s.grants(picture, &scratch, 0)
	r, err := s.issue(ctx, start, Applicant{ID: id, logins: logins, revision: revision}, locks)
	r.Notices = told
	return r, err
}

// OutOfRange is the fault of a bot elsewhere than at its addresses.
func OutOfRange(a *identity.Account, from identity.Caller) error {
	return fault.New(fault.Denied, "bot %q does not log in from %s", a.Name, from.Addr.Unmap()).WithReason("bot_address").
		WithCause("its addresses are %s", strings.Join(a.Addresses, ", ")).WithFix("tctl edit user/%s", a.Name)
}

// current refuses to renew what a lock has ended, by the certificate's own time of issue. A lock on the certificate's
// device credential does not count: a reissue proves the same device anew, by the credential that it has now.
func (s *Service) current(locks lock.Set, u *identity.User) error {
	now := s.Now()
	for l := range locks.Candidates(u, target.Target{}, target.Action{}) {
		if l.Target.DeviceCredential != "" && u.Device != nil {
			continue
		}
		if l.InForce(now) && l.Target.Login == "" && l.Target.ServerID == "" && l.Matches(u, target.Target{}, target.Action{}) {
			return fault.New(fault.Denied, "lock targeting %s is in force", l.Target).WithReason("locked").WithFix("tsh login")
		}
	}
	return nil
}

// Settings are the cluster's current settings.
func (s *Service) Settings() cluster.Settings {
	p, _ := s.Pictures.Current()
	return p.Settings
}
