package kube

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/net/websocket"

	"github.com/sallyport/sallyport/internal/tunnel"
)

// way is one to the API server.
type way struct {
	name string
	addr string
	conf *tls.Config    // nil: in clear
	pid  int            // of what is between, 0 where there is nothing
	mux  *tunnel.Tunnel // of a listener, whose clients come by one connection
}

// listener is the way of those who come by one.
func (w way) listener(ctx context.Context) (way, error) {
	conf := w.conf.Clone()
	conf.NextProtos = []string{tunnel.ALPNMux}
	c, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", w.addr)
	if err != nil {
		return w, err
	}
	w.mux, err = tunnel.Client(c)
	return w, err
}

// dial gives a connection as an upgrade is asked for on.
func (w way) dial(ctx context.Context) (net.Conn, error) {
	if w.mux != nil {
		return w.mux.Open(ctx, tunnel.Header{Door: tunnel.DoorKube, Client: netip.MustParseAddrPort("192.0.2.1:1")})
	}
	d := net.Dialer{}
	c, err := d.DialContext(ctx, "tcp", w.addr)
	if err != nil || w.conf == nil {
		return c, err
	}
	conf := w.conf.Clone()
	conf.NextProtos = []string{"http/1.1"}
	return tls.Client(c, conf), nil
}

func (w way) url(path string) string {
	if w.conf == nil {
		return "http://" + w.addr + path
	}
	return "https://" + w.addr + path
}

// client has one connection, as a kubectl has.
func (w way) client() *http.Client {
	t := &http.Transport{MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, DisableCompression: true, ForceAttemptHTTP2: true}
	if w.conf != nil {
		t.TLSClientConfig = w.conf.Clone()
		t.TLSClientConfig.NextProtos = nil
	}
	return &http.Client{Transport: t}
}

// get reads an answer to its end.
func (w way) get(ctx context.Context, c *http.Client, path string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(path), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", w.name, path, res.Status)
	}
	return n, err
}

// watch begins one, and gives its events as they come.
func (w way) watch(ctx context.Context, path string) (<-chan string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(path), nil)
	if err != nil {
		return nil, err
	}
	res, err := w.client().Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, errors.New(w.name + ": " + res.Status)
	}
	out := make(chan string, 16)
	go func() {
		defer res.Body.Close()
		defer close(out)
		for in := bufio.NewReader(res.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case out <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// exec runs a command in a pod by WebSocket, as kubectl does (v5.channel.k8s.io), and gives how much it said.
func (w way) exec(ctx context.Context, pod string, command ...string) (int64, error) {
	c, err := w.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	scheme := "ws"
	if w.conf != nil {
		scheme = "wss"
	}
	q := url.Values{"command": command, "stdout": {"true"}, "stderr": {"true"}, "container": {"c"}}
	at := "://" + w.addr + "/api/v1/namespaces/bench/pods/" + pod + "/exec?" + q.Encode()
	conf, err := websocket.NewConfig(scheme+at, "http"+at)
	if err != nil {
		return 0, err
	}
	conf.Protocol = []string{"v5.channel.k8s.io"}
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	ws, err := websocket.NewClient(conf, c)
	if err != nil {
		return 0, fmt.Errorf("%s: exec: %w", w.name, err)
	}
	ws.MaxPayloadBytes = 64 << 20
	var said int64
	for {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			return said, fmt.Errorf("%s: exec ended without a status: %w", w.name, err)
		}
		if len(m) == 0 {
			continue
		}
		switch m[0] {
		case 1, 2:
			said += int64(len(m) - 1)
		case 3:
			var s struct{ Status, Message string }
			if err := json.Unmarshal(m[1:], &s); err != nil || s.Status != "Success" {
				return said, fmt.Errorf("%s: exec: %s %w", w.name, m[1:], err)
			}
			return said, nil
		}
	}
}
