package world_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/world"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newBot makes a bot and returns its token.
func newBot(t *testing.T, w *world.World, name string, addresses ...string) string {
	t.Helper()
	i, err := w.Admin.AddUser(t.Context(), &identity.Account{Name: name, Kind: identity.Bot, Roles: []string{"access"},
		Traits: map[string][]string{"logins": {"root"}}, Addresses: addresses}, "")
	if err != nil {
		t.Fatal(err)
	}
	return i.Token
}

// botLogin logs a bot in with a session key; what else it brings is in the request.
func botLogin(t *testing.T, w *world.World, session crypto.Signer, req client.LoginRequest) (*identity.User, client.Certificates, error) {
	t.Helper()
	a := w.Address()
	c := a.Call(nil)
	defer c.Close()
	req.Key = session.Public()
	got, err := a.Login(t.Context(), c, req, nil)
	if err != nil {
		return nil, got, err
	}
	u, err := identity.FromSSH(got.SSH)
	if err != nil {
		t.Fatal(err)
	}
	return u, got, nil
}

// untold fails the test unless who tried was told nothing and the newest login event has the reason.
func untold(t *testing.T, w *world.World, err error, reason string) {
	t.Helper()
	w.Refused(err, "bad_bot", "")
	list := w.Events(event.UserLogin)
	if last := list[len(list)-1]; last.Success || last.Session.Reason != reason {
		t.Fatalf("the newest login is %+v %+v, want a failure because of %s", last, last.Session, reason)
	}
}

