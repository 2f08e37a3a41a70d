package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream"

	"github.com/sallyport/sallyport/internal/kube/stream"
)

// pod is an API server with one pod, dev/web, whose streams it serves itself, in every protocol, by the libraries that
// Kubernetes does.
type pod struct {
	t    *testing.T
	mu   sync.Mutex
	asks []*http.Request // guarded by mu: of streams
}

// discovery is what kubectl asks first.
var discovery = map[string]string{
	"/api":    `{"kind":"APIVersions","versions":["v1"]}`,
	"/apis":   `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
	"/api/v1": `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list","watch"]}]}`,
}

func (p *pod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	base, what := "/api/v1/namespaces/dev/pods/web", ""
	if strings.HasPrefix(r.URL.Path, base+"/") {
		what = r.URL.Path[len(base)+1:]
		p.mu.Lock()
		p.asks = append(p.asks, r.Clone(context.Background()))
		p.mu.Unlock()
	}
	command := r.URL.Query()["command"]
	switch {
	case r.URL.Path == base:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"dev"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]},"status":{"phase":"Running"}}`)
	case discovery[r.URL.Path] != "":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, discovery[r.URL.Path])
	case what == "":
		http.NotFound(w, r)
	case slices.Contains(command, "refused"):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods web is forbidden%s","reason":"Forbidden","code":403}`, strings.Repeat(" by a long tale", 200))
	case what == "portforward" && r.Header.Get("Upgrade") == "websocket":
		u := websocket.Upgrader{Subprotocols: []string{"SPDY/3.1+portforward.k8s.io"}}
		if c, err := u.Upgrade(w, r, nil); err == nil {
			p.forward(&pipe{Conn: c})
		}
	case what == "portforward":
		p.forward(p.hijack(w, "portforward.k8s.io"))
	case r.Header.Get("Upgrade") == "websocket":
		p.socket(w, r, command)
	default:
		p.spdy(w, r, command)
	}
}

func (p *pod) hijack(w http.ResponseWriter, protocol string) net.Conn {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.t.Error(err)
		return nil
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: %s\r\n\r\n", protocol)
	return c
}

// program is what a command reads and writes.
type program struct {
	in       io.Reader
	out, err io.Writer
	sizes    io.Reader
	broken   func() // sends what is no frame
	gone     <-chan struct{}
}

// run is the pod's shell. It gives the status to end with, or false for an end without one.
func (p *pod) run(command []string, g program) (map[string]any, bool) {
	code, arg := 0, ""
	if len(command) > 1 {
		arg = command[1]
	}
	n, _ := strconv.Atoi(arg)
	switch first(command) {
	case "exit":
		code = n
	case "hash": // of what comes in
		h := sha256.New()
		_, _ = io.Copy(h, g.in)
		fmt.Fprint(g.out, hex.EncodeToString(h.Sum(nil)))
	case "bulk":
		_, _ = io.CopyBuffer(struct{ io.Writer }{g.out}, io.LimitReader(noise(), int64(n)), make([]byte, 32<<10))
	case "size":
		var s struct{ Width, Height uint16 }
		_ = json.NewDecoder(g.sizes).Decode(&s)
		fmt.Fprintf(g.out, "%dx%d", s.Width, s.Height)
	case "both":
		fmt.Fprint(g.out, "out")
		fmt.Fprint(g.err, "err")
	case "junk":
		g.broken()
		<-g.gone
		return nil, false
	case "die":
		return nil, false
	default: // cat
		_, _ = io.Copy(g.out, g.in)
	}
	if code != 0 {
		return map[string]any{"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated", "details": map[string]any{"causes": []any{map[string]any{"reason": "ExitCode", "message": strconv.Itoa(code)}}}}, true
	}
	return map[string]any{"status": "Success"}, true
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func noise() io.Reader { return rand.NewChaCha8([32]byte{1}) }

type channel struct {
	mu *sync.Mutex
	c  *websocket.Conn
	n  byte
}

func (c channel) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(p), c.c.WriteMessage(websocket.BinaryMessage, append([]byte{c.n}, p...))
}

func (p *pod) socket(w http.ResponseWriter, r *http.Request, command []string) {
	u := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"}}
	c, err := u.Upgrade(w, r, nil)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer c.Close()
	in, inW := io.Pipe()
	sizes, sizesW := io.Pipe()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer inW.Close()
		defer sizesW.Close()
		for {
			_, m, err := c.ReadMessage()
			if err != nil || len(m) == 0 {
				return
			}
			switch m[0] {
			case 0:
				_, _ = inW.Write(m[1:])
			case 4:
				_, _ = sizesW.Write(m[1:])
			case 255:
				inW.Close()
			}
		}
	}()
	var mu sync.Mutex
	to := func(n byte) channel { return channel{&mu, c, n} }
	_, _ = to(1).Write(nil)
	status, ok := p.run(command, program{in, to(1), to(2), sizes, func() { _, _ = c.NetConn().Write([]byte{0xff, 0xff, 0xff, 0xff}) }, gone})
	in.Close()
	sizes.Close()
	if !ok {
		return
	}
	raw, _ := json.Marshal(status)
	_, _ = to(3).Write(raw)
	_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	select {
	case <-gone:
	case <-time.After(2 * time.Second):
	}
}

