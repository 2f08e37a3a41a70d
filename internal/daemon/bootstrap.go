package daemon

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/ekroots"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/login/bots"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/trust"
	"github.com/sallyport/sallyport/internal/trust/proof"
)

// metaKey is where a cluster's birth is written: its name, the version of its state, and auth's own host id.
const metaKey = "meta/cluster"

type meta struct {
	Name    string `json:"name"`
	Version int    `json:"state_version"`
	AuthID  string `json:"auth_id"`
}

// bootstrap reads or writes the cluster's birth. Its name is fixed then.
func (d *daemon) bootstrap(a *authPart) error {
	var m meta
	rec, err := a.store.Get(d.ctx, metaKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		m = meta{Name: d.Config.ClusterName, Version: cluster.StateVersion, AuthID: uuid.NewString()}
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if _, err := a.store.Txn(d.ctx, []store.Op{store.Create(metaKey, raw)}); err != nil {
			return fmt.Errorf("begin the cluster: %w", err)
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(rec.Value, &m); err != nil {
			return fmt.Errorf("stored %s: %w", metaKey, err)
		}
	}
	if m.Version > cluster.StateVersion {
		return fault.New(fault.Unsupported, "the state in %s is of version %d, this program knows %d", d.Config.DataDir, m.Version, cluster.StateVersion).
			WithReason("state_newer").WithFix("install the Sallyport that wrote it, or a newer one")
	}
	if d.Config.ClusterName != "" && d.Config.ClusterName != m.Name && d.Config.NameGiven {
		return fault.New(fault.Invalid, "cluster_name is %q in the config, and this cluster is %q", d.Config.ClusterName, m.Name).
			WithReason("cluster_name").WithCause("the name is part of every certificate and fixed at the first start").
			WithFix("set cluster_name: %s, or begin with another data_dir", m.Name)
	}
	a.host = identity.Host{ID: m.AuthID, Role: identity.RoleAuth, Cluster: m.Name}
	return nil
}

// seed gives a new cluster its preset roles and its settings; from then on the resource rules, and differences are
// told.
func (d *daemon) seed(a *authPart) error {
	want := d.Config.Auth.Settings
	files, err := ekroots.Read(d.Config.Auth.CAFiles)
	if err != nil {
		return err
	}
	want.DeviceTrust.EKCertAllowedCAs = append(want.DeviceTrust.EKCertAllowedCAs, files...)
	have, err := a.records.Settings(d.ctx)
	if fault.Is(err, fault.NotFound) {
		return d.firstSeed(a, want)
	}
	if err != nil {
		d.Log.Error("settings cannot be read; everything demands a device until they can", "err", err)
		return nil
	}
	if !d.Config.Auth.Seeded {
		return nil
	}
	differences := want.Differences(have)
	if len(differences) == 0 {
		return nil
	}
	if d.ApplyConfig {
		return d.writeSettings(a, want)
	}
	for _, line := range differences {
		fmt.Fprintf(d.Out, "authentication.%s; the cluster's counts (to take the file's: sallyport start --apply-config)\n", line)
	}
	return nil
}

func (d *daemon) firstSeed(a *authPart, want cluster.Settings) error {
	var evs []event.Event
	var ops []store.Op
	list := []*manifest.Resource{manifest.New(&want, 0)}
	for _, r := range role.Presets() {
		list = append(list, manifest.New(&r, 0))
	}
	for _, res := range list {
		op, err := records.Put(res)
		if err != nil {
			return err
		}
		kind := event.ResourceCreate
		if res.Kind == manifest.Role {
			kind = event.RoleCreated
		}
		evs = append(evs, event.Event{Kind: kind, User: identity.LocalUser, Success: true, Message: "first start",
			Resource: &event.Resource{ResourceKind: string(res.Kind), ResourceName: res.Metadata.Name}})
		ops = append(ops, op)
	}
	_, err := a.log.RecordAll(d.ctx, evs, ops...)
	return err
}

func (d *daemon) writeSettings(a *authPart, want cluster.Settings) error {
	op, err := records.Put(manifest.New(&want, 0))
	if err != nil {
		return err
	}
	_, err = a.log.Record(d.ctx, event.Event{Kind: event.ResourceUpdate, User: identity.LocalUser, Success: true, Message: "start --apply-config",
		Resource: &event.Resource{ResourceKind: string(manifest.Cap), ResourceName: manifest.CapName}}, op)
	return err
}

// hostToken makes a join token for a part of this same process; the name is the part's by right.
func (d *daemon) hostToken(r identity.HostRole, name string) (string, error) {
	i, err := d.auth.roster.AddToken(d.ctx, identity.Caller{Local: true}, identity.JoinToken{Roles: []identity.HostRole{r}, Name: name}, 0)
	return i.Token, err
}

// proofs lets login prove devices by trust.
type proofs struct {
	*proof.Service
	devices *trust.Service
}

// EnrollBot is of bots.Devices.
func (p proofs) EnrollBot(ctx context.Context, m bots.Enrollment, c login.Conversation) (*identity.Device, error) {
	return p.devices.EnrollBot(ctx, trust.BotStart{From: m.From, Binding: m.Binding, Hello: m.Hello, OS: m.OS, Tag: m.Tag, Bind: m.Bind}, c)
}

// Authenticate is of login.Devices.
func (p proofs) Authenticate(ctx context.Context, b ceremony.Binding, hello []byte, c login.Conversation) (*identity.Device, []string, error) {
	return p.Service.Authenticate(ctx, b, hello, c)
}

func publicKeys(p ca.Public) []ed25519.PublicKey { return []ed25519.PublicKey{p.DialTicket} }
