package tool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/fault"
)

// Cluster reaches the cluster: through the admin socket of a server on this machine, else by the tsh login. Nothing is
// opened before the first command that needs it.
func (t *Tool) Cluster(ctx context.Context) (*client.Cluster, error) {
	if t.reached != nil {
		return t.reached, nil
	}
	dir := t.DataDir
	if dir == "" {
		dir = t.defaultDataDir()
	}
	socket := filepath.Join(dir, "admin.sock")
	err := opens(ctx, socket)
	if err == nil {
		t.reached = client.Local(socket)
		return t.reached, nil
	}
	why := "there is no admin socket " + socket
	if !errors.Is(err, fs.ErrNotExist) {
		why = fmt.Sprintf("the admin socket %s cannot be opened (%v)", socket, reason(err))
		fmt.Fprintf(t.Err, "%s; using the tsh login\n", why)
	}
	err = ErrNoLogin
	if t.Login != nil {
		t.reached, err = t.Login(ctx)
	}
	if fault.Because(err, ErrNoLogin.Reason) {
		return nil, fault.New(fault.Unauthenticated, "no cluster to talk to").WithReason("no_cluster").
			WithCause("%s, and there is no tsh login", why).
			WithFix("on the server, as the user who runs it: tctl --data-dir=DIR …; elsewhere: tsh login --proxy=HOST:PORT --user=NAME")
	}
	return t.reached, err
}

// opens tries whether somebody answers on a socket that this user may open.
func opens(ctx context.Context, socket string) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// reason is the innermost of an error: what the system said.
func reason(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