// TestBotWithADevice: the token enrolls the machine, later logins are its proof, and nothing else is.
func TestBotWithADevice(t *testing.T) {
	w := world.New(t, nil)
	tpm := swtpm.Start(t, swtpm.Options{})
	token := newBot(t, w, "ci")
	d := w.Device("RUNNER1", tpm.Socket)
	session := func() hwkey.Key {
		k, err := d.NewSession(filepath.Join(d.Dir, "session.key"))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := func(token string) (*identity.User, error) {
		k := session()
		attestor, err := d.Device.Enroll(k)
		if err != nil {
			t.Fatal(err)
		}
		u, got, err := botLogin(t, w, k, client.LoginRequest{User: "ci", Bot: &client.Bot{Token: token, Enroll: attestor,
			Claims: device.Data{OSType: device.Linux, ReportedAssetTag: "RUNNER1"}, Tag: "RUNNER1"}})
		if err == nil {
			d.Keep = hwkey.Enrollment{DeviceID: got.Welcome.DeviceID, CredentialID: got.Welcome.CredentialID, AssetTag: got.Welcome.AssetTag, Level: got.Welcome.Level}
			if err := attestor.Keep(d.Keep); err != nil {
				t.Fatal(err)
			}
		}
		return u, err
	}
	_, err := first("wrong")
	w.Refused(err, "bad_bot", event.UserLogin)
	u, err := first(token)
	if err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	if u.Kind != identity.Bot || u.Device == nil || u.Device.AssetTag != "RUNNER1" || u.KeyPolicy != identity.KeyHardware || u.PinnedIP.IsValid() {
		t.Errorf("%+v", u)
	}
	_, err = first(token) // spent, and the bot is bound
	if err == nil {
		t.Fatal("a token twice")
	}
	again := func(dev bool) (*identity.User, error) {
		k := session()
		req := client.LoginRequest{User: "ci", Bot: &client.Bot{Key: newKey(t)}}
		if dev {
			attestor, err := d.Device.Login(k)
			if err != nil {
				t.Fatal(err)
			}
			req.Device = &client.DeviceProof{Key: attestor, CredentialID: d.Keep.CredentialID}
		}
		u, _, err := botLogin(t, w, k, req)
		return u, err
	}
	if u, err = again(true); err != nil || u.Device == nil {
		t.Fatal(err)
	}
	_, err = again(false)
	untold(t, w, err, "bot_no_proof")
	// Unenrolled, the bot is out: no login without the proof.
	if _, err := w.Admin.Unenroll(t.Context(), client.DeviceRef{Tag: "RUNNER1"}); err != nil {
		t.Fatal(err)
	}
	_, err = again(true)
	w.Refused(err, "unknown_device_credential", event.UserLogin)
	// Reset, it is bound anew.
	i, err := w.Admin.ResetUser(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	if u, err = first(i.Token); err != nil || u.Device == nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	// A device of somebody else is not taken by a bot's token.
	w.User("alice", "access", "editor")
	hers := w.Device("HERS", "")
	if err := hers.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	k := hers.Session()
	attestor, err := hers.Device.Enroll(k)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = botLogin(t, w, k, client.LoginRequest{User: "ci2", Bot: &client.Bot{Token: newBot(t, w, "ci2"), Enroll: attestor,
		Claims: device.Data{OSType: device.Linux, ReportedAssetTag: "HERS"}, Tag: "HERS"}})
	w.Refused(err, "device_of_another", event.UserLogin)
}

// TestA71CredentialsOfNamesakes: who gets the name of a user or bot that was removed gets none of their devices.
func TestA71CredentialsOfNamesakes(t *testing.T) {
	w := world.New(t, nil)
	for _, first := range []identity.Kind{identity.Human, identity.Bot} {
		name, tag := "x"+string(first), "OF-"+strings.ToUpper(string(first))
		d := w.Device(tag, "")
		if first == identity.Human {
			w.User(name, "access", "editor")
			if err := d.Enroll(w.Login(name), ""); err != nil {
				t.Fatal(err)
			}
			if l := d.Login(name); l.Identity().Device == nil {
				t.Fatal(l.DeviceFault)
			}
		} else {
			k := d.Session()
			attestor, err := d.Device.Enroll(k)
			if err != nil {
				t.Fatal(err)
			}
			_, got, err := botLogin(t, w, k, client.LoginRequest{User: name, Bot: &client.Bot{Token: newBot(t, w, name), Enroll: attestor,
				Claims: device.Data{OSType: device.Linux, ReportedAssetTag: tag}, Tag: tag}})
			if err != nil {
				t.Fatal(err, fault.Of(err).Cause)
			}
			d.Keep = hwkey.Enrollment{DeviceID: got.Welcome.DeviceID, CredentialID: got.Welcome.CredentialID, AssetTag: tag, Level: got.Welcome.Level}
			if err := attestor.Keep(d.Keep); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Admin.Delete(t.Context(), manifest.User, name); err != nil {
			t.Fatal(err)
		}
		if rec := inventoried(t, w, tag); rec.Enrolled() || len(rec.Credentials) != 0 {
			t.Errorf("%s: after the removal %+v", first, rec)
		}
		w.User(name, "access", "editor")
		if l := d.Login(name); l.Identity().Device != nil {
			t.Errorf("a namesake of a %s proved their device", first)
		}
	}
}

// TestBotWithAKey: without a device a key that it keeps stands for the machine, from its addresses alone.
func TestBotWithAKey(t *testing.T) {
	w := world.New(t, nil)
	r := bootRole("humans")
	r.Options.DeviceRequirements, r.Options.DeviceTrustMode = nil, device.ModeRequiredForHumans
	w.Role(r)
	kept := newKey(t)
	login := func(name, token string, key crypto.Signer) (*identity.User, error) {
		u, _, err := botLogin(t, w, newKey(t), client.LoginRequest{User: name, Bot: &client.Bot{Token: token, Key: key}})
		return u, err
	}
	free := newBot(t, w, "nowhere")
	_, err := login("nowhere", free, kept)
	w.Refused(err, "bot_needs_address", event.UserLogin)
	far := newBot(t, w, "far", "10.0.0.0/8")
	_, err = login("far", far, kept)
	w.Refused(err, "bot_address", event.UserLogin)
	token := newBot(t, w, "near", "127.0.0.0/8", "::1/128")
	_, err = login("far", token, kept) // another's token
	untold(t, w, err, "bad_bot")
	_, err = login("nowhere", token, kept) // another's token
	w.Refused(err, "bad_bot", event.UserLogin)
	u, err := login("near", token, kept)
	if err != nil {
		t.Fatal(err, fault.Of(err).Cause)
	}
	if u.Kind != identity.Bot || u.Device != nil || u.PinnedIP != u.LoginIP || !u.PinnedIP.IsValid() {
		t.Errorf("%+v", u)
	}
	_, err = login("near", token, kept)
	if err != nil {
		t.Fatal("the kept key with a spent token beside it:", err)
	}
	if _, err := login("near", "", kept); err != nil {
		t.Fatal(err)
	}
	_, err = login("near", "", newKey(t))
	untold(t, w, err, "bot_other_machine")
	_, err = login("near", "", liar{kept, newKey(t)})
	untold(t, w, err, "bot_signature")
	// Its addresses are asked at each login.
	res, err := w.Admin.Get(t.Context(), manifest.User, "near")
	if err != nil {
		t.Fatal(err)
	}
	a := res.Spec.(*identity.Account)
	a.Addresses = []string{"192.0.2.0/24"}
	w.Write(a)
	_, err = login("near", "", kept)
	w.Refused(err, "bot_address", event.UserLogin)
	a.Addresses = nil
	w.Write(a)
	_, err = login("near", "", kept)
	w.Refused(err, "bot_needs_address", event.UserLogin)
}

// liar shows one key and signs with another.
type liar struct{ shown, other *ecdsa.PrivateKey }

func (l liar) Public() crypto.PublicKey { return l.shown.Public() }
func (l liar) Sign(r io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.other.Sign(r, d, o)
}

// TestA14HumansCertificateAsABots: a human's certificate brings nothing that a bot gets: not by naming a bot, not by a
// bot's login in the human's name, not by a reissue, not when a bot takes the name.
func TestA14HumansCertificateAsABots(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	token := newBot(t, w, "ci", "127.0.0.0/8", "::1/128")
	if _, _, err := botLogin(t, w, newKey(t), client.LoginRequest{User: "ci", Bot: &client.Bot{Token: token, Key: newKey(t)}}); err != nil {
		t.Fatal(err)
	}
	alice := w.Login("alice")
	cert := alice.TLS.Certificate[0]
	as := func(user string, bot *client.Bot, reissue bool) (*identity.User, error) {
		a := w.Address()
		c := a.Call(&alice.TLS)
		defer c.Close()
		req := client.LoginRequest{User: user, Key: newKey(t).Public(), Bot: bot}
		if reissue {
			req.Certificate = cert
		}
		got, err := a.Login(t.Context(), c, req, world.Person{Secret: world.Password})
		if err != nil {
			return nil, err
		}
		return identity.FromSSH(got.SSH)
	}
	_, err := as("ci", &client.Bot{Key: newKey(t)}, false) // her certificate, the bot's name
	untold(t, w, err, "bot_other_machine")
	_, err = as("alice", &client.Bot{Key: newKey(t)}, false) // a bot's login in her name
	w.Refused(err, "bad_bot", event.UserLogin)
	i, err := w.Admin.ResetUser(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	_, err = as("alice", &client.Bot{Key: newKey(t), Token: i.Token}, false) // with a bot's token
	w.Refused(err, "bad_bot", event.UserLogin)
	_, err = as("alice", &client.Bot{Key: newKey(t)}, true) // a reissue that says it is a bot
	w.Refused(err, "login_order", event.UserLogin)
	if u, err := as("alice", nil, true); err == nil && u.Kind != identity.Human {
		t.Errorf("a reissue made her a %s", u.Kind)
	}
	_, err = w.TryLogin("ci", world.Password) // a bot has no password
	w.Refused(err, "bad_credentials", event.UserLogin)
	// A bot by her name, once she is gone: her certificate is hers, and no bot's. Even where the lock on what was issued
	// to her is lifted.
	if _, err := w.Admin.Delete(t.Context(), manifest.User, "alice"); err != nil {
		t.Fatal(err)
	}
	locks, err := w.Admin.List(t.Context(), manifest.Lock)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range locks {
		if _, err := w.Admin.Delete(t.Context(), manifest.Lock, l.Metadata.Name); err != nil {
			t.Fatal(err)
		}
	}
	newBot(t, w, "alice")
	_, err = as("alice", nil, true)
	w.Refused(err, "kind_changed", event.UserLogin)
	// A user is made no bot by an edit.
	w.User("bob", "access")
	_, err = w.Admin.Write(t.Context(), []*manifest.Resource{manifest.New(&identity.Account{Name: "bob", Kind: identity.Bot, Roles: []string{"access"}}, 0)}, true)
	if !fault.Because(err, "read_only") {
		t.Errorf("%v", err)
	}
	_, err = w.Admin.Write(t.Context(), []*manifest.Resource{manifest.New(&identity.Account{Name: "eve", Kind: identity.Bot, Roles: []string{"access"}}, 0)}, true)
	if !fault.Because(err, "bot_by_hand") {
		t.Errorf("%v", err)
	}
}

// TestA14TokensAndInvites: a bot's token is no invite that sets a password, and an invite no token.
func TestA14TokensAndInvites(t *testing.T) {
	w := world.New(t, nil)
	w.User("bob", "access")
	token := newBot(t, w, "ci", "127.0.0.0/8", "::1/128")
	invite, err := w.Admin.ResetUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	a, key := w.Address(), newKey(t)
	c := a.Call(nil)
	defer c.Close()
	_, err = a.Login(t.Context(), c, client.LoginRequest{User: "ci", Invite: token, Key: key.Public()}, world.Person{Secret: world.Password})
	w.Refused(err, "invalid_invite", event.UserLogin)
	for _, user := range []string{"bob", "ci"} {
		_, _, err = botLogin(t, w, key, client.LoginRequest{User: user, Bot: &client.Bot{Key: newKey(t), Token: invite.Token}})
		w.Refused(err, "bad_bot", event.UserLogin)
	}
	if _, _, err = botLogin(t, w, key, client.LoginRequest{User: "ci", Bot: &client.Bot{Key: newKey(t), Token: token}}); err != nil {
		t.Errorf("a token that was tried as an invite is spent: %v", err)
	}
}

// TestRefusedBotLeavesNothing spends a bot's token on machines that may not enroll: no device stays in the inventory, and
// the token is still good.
func TestRefusedBotLeavesNothing(t *testing.T) {
	w := world.New(t, func(c *config.Config) { c.Auth.Settings.DeviceTrust.AllowSoftwareKeys = false })
	token := newBot(t, w, "ci")
	for _, tag := range []string{"ONE", "TWO"} {
		d := w.Device(tag, "")
		k := d.Session()
		attestor, err := d.Device.Enroll(k)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = botLogin(t, w, k, client.LoginRequest{User: "ci", Bot: &client.Bot{Token: token, Enroll: attestor,
			Claims: device.Data{OSType: device.Linux, ReportedAssetTag: tag}, Tag: tag}})
		w.Refused(err, "device_software_refused", event.UserLogin)
		if _, err := w.Admin.Get(t.Context(), manifest.Device, tag); !fault.Is(err, fault.NotFound) {
			t.Fatalf("device %s stayed: %v", tag, err)
		}
	}
}
