// Package bots logs machines in that no person sits at.
//
// A bot's first login spends a single-use token and binds it to its machine: to its device, enrolled by that token, else
// to a key that it keeps, which is good from the bot's addresses only. Each later login is the device's proof, or that
// key's signature over ceremony.Binding.BotDigest.
package bots

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"errors"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/store"
)

// Offer is what a bot's machine brings: the first message of a device proof, or at its first login that of an
// enrollment; neither where the machine has no device key.
type Offer struct {
	Hello  []byte
	Enroll bool
	OS     device.OS
	Tag    string
}

// Conversation is a bot's machine, on the other end of one login.
type Conversation interface {
	login.Conversation
	// Machine asks for the first message of a device ceremony; with first also for one of an enrollment.
	Machine(ctx context.Context, first bool) (Offer, error)
	// Sign asks for the bot's key, SPKI DER, and its signature over ceremony.Binding.BotDigest.
	Sign(ctx context.Context, nonce []byte) (key, signature []byte, err error)
}

// Enrollment is an Offer that is to be enrolled for a bot. Bind gives, for the device that it becomes, what happens with
// it.
type Enrollment struct {
	Offer
	From    identity.Caller
	Binding ceremony.Binding
	Bind    func(deviceID string) ([]store.Op, error)
}

// unproven is a refusal before anything was proven: its reason is recorded, and the other side is told badBot.
type unproven struct{ error }

func (u unproven) Unwrap() error { return u.error }

// badBot is the one fault of who has proven nothing: a bot that is none, that may not log in or not from there, the wrong
// token or key. It tells nobody which.
func badBot() *fault.Error {
	return fault.New(fault.Unauthenticated, "invalid bot name or token").WithReason("bad_bot").
		WithCause("a token is good for one login, which binds the bot to its machine").
		WithFix("ask an administrator: tctl bots reset NAME")
}

// Devices proves and enrolls the devices of bots.
type Devices interface {
	// Authenticate runs a ceremony from its first message, as login.Devices does.
	Authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c login.Conversation) (*identity.Device, []string, error)
	// EnrollBot enrolls the machine of a bot's first login.
	EnrollBot(ctx context.Context, m Enrollment, c login.Conversation) (*identity.Device, error)
}

// Service is the use case.
type Service struct {
	People  *login.Service
	Devices Devices
}

// Login logs a machine in, recorded whatever comes of it.
func (s *Service) Login(ctx context.Context, from identity.Caller, start login.Start, c Conversation) (login.Result, error) {
	r, err := s.People.Recorded(ctx, from, start, func() (login.Result, error) { return s.login(ctx, from, start, c) })
	if errors.As(err, new(unproven)) {
		return login.Result{}, badBot()
	}
	return r, err
}

func (s *Service) login(ctx context.Context, from identity.Caller, start login.Start, c Conversation) (login.Result, error) {
	if start.Reissue {
		return login.Result{}, fault.New(fault.Invalid, "a reissue is no bot's login").WithReason("login_order")
	}
	if err := s.People.Throttle.Allow(start.User, from.Addr); err != nil {
		return login.Result{}, err
	}
	a, m, err := s.begin(ctx, from, start, c)
	if err == nil {
		err = m.prove(ctx, &a, start.Token)
	}
	if err != nil {
		if (m == nil || !m.proven) && fault.Of(err).Kind != fault.Internal && ctx.Err() == nil {
			s.People.Throttle.Failed(counted(start.User), from.Addr)
		}
		return login.Result{}, err
	}
	s.People.Throttle.Succeeded(start.User, from.Addr)
	r, err := s.People.Admit(ctx, start, a)
	if err != nil {
		return login.Result{}, err
	}
	r.Notices = m.told
	_, err = s.People.Audit.Record(ctx, login.LoggedIn(from, a.ID))
	return r, err
}

// counted is whom a failure counts for: what is no name is not kept.
func counted(user string) string {
	if !identity.ValidName(user) {
		return ""
	}
	return user
}

// begin finds the bot and what it is bound to. Why it may not log in is kept for after the proof.
func (s *Service) begin(ctx context.Context, from identity.Caller, start login.Start, c Conversation) (login.Applicant, *machine, error) {
	if !identity.ValidName(start.User) {
		return login.Applicant{}, nil, unproven{badBot()}
	}
	a, refusal := s.People.Apply(ctx, from, start, "")
	switch {
	case a.Account == nil && fault.Of(refusal).Kind == fault.Internal:
		return a, nil, refusal
	case a.Account == nil:
		return a, nil, unproven{refusal}
	case a.ID.Kind != identity.Bot:
		return a, nil, unproven{badBot()}
	case refusal == nil && len(a.Account.Addresses) > 0 && !a.Account.From(from.Addr):
		refusal = login.OutOfRange(a.Account, from)
	}
	m, err := s.machine(ctx, from, start, c)
	if err == nil {
		m.refusal = refusal
	}
	return a, m, err
}

// machine is a bot's machine at one login, and what the bot was bound to. Refusal is why the bot may not log in whatever
// it proves: it is told to who has proven to be the bot, before anything is bound.
type machine struct {
	*Service
	Conversation
	refusal  error
	proven   bool
	from     identity.Caller
	binding  ceremony.Binding
	secret   records.Secret
	revision uint64
	told     []string
}

func (s *Service) machine(ctx context.Context, from identity.Caller, start login.Start, c Conversation) (*machine, error) {
	pin, err := s.People.ClusterCA(ctx)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(start.Key)
	if err != nil {
		return nil, err
	}
	m := &machine{Service: s, Conversation: c, from: from,
		binding: ceremony.Binding{Purpose: ceremony.Login, ClusterCA: pin, User: start.User, SessionKey: spki}}
	m.secret, m.revision, err = s.People.Records.Secret(ctx, start.User)
	return m, err
}

