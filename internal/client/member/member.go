// Package member is what a host does with its cluster: join, renew, follow the feed, hand in its audit events.
package member

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/wire"
)

// silence is how long a host waits for any answer before it follows anew.
const silence = 20 * time.Second

// pingEvery is how often a host asks whether its picture is current: four times in the age that still lets somebody in.
func pingEvery(m *snapshot.Mirror) time.Duration {
	picture, _ := m.Current()
	return min(picture.Settings.AdmitAge(), cluster.DefaultAdmitAge) / 4
}

// Host calls auth as a host.
type Host struct {
	member sallyportv1connect.MembershipServiceClient
	feed   sallyportv1connect.FeedServiceClient
	events sallyportv1connect.EventServiceClient
}

// New calls over c, which stays the caller's to close.
func New(c *client.Cluster) *Host {
	h, base, opts := c.Transport()
	return &Host{
		member: sallyportv1connect.NewMembershipServiceClient(h, base, opts...),
		feed:   sallyportv1connect.NewFeedServiceClient(h, base, opts...),
		events: sallyportv1connect.NewEventServiceClient(h, base, opts...),
	}
}

// Request asks for a host's certificates.
type Request struct {
	Token      string
	Role       identity.HostRole
	Name       string
	TLSKey     crypto.PublicKey
	SSHKey     ssh.PublicKey
	PublicAddr []string
}

// Certificates are what a host gets. Notice says why it has no name where it wanted one.
type Certificates struct {
	ID        string
	Name      string
	Notice    string
	TLS       []byte
	SSH       []byte
	Authority []byte
	Cluster   string
}

func (r Request) keys() (tlsKey, sshKey []byte, err error) {
	if tlsKey, err = x509.MarshalPKIXPublicKey(r.TLSKey); err != nil {
		return nil, nil, err
	}
	if r.SSHKey != nil {
		sshKey = r.SSHKey.Marshal()
	}
	return tlsKey, sshKey, nil
}

// Join spends a join token.
func (h *Host) Join(ctx context.Context, r Request) (Certificates, error) {
	tlsKey, sshKey, err := r.keys()
	if err != nil {
		return Certificates{}, err
	}
	res, err := h.member.Join(ctx, connect.NewRequest(&pb.JoinRequest{Token: r.Token, Role: string(r.Role), Name: r.Name, TlsKey: tlsKey, SshKey: sshKey,
		Version: cluster.Version, ProtocolVersion: cluster.ProtocolVersion, PublicAddr: r.PublicAddr}))
	if err != nil {
		return Certificates{}, err
	}
	return certificates(res.Msg), nil
}

// Renew gets new certificates for the host that calls.
func (h *Host) Renew(ctx context.Context, r Request) (Certificates, error) {
	tlsKey, sshKey, err := r.keys()
	if err != nil {
		return Certificates{}, err
	}
	res, err := h.member.Renew(ctx, connect.NewRequest(&pb.RenewRequest{TlsKey: tlsKey, SshKey: sshKey, Version: cluster.Version,
		ProtocolVersion: cluster.ProtocolVersion, PublicAddr: r.PublicAddr}))
	if err != nil {
		return Certificates{}, err
	}
	return certificates(res.Msg), nil
}

func certificates(m *pb.HostCertificates) Certificates {
	return Certificates{m.HostId, m.Name, m.Notice, m.Tls, m.Ssh, m.TlsHostAuthority, m.ClusterName}
}

// Ingest sends audit entries and returns the number that auth has.
func (h *Host) Ingest(ctx context.Context, entries []event.Entry) (uint64, error) {
	req := &pb.IngestEventsRequest{}
	for _, e := range entries {
		req.Entries = append(req.Entries, e.AppendJSON(nil))
	}
	r, err := h.events.IngestEvents(ctx, connect.NewRequest(req))
	if err != nil {
		return 0, err
	}
	return r.Msg.Acknowledged, nil
}

// Sessions are the live sessions of a host's gate.
type Sessions interface {
	// News receives when there is something for Tell.
	News() <-chan struct{}
	// All is every live session; what Tell then returns is what changed since.
	All() []live.Session
	// Tell is what started or changed, and what ended.
	Tell() (changed []live.Session, ended []string)
}

// Follower keeps a mirror by the feed. Served is what the host serves; Heads takes each new list of audit heads;
// Sessions, nil for who carries none, are told to auth.
type Follower struct {
	Mirror   *snapshot.Mirror
	Served   func() *identity.Server
	Every    time.Duration // how often Served, and every session, is said again
	Heads    func([]byte)
	Sessions Sessions
	// Again, which may be nil, receives when Served is to be said at once.
	Again <-chan struct{}
}

// Follow runs the feed until it breaks or ctx ends. It goes on where the mirror is, or, where auth no longer knows what
// came since, with a complete picture.
func (h *Host) Follow(ctx context.Context, f Follower) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream := h.feed.Follow(ctx)
	// net/http sees the end of a context only once it does not wait for the request's body.
	stop := context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })
	defer func() {
		stop()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	}()
	var pings sync.WaitGroup
	defer pings.Wait()
	pings.Go(func() {
		if err := f.ping(ctx, stream); err != nil {
			cancel(err)
		}
	})
	silent := time.AfterFunc(silence, func() { cancel(errors.New("the feed has gone silent")) })
	defer silent.Stop()
	var pending snapshot.Change // of a complete picture that comes in parts
	for {
		m, err := stream.Receive()
		if err == nil {
			silent.Reset(silence)
			err = f.apply(m, &pending)
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && connect.CodeOf(err) == connect.CodeCanceled {
				err = cause
			}
			cancel(err)
			return client.FromRPC(err)
		}
	}
}

