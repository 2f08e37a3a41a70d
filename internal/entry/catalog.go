package entry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/client/authority"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Resource is one thing that an agent is to serve; Spec is what its door needs to know of it.
type Resource struct {
	target.Served
	Spec any
}

// Certifier gives a certificate for names.
type Certifier interface {
	Served(ctx context.Context, key crypto.PublicKey, names []string) (authority.Served, error)
}

// Catalog is what an agent serves now, with the certificate for it. It serves what auth lets it serve and nothing else.
type Catalog struct {
	certifier Certifier
	host      identity.Host
	log       *slog.Logger
	again     chan struct{} // rung, at most once ahead, when what is served changed

	mu    sync.Mutex
	items map[string]*item // guarded by mu: what is served, by SNI name
	cert  *tls.Certificate // guarded by mu
	names []string         // guarded by mu: those that auth was asked for
	asked time.Time        // guarded by mu: when auth was asked last
	told  map[string]string
}

// item is a resource with what ends when it does.
type item struct {
	Resource
	ctx context.Context
	end context.CancelCauseFunc
}

// refusedAgain is when auth is asked again for names that it refused: they may be free by then.
const refusedAgain = 5 * time.Minute

// NewCatalog makes an empty one.
func NewCatalog(c Certifier, host identity.Host, log *slog.Logger) *Catalog {
	return &Catalog{certifier: c, host: host, log: log, again: make(chan struct{}, 1), items: map[string]*item{}, told: map[string]string{}}
}

// Run keeps the catalog at what wanted says, whenever changed is closed, and its certificate valid, until ctx ends.
// ready is called after the first attempt.
func (c *Catalog) Run(ctx context.Context, wanted func() ([]Resource, <-chan struct{}), ready func()) {
	pause := time.Second
	for {
		list, changed := wanted()
		wait, err := c.set(ctx, list)
		if ready != nil {
			ready()
			ready = nil
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("resources are not certified, trying again", "err", err, "in", pause)
			wait, pause = pause, min(2*pause, 30*time.Second)
		} else {
			pause = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// set makes a list what is served, as far as auth allows, and returns when to look at the certificate again.
func (c *Catalog) set(ctx context.Context, list []Resource) (time.Duration, error) {
	var names []string
	for _, r := range list {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	c.mu.Lock()
	cert, same := c.cert, slices.Equal(names, c.names)
	again := c.asked.Add(refusedAgain)
	c.mu.Unlock()
	served := c.served()
	before := slices.Sorted(slices.Values(served))
	refused := len(served) < len(slices.Compact(slices.Clone(names)))
	if refused && !time.Now().Before(again) {
		same = false
	}
	if cert == nil || !same || time.Now().After(renewal(cert.Leaf)) {
		var err error
		if cert, served, err = c.certify(ctx, names); err != nil {
			if fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) {
				c.replace(nil, nil)
			}
			return 0, err
		}
		refused, again = len(served) < len(slices.Compact(slices.Clone(names))), time.Now().Add(refusedAgain)
	}
	list = slices.DeleteFunc(slices.Clone(list), func(r Resource) bool { return !slices.Contains(served, r.Name) })
	c.mu.Lock()
	c.cert, c.names, c.asked = cert, names, again.Add(-refusedAgain)
	c.mu.Unlock()
	if now := slices.Sorted(slices.Values(served)); !slices.Equal(now, before) {
		c.log.Info("what is served", "names", now)
	}
	c.replace(list, served)
	wait := time.Until(renewal(cert.Leaf))
	if refused {
		wait = min(wait, time.Until(again))
	}
	return wait, nil
}

func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

func (c *Catalog) served() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert == nil {
		return nil
	}
	var out []string
	for _, n := range c.names {
		if slices.Contains(c.cert.Leaf.DNSNames, c.host.ServedDNSName(n)) {
			out = append(out, n)
		}
	}
	return out
}

// certify gets a certificate over a new key, and says once of each name that is refused why.
func (c *Catalog) certify(ctx context.Context, names []string) (*tls.Certificate, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	got, err := c.certifier.Served(ctx, key.Public(), names)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(got.TLS)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of what is served: %w", err)
	}
	for name, why := range got.Refused {
		if c.told[name] != why {
			c.log.Error("a resource is not served", "name", name, "why", why)
		}
	}
	c.told = got.Refused
	return &tls.Certificate{Certificate: [][]byte{got.TLS}, PrivateKey: key, Leaf: leaf}, got.Names, nil
}

// replace ends what is gone or is another now, and begins what is new.
func (c *Catalog) replace(list []Resource, served []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, changed := map[string]*item{}, false
	for _, r := range list {
		key := target.SNIName(r.Name)
		if old := c.items[key]; old != nil && reflect.DeepEqual(old.Resource, r) {
			next[key] = old
			continue
		}
		ctx, end := context.WithCancelCause(context.Background())
		next[key], changed = &item{r, ctx, end}, true
	}
	for key, old := range c.items {
		if next[key] != old {
			changed = true
			old.end(fault.New(fault.Unavailable, "%s is not served any more as it was", old.Name).WithReason("resource_changed").WithFix("connect again"))
		}
	}
	c.items = next
	if changed {
		select {
		case c.again <- struct{}{}:
		default:
		}
	}
}

// Changed receives when what is served changed.
func (c *Catalog) Changed() <-chan struct{} { return c.again }

// Serves is what to tell the cluster.
func (c *Catalog) Serves() []target.Served {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []target.Served
	for _, i := range c.items {
		out = append(out, i.Served)
	}
	slices.SortFunc(out, func(a, b target.Served) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Certificate has the names of what is served; nil before there is one.
func (c *Catalog) Certificate() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert
}

// Resource finds the resource of an SNI name.
func (c *Catalog) Resource(sni string) (string, bool) {
	label, rest, _ := strings.Cut(strings.ToLower(sni), ".")
	if rest != string(c.host.Role)+"."+c.host.Cluster {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.items[label]
	if i == nil {
		return "", false
	}
	return i.Name, true
}

// Open finds a resource for one visit, and a context that ends when the resource, or ctx, does; close gives it back.
func (c *Catalog) Open(ctx context.Context, name string) (r Resource, visit context.Context, done func(), ok bool) {
	c.mu.Lock()
	i := c.items[target.SNIName(name)]
	c.mu.Unlock()
	if i == nil {
		return Resource{}, nil, nil, false
	}
	visit, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(i.ctx, func() { cancel(context.Cause(i.ctx)) })
	return i.Resource, visit, func() { stop(); cancel(nil) }, true
}
