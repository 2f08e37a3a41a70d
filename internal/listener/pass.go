package listener

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/listener/refusal"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// Pass carries the TLS that clients of l speak themselves to streams that dial opens, until ctx ends; then it closes l and
// what it carries. PostgreSQL's question for TLS is answered here.
func Pass(ctx context.Context, l net.Listener, p target.Protocol, dial func(context.Context) (net.Conn, error)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		running.Go(func() {
			defer c.Close()
			end := context.AfterFunc(ctx, func() { c.Close() })
			defer end()
			_ = c.SetDeadline(time.Now().Add(entryTime))
			inner, err := passTLS(c, p)
			if err != nil {
				return
			}
			open, cancel := context.WithTimeout(ctx, entryTime)
			up, err := dial(open)
			cancel()
			if err != nil {
				if p == target.PostgreSQL {
					_, _ = c.Write(refusal.Postgres(fault.Of(err)))
				}
				return
			}
			_ = c.SetDeadline(time.Time{})
			tunnel.Splice(inner, up)
		})
	}
}

// passTLS leaves a connection where its TLS begins.
func passTLS(c net.Conn, p target.Protocol) (net.Conn, error) {
	if p != target.PostgreSQL {
		return c, nil
	}
	return postgresGuard(c, func(c net.Conn) (net.Conn, error) {
		if u, ok := c.(*unread); ok {
			return u, nil
		}
		return &unread{c, bytes.NewReader(nil)}, nil
	})
}