// ping sends the mirror's clock, which comes back as the echo, what is served, and what becomes of sessions.
func (f Follower) ping(ctx context.Context, stream *connect.BidiStreamForClient[pb.FollowRequest, pb.FollowResponse]) error {
	tick := time.NewTimer(min(time.Second, pingEvery(f.Mirror))) // by then the first picture says how often
	defer tick.Stop()
	served := time.Time{}
	m := &pb.FollowRequest{Version: cluster.Version, ProtocolVersion: cluster.ProtocolVersion}
	m.Run, m.After = f.Mirror.Resume()
	news, due := f.news(), true
	for {
		whole := false
		if due {
			m.Ping = uint64(f.Mirror.Now()) + 1
			if now := time.Now(); now.Sub(served) >= f.Every {
				whole = true
				res, err := wire.Resource(manifest.New(f.Served(), 0))
				if err != nil {
					return err
				}
				m.Served, served = []*pb.Resource{res}, now
			}
		}
		rest, err := f.tell(m, whole)
		if err != nil {
			return err
		}
		for _, m := range append([]*pb.FollowRequest{m}, rest...) {
			if stream.Send(m) != nil {
				return nil // the stream is over: Receive says why
			}
		}
		m, due = &pb.FollowRequest{}, false
		select {
		case <-tick.C:
			due = true
			tick.Reset(pingEvery(f.Mirror))
		case <-f.Again:
			due, served = true, time.Time{}
		case <-news:
			select { // what comes in a moment goes along
			case <-time.After(tellAfter):
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// tellAfter is how long news of sessions are gathered; tellMost is how many bytes of them go into one message.
const (
	tellAfter = 200 * time.Millisecond
	tellMost  = 512 << 10
)

func (f Follower) news() <-chan struct{} {
	if f.Sessions == nil {
		return nil
	}
	return f.Sessions.News()
}

// tell adds to a message what became of sessions, or all of them, and returns the messages for which there was no room.
func (f Follower) tell(m *pb.FollowRequest, whole bool) ([]*pb.FollowRequest, error) {
	if f.Sessions == nil {
		return nil, nil
	}
	var changed []live.Session
	said := &pb.LiveSessions{Complete: whole}
	if whole {
		changed = f.Sessions.All()
		for _, s := range changed {
			said.Ids = append(said.Ids, s.ID)
		}
	} else if changed, said.Ended = f.Sessions.Tell(); len(changed)+len(said.Ended) == 0 {
		return nil, nil
	}
	m.Sessions = said
	var rest []*pb.FollowRequest
	size := 0
	for _, s := range changed {
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > tellMost && len(said.Changed) > 0 {
			said, size = &pb.LiveSessions{}, len(raw)
			rest = append(rest, &pb.FollowRequest{Sessions: said})
		}
		said.Changed = append(said.Changed, raw)
	}
	return rest, nil
}

// maxPicture bounds the resources of a complete picture that comes in parts.
const maxPicture = 1 << 20

func (f Follower) apply(m *pb.FollowResponse, pending *snapshot.Change) error {
	if len(m.Heads) > 0 && f.Heads != nil {
		f.Heads(m.Heads)
	}
	if m.Pong != 0 {
		f.Mirror.Reach(m.Revision)
		f.Mirror.Confirm(time.Duration(m.Pong - 1))
		if m.Time != nil {
			f.Mirror.Tell(time.Duration(m.Pong-1), m.Time.AsTime())
		}
		return nil
	}
	if !m.Complete && len(m.Put) == 0 && len(m.Removed) == 0 && m.Authorities == nil && len(m.Heads) > 0 {
		return nil
	}
	c := snapshot.Change{Run: m.Run, Revision: m.Revision, Complete: m.Complete}
	for _, r := range m.Put {
		res, err := manifest.Decode(r.Json)
		if err != nil {
			res = snapshot.Unreadable(manifest.Kind(r.Kind), r.Name)
		}
		c.Put = append(c.Put, res)
	}
	for _, r := range m.Removed {
		c.Removed = append(c.Removed, snapshot.Ref{Kind: manifest.Kind(r.Kind), Name: r.Name})
	}
	if m.Authorities != nil {
		a, err := authorities(m.Authorities)
		if err != nil {
			return err
		}
		c.Authorities = a
	}
	if c.Complete {
		c.Put, c.Authorities = append(pending.Put, c.Put...), cmp.Or(c.Authorities, pending.Authorities)
		if *pending = (snapshot.Change{}); m.More {
			*pending = c
		}
		if len(pending.Put) > maxPicture {
			return errors.New("a picture without an end")
		}
	}
	if !m.More {
		f.Mirror.Apply(c)
	}
	return nil
}

func authorities(m *pb.Authorities) (*snapshot.Authorities, error) {
	out := &snapshot.Authorities{}
	for _, l := range []struct {
		raw [][]byte
		to  *[]ssh.PublicKey
	}{{m.SshUser, &out.SSHUser}, {m.SshHost, &out.SSHHost}} {
		for _, raw := range l.raw {
			k, err := ssh.ParsePublicKey(raw)
			if err != nil {
				return nil, fmt.Errorf("ssh authority: %w", err)
			}
			*l.to = append(*l.to, k)
		}
	}
	for _, raw := range m.TlsUser {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("tls authority: %w", err)
		}
		out.TLSUser = append(out.TLSUser, c)
	}
	for _, raw := range m.DialTicket {
		k, err := x509.ParsePKIXPublicKey(raw)
		key, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("dial ticket authority is no Ed25519 key")
		}
		out.DialTicket = append(out.DialTicket, key)
	}
	if len(m.Recording) > 0 {
		to, err := recording.NewRecipient(m.Recording)
		if err != nil {
			return nil, err
		}
		out.Recording = to
	}
	return out, nil
}