// prove has the machine prove that it is the one that the bot is bound to, or binds the bot to it.
func (m *machine) prove(ctx context.Context, a *login.Applicant, token string) error {
	bound := m.secret.Machine
	switch {
	case bound == nil:
		return m.first(ctx, a, token)
	case bound.Device != "":
		return m.byDevice(ctx, a, bound.Device)
	}
	key, err := m.key(ctx)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(key, bound.Key) != 1 {
		return unproven{otherMachine(a)}
	}
	if err := m.welcome(); err != nil {
		return err
	}
	if len(a.Account.Addresses) == 0 {
		return needsAddress(a.Account.Name)
	}
	a.ID.PinnedIP = a.ID.LoginIP
	return nil
}

// welcome is where the machine has proven to be the bot's.
func (m *machine) welcome() error {
	m.proven = true
	return m.refusal
}

func otherMachine(a *login.Applicant) error {
	return fault.New(fault.Denied, "bot %q is bound to another machine", a.Account.Name).WithReason("bot_other_machine")
}

func needsAddress(name string) error {
	return fault.New(fault.Denied, "bot %q has no device, and its key is good from its addresses only, which it has none of", name).
		WithReason("bot_needs_address").WithFix("tctl edit user/%s   (set addresses), or log in on a machine with a TPM", name)
}

// first spends the token.
func (m *machine) first(ctx context.Context, a *login.Applicant, token string) error {
	if token == "" {
		return unproven{badBot()}
	}
	invite, at, err := m.People.Records.Invite(ctx, token)
	if err != nil && !fault.Is(err, fault.Denied) {
		return err
	}
	if err != nil || !invite.Bot || invite.User != a.Account.Name || !m.People.Now().Before(invite.Expires) {
		return unproven{badBot()}
	}
	if err := m.welcome(); err != nil {
		return err
	}
	spend := []store.Op{store.CheckRevision(records.InviteKey(token), at), store.Delete(records.InviteKey(token))}
	bind := func(to records.Machine) ([]store.Op, error) {
		to.Time = m.People.Now().UTC()
		secret := m.secret
		secret.Machine = &to
		put, err := records.PutSecret(a.Account.Name, secret, m.revision)
		return append(spend, put...), err
	}
	offer, err := m.Machine(ctx, true)
	if err != nil {
		return err
	}
	if !offer.Enroll {
		return m.bindKey(ctx, a, bind)
	}
	b := m.binding
	b.Purpose = ceremony.Enroll
	dev, err := m.Devices.EnrollBot(ctx, Enrollment{Offer: offer, From: m.from, Binding: b,
		Bind: func(id string) ([]store.Op, error) { return bind(records.Machine{Device: id}) }}, m.Conversation)
	if err != nil {
		return err
	}
	a.Carries(dev)
	return nil
}

// bindKey binds a bot whose machine has no device to a key.
func (m *machine) bindKey(ctx context.Context, a *login.Applicant, bind func(records.Machine) ([]store.Op, error)) error {
	if len(a.Account.Addresses) == 0 {
		return needsAddress(a.Account.Name)
	}
	key, err := m.key(ctx)
	if err != nil {
		return err
	}
	ops, err := bind(records.Machine{Key: key})
	if err != nil {
		return err
	}
	ev := event.Event{Kind: event.UserUpdate, User: a.Account.Name, Success: true, Message: "bound to its machine's key",
		Session:  &event.Session{Addr: m.from.Addr.String()},
		Resource: &event.Resource{ResourceKind: "user", ResourceName: a.Account.Name, Changes: []string{"machine"}}}
	if _, err := m.People.Audit.Record(ctx, ev, ops...); errors.Is(err, store.ErrConflict) {
		return unproven{badBot()}
	} else if err != nil {
		return err
	}
	a.ID.PinnedIP = a.ID.LoginIP
	return nil
}

// key has the machine's key sign this login.
func (m *machine) key(ctx context.Context) ([]byte, error) {
	nonce := make([]byte, 32)
	rand.Read(nonce)
	spki, signature, err := m.Sign(ctx, nonce)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(spki)
	key, ok := public.(*ecdsa.PublicKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, unproven{fault.New(fault.Invalid, "the bot's key is no P-256 key").WithReason("bad_key")}
	}
	digest := m.binding.BotDigest(spki, nonce)
	if !ecdsa.VerifyASN1(key, digest[:], signature) {
		return nil, unproven{fault.New(fault.Denied, "the bot's key did not sign this login").WithReason("bot_signature")}
	}
	return spki, nil
}

// byDevice has the bot's device prove itself. Without that proof there is no login.
func (m *machine) byDevice(ctx context.Context, a *login.Applicant, id string) error {
	offer, err := m.Machine(ctx, false)
	if err != nil {
		return err
	}
	if len(offer.Hello) == 0 || offer.Enroll {
		return unproven{fault.New(fault.Denied, "bot %q is bound to its device, which gave no proof", a.Account.Name).WithReason("bot_no_proof")}
	}
	dev, told, err := m.Devices.Authenticate(ctx, m.binding, offer.Hello, m.Conversation)
	if err != nil {
		return err
	}
	if dev.ID != id {
		return unproven{otherMachine(a)}
	}
	if err := m.welcome(); err != nil {
		return err
	}
	m.told = told
	a.Carries(dev)
	return nil
}