func (p *pod) spdy(w http.ResponseWriter, r *http.Request, command []string) {
	q := r.URL.Query()
	want := 1
	for _, name := range []string{"stdin", "stdout", "stderr", "tty"} {
		if q.Get(name) == "true" {
			want++
		}
	}
	nc := p.hijack(w, first(r.Header["X-Stream-Protocol-Version"]))
	conn, err := spdystream.NewConnection(nc, true)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer nc.Close()
	came := make(chan *spdystream.Stream, want)
	go conn.Serve(func(s *spdystream.Stream) {
		_ = s.SendReply(http.Header{}, false)
		came <- s
	})
	streams := map[string]*spdystream.Stream{}
	for range want {
		select {
		case s := <-came:
			streams[s.Headers().Get("streamType")] = s
		case <-time.After(10 * time.Second):
			p.t.Error("not all streams came")
			return
		}
	}
	gone := make(chan struct{})
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-conn.CloseChan():
			close(gone)
		case <-over:
		}
	}()
	g := program{in: bytes.NewReader(nil), out: io.Discard, err: io.Discard, broken: func() { _, _ = nc.Write(bytes.Repeat([]byte{0xff}, 64)) }, gone: gone}
	if s := streams["stdin"]; s != nil {
		g.in = s
	}
	if s := streams["stdout"]; s != nil {
		g.out = s
	}
	if s := streams["stderr"]; s != nil {
		g.err = s
	}
	g.sizes = streams["resize"]
	status, ok := p.run(command, g)
	if !ok {
		return
	}
	raw, _ := json.Marshal(status)
	_, _ = streams["error"].Write(raw)
	for _, s := range streams {
		_ = s.Close()
	}
	select {
	case <-gone:
	case <-time.After(300 * time.Millisecond): // spdystream reads no end while nobody reads what came before it
	}
}

// forward answers what is sent to a port with it, and the port.
func (p *pod) forward(nc net.Conn) {
	conn, err := spdystream.NewConnection(nc, true)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer nc.Close()
	conn.Serve(func(s *spdystream.Stream) {
		_ = s.SendReply(http.Header{}, false)
		if s.Headers().Get("streamType") == "error" {
			go s.Close()
			return
		}
		go func() {
			defer s.Close()
			fmt.Fprintf(s, "%s:", s.Headers().Get("port"))
			_, _ = io.Copy(s, s)
		}()
	})
}

// pipe is a WebSocket as a connection.
type pipe struct {
	*websocket.Conn
	r io.Reader
}

func (p *pipe) Read(b []byte) (int, error) {
	for {
		if p.r == nil {
			_, r, err := p.NextReader()
			if err != nil {
				return 0, io.EOF
			}
			p.r = r
		}
		n, err := p.r.Read(b)
		if err != nil {
			p.r = nil
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	return len(b), p.WriteMessage(websocket.BinaryMessage, b)
}

func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// tape keeps what it is shown.
type tape struct {
	mu     sync.Mutex
	shown  map[stream.Stream]*bytes.Buffer
	sizes  []string
	exits  []int
	closed int
	broken error // what Shown answers
	deaf   bool
}

func newTape() *tape { return &tape{shown: map[stream.Stream]*bytes.Buffer{}} }

func (t *tape) Shown(s stream.Stream, p []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown[s] == nil {
		t.shown[s] = &bytes.Buffer{}
	}
	t.shown[s].Write(p)
	return t.broken
}

func (t *tape) Unheard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deaf = true
}

func (t *tape) Resized(c, r uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sizes = append(t.sizes, fmt.Sprintf("%dx%d", c, r))
}

func (t *tape) Exited(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exits = append(t.exits, code)
}

func (t *tape) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed++
	return nil
}

func (t *tape) of(s stream.Stream) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown[s] == nil {
		return ""
	}
	return t.shown[s].String()
}

// listen serves the place on a port, and gives its address.
func (p *place) listen() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.door.Serve(c, p.visit()) })
		}
	})
	p.t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick, late := time.NewTicker(5*time.Millisecond), time.After(5*time.Second)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal(what)
		}
	}
}

// ended fails where a goroutine of the package stream is left.
func ended(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	eventually(t, "goroutines are left", func() bool {
		b.Reset()
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		return !strings.Contains(b.String(), "kube/stream.(") && !strings.Contains(b.String(), "kube.(*exchange)")
	})
}
