package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/adminsocket"
	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/audit"
	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/census"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/issuance"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/login/bots"
	"github.com/sallyport/sallyport/internal/membership"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/roster"
	"github.com/sallyport/sallyport/internal/rpc"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/snapshot/feed"
	"github.com/sallyport/sallyport/internal/store/sqlite"
	"github.com/sallyport/sallyport/internal/trust"
	"github.com/sallyport/sallyport/internal/trust/fleet"
	"github.com/sallyport/sallyport/internal/trust/proof"
)

// authPart is the auth server of this process.
type authPart struct {
	store       *sqlite.Store
	records     *records.Records
	keys        *keystore.Keys
	log         *audit.Log
	ca          *ca.CA
	public      ca.Public
	feed        *feed.Feed
	roster      *roster.Service
	recordings  *archive.Service
	certificate atomic.Pointer[tls.Certificate]
	host        identity.Host
}

func (d *daemon) startAuth() error {
	a := &authPart{}
	d.auth = a
	var err error
	if a.store, err = sqlite.Open(d.ctx, sqlite.Config{Dir: filepath.Join(d.Config.DataDir, "state"), Now: time.Now}); err != nil {
		return err
	}
	d.later(func() {
		if err := a.store.Close(); err != nil {
			d.Log.Error("state was not closed in order", "err", err)
		}
	})
	a.records = records.New(a.store)
	if err := d.bootstrap(a); err != nil { // first: what is newer is refused before anything is read or written
		return err
	}
	if a.keys, err = keystore.Open(d.ctx, a.store, filepath.Join(d.Config.DataDir, "seal.key")); err != nil {
		return err
	}
	if err := d.openLog(a); err != nil {
		return err
	}
	if err := d.seed(a); err != nil {
		return err
	}
	if a.recordings, err = d.archive(a); err != nil {
		return err
	}
	authorities := snapshot.Authorities{SSHUser: []ssh.PublicKey{a.public.SSHUser}, SSHHost: []ssh.PublicKey{a.public.SSHHost},
		TLSUser: []*x509.Certificate{a.public.TLSUser}, DialTicket: publicKeys(a.public)}
	if a.recordings.Key != nil {
		authorities.Recording = a.recordings.Key.Recipient()
	}
	a.feed = feed.New(a.store, authorities)
	a.recordings.Pictures = a.feed
	d.run("feed", a.feed.Run)
	if err := d.feedReady(a); err != nil {
		return err
	}
	if err := a.renew(d.ctx); err != nil {
		return err
	}
	d.run("auth certificate", func(ctx context.Context) error { return d.keepAuthRenewed(ctx, a) })
	d.run("audit heads", func(ctx context.Context) error { return d.signHeads(ctx, a) })
	return d.serveAuth(a)
}

// openLog makes audit log and authority; each needs the other's parts.
func (d *daemon) openLog(a *authPart) error {
	heads, _, err := a.keys.Signer(d.ctx, keystore.AuditHeads)
	if err != nil {
		return err
	}
	a.log, err = audit.New(audit.Config{Store: a.store, Writer: a.host.ID, Cluster: a.host.Cluster, HeadsKey: heads, Now: time.Now})
	if err != nil {
		return err
	}
	a.ca = ca.New(a.keys, a.host.Cluster, a.log, time.Now)
	a.public, err = a.ca.Public(d.ctx)
	return err
}

// feedReady waits for the first picture: nothing is decided before.
func (d *daemon) feedReady(a *authPart) error {
	ctx, cancel := context.WithTimeout(d.ctx, 30*time.Second)
	defer cancel()
	a.feed.Reached(ctx, 1)
	return ctx.Err()
}

func (d *daemon) serveAuth(a *authPart) error {
	inv := inventory.New(a.store)
	people := &login.Service{Records: a.records, CA: a.ca, Audit: a.log, Pictures: a.feed, Passwords: login.NewPasswords(),
		Throttle: login.NewThrottle(time.Now), Now: time.Now}
	devices := &trust.Service{Inventory: inv, Records: a.records, Audit: a.log, Pictures: a.feed, Confirm: people,
		ClusterCA: cluster.PinHash(a.public.TLSHost), Now: time.Now}
	proven := proofs{&proof.Service{Trust: devices}, devices}
	people.Devices = proven
	a.roster = &roster.Service{Records: a.records, Inventory: inv, CA: a.ca, Audit: a.log, Pictures: a.feed, Hasher: people.Passwords,
		Devices: devices, Now: time.Now}
	names := &issuance.Service{Records: a.records, Store: a.store, CA: a.ca, Pictures: a.feed}
	hosts := &membership.Service{Serving: names, Records: a.records, Store: a.store, CA: a.ca, Audit: a.log, Pictures: a.feed, Now: time.Now}
	sessions := &census.Service{Records: a.records, Store: a.store, Pictures: a.feed, Audit: a.log, Now: time.Now}
	server := rpc.New(rpc.UseCases{Login: people, Bots: &bots.Service{People: people, Devices: proven}, Trust: devices, Fleet: &fleet.Service{Trust: devices}, Membership: hosts, Issuance: names, Roster: a.roster, Census: sessions, Archive: a.recordings, Feed: a.feed, Audit: a.log},
		a.public, a.certificate.Load, d.Log.With("part", "auth"))
	l, err := listen(d.Config.Auth.Listen, "auth.listen")
	if err != nil {
		return err
	}
	d.state.Auth, d.state.Cluster, d.state.CAPin = l.Addr().String(), a.host.Cluster, cluster.Pin(a.public.TLSHost)
	d.run("auth", func(ctx context.Context) error { return server.ServeLink(ctx, l) })
	d.state.Socket = filepath.Join(d.Config.DataDir, "admin.sock")
	socket, err := adminsocket.Listen(d.state.Socket)
	if err != nil {
		return err
	}
	d.run("admin socket", func(ctx context.Context) error {
		context.AfterFunc(ctx, func() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			server.Close(end)
		})
		if err := server.ServeLocal(socket); ctx.Err() == nil {
			return err
		}
		return nil
	})
	users, _, err := a.records.List(d.ctx, "user", "", 1)
	d.state.Users = len(users)
	return err
}

// renew gives auth its own certificate; the authority stands behind it, for proxies that join by its pin.
func (a *authPart) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	prepared, err := a.ca.PrepareHost(ca.HostRequest{Host: a.host, TLSKey: key.Public()})
	if err != nil {
		return err
	}
	certs, err := prepared.Issue(ctx)
	if err != nil {
		return err
	}
	a.certificate.Store(&tls.Certificate{Certificate: [][]byte{certs.TLS, a.public.TLSHost.Raw}, PrivateKey: key})
	return nil
}

// keepAuthRenewed renews auth's own certificate after a third of its life; one that fails, as on a full disk, is tried
// again every minute.
func (d *daemon) keepAuthRenewed(ctx context.Context, a *authPart) error {
	wait := ca.HostLife / 3
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = ca.HostLife / 3
		if err := a.renew(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error("auth's certificate was not renewed, trying again", "err", err)
			wait = time.Minute
		}
	}
}

func (d *daemon) signHeads(ctx context.Context, a *authPart) error {
	tick := time.NewTicker(audit.HeadsEvery)
	defer tick.Stop()
	for {
		if heads, err := a.log.SignHeads(ctx, time.Now()); err != nil && ctx.Err() == nil {
			d.Log.Error("audit heads were not signed", "err", err)
		} else if err == nil {
			a.feed.Announce(heads)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
