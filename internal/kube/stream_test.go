package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kube/stream"
	"github.com/sallyport/sallyport/internal/lock"
)

const podPath = "/api/v1/namespaces/dev/pods/web/"

// socket is a client's WebSocket.
type socket struct {
	t testing.TB
	*websocket.Conn
}

// next reads a message: its channel and data; 256 is the end.
func (s socket) next() (int, string) {
	s.t.Helper()
	for {
		_, m, err := s.ReadMessage()
		if err != nil {
			return 256, err.Error()
		}
		if len(m) > 1 {
			return int(m[0]), string(m[1:])
		}
	}
}

func (p *place) websocket(protocol, what, query string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return p.dials(), nil }, Subprotocols: strings.Split(protocol, ",")}
	return d.Dial("ws://x"+podPath+what+"?"+query, nil)
}

func (p *place) exec(protocol, query string) socket {
	p.t.Helper()
	c, _, err := p.websocket(protocol, "exec", query)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return socket{p.t, c}
}

// upgrade opens SPDY.
func (p *place) upgrade(what, query string, protocols ...string) *spdystream.Connection {
	p.t.Helper()
	c := p.dials()
	_ = c.SetDeadline(time.Time{})
	req, err := http.NewRequest(http.MethodPost, "http://x"+podPath+what+"?"+query, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = http.Header{"Upgrade": {"SPDY/3.1"}, "Connection": {"Upgrade"}, "X-Stream-Protocol-Version": protocols}
	go func() { _ = req.Write(c) }()
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		if _, err := io.ReadFull(c, b); err != nil {
			p.t.Fatalf("%q %v", head, err)
		}
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") || !strings.Contains(string(head), protocols[0]) {
		p.t.Fatalf("%s", head)
	}
	conn, err := spdystream.NewConnection(c, false)
	if err != nil {
		p.t.Fatal(err)
	}
	go conn.Serve(spdystream.NoOpStreamHandler)
	p.t.Cleanup(func() { c.Close() })
	return conn
}

// ran is a command that is over.
type ran struct{ out, err, status string }

// runs runs a command as a client of a protocol.
func (p *place) runs(protocol, query string, in io.Reader, size string) ran {
	p.t.Helper()
	if protocol[:2] == "s/" {
		return p.runsSPDY(protocol[2:], query, in, size)
	}
	c := p.exec(protocol, query)
	go func() {
		if size != "" {
			_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x04"+size))
		}
		buf := make([]byte, 32<<10+1)
		for in != nil {
			n, err := in.Read(buf[1:])
			if n > 0 {
				buf[0] = 0
				_ = c.WriteMessage(websocket.BinaryMessage, buf[:1+n])
			}
			if err != nil {
				_ = c.WriteMessage(websocket.BinaryMessage, []byte{255, 0})
				return
			}
		}
	}()
	var all [4]strings.Builder
	for {
		ch, got := c.next()
		if ch > 3 {
			return ran{all[1].String(), all[2].String(), all[3].String()}
		}
		all[ch].WriteString(got)
	}
}

func (p *place) runsSPDY(protocol, query string, in io.Reader, size string) ran {
	conn := p.upgrade("exec", query, protocol)
	open := func(name string) *spdystream.Stream {
		s, err := conn.CreateStream(http.Header{"streamType": {name}}, nil, false)
		if err == nil {
			err = s.WaitTimeout(5 * time.Second)
		}
		if err != nil {
			p.t.Fatalf("%s: %v", name, err)
		}
		return s
	}
	q, _ := url.ParseQuery(query)
	var wg sync.WaitGroup
	var all [3]strings.Builder
	read := func(i int, s *spdystream.Stream) {
		_ = s.Close()
		wg.Go(func() { _, _ = io.Copy(&all[i], s) })
	}
	read(0, open("error"))
	if q.Get("stdin") != "" {
		s := open("stdin")
		go func() {
			_, _ = io.Copy(struct{ io.Writer }{s}, in)
			_ = s.Close()
		}()
	}
	if q.Get("stdout") != "" {
		read(1, open("stdout"))
	}
	if q.Get("stderr") != "" {
		read(2, open("stderr"))
	}
	if q.Get("tty") != "" {
		s := open("resize")
		_, _ = io.WriteString(s, size)
	}
	wg.Wait()
	_ = conn.Close()
	return ran{all[1].String(), all[2].String(), all[0].String()}
}

// protocols are both, each as it is spoken now and by old clients.
var protocols = []string{"v5.channel.k8s.io", "s/v4.channel.k8s.io"}

// recorded makes a place record.
func (p *place) recorded() (*tape, *[]Start) {
	t, starts := newTape(), &[]Start{}
	p.door.Record = func(_ context.Context, s Start) (stream.Tape, error) {
		*starts = append(*starts, s)
		return t, nil
	}
	return t, starts
}

// TestExec: what a command reads and writes, how wide its terminal is and how it ends comes through, is shown, and is on record.
func TestExec(t *testing.T) {
	for _, protocol := range protocols {
		for _, c := range []struct {
			query, in, size string
			want            ran
			sizes, exits    string
			line            string
		}{
			{query: "stdout=1&stderr=true&command=both", want: ran{"out", "err", `"Success"`}, exits: "[0]", line: "both"},
			{query: "stdin=1&stdout=1&command=hash&command=a+b%0a", in: "hello", want: ran{"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "", `"Success"`}, exits: "[0]", line: `hash "a b\n"`},
			{query: "stdout=1&stderr=1&command=exit&command=42", want: ran{"", "", `"42"`}, exits: "[42]", line: "exit 42"},
			{query: "stdout=1&tty=1&command=size", size: `{"Width":132,"Height":43}` + "\n", want: ran{"132x43", "", `"Success"`}, sizes: "[132x43]", exits: "[0]", line: "size"},
		} {
			t.Run(protocol+" "+c.line, func(t *testing.T) {
				p := newPlace(t, (&pod{t: t}).ServeHTTP)
				tape, starts := p.recorded()
				got := p.runs(protocol, c.query+"&container=c", strings.NewReader(c.in), c.size)
				if got.out != c.want.out || got.err != c.want.err || !strings.Contains(got.status, c.want.status) {
					t.Errorf("%+v", got)
				}
				eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
				start, end := p.log.kinds(event.SessionStart)[0], p.log.kinds(event.SessionEnd)[0]
				if start.Command != c.line || start.Verb != "exec" || end.ExitCode == nil || fmt.Sprint([]int{*end.ExitCode}) != c.exits || end.Reason != "closed" {
					t.Errorf("on record %+v %+v", start.Action, end)
				}
				if s := (*starts)[0]; len(*starts) != 1 || s.Session.ID() != start.SessionID || s.Session.Identity().Name != "alice" || s.Cluster != "dev" || s.Namespace != "dev" || s.Pod != "web" || s.Container != "c" || s.TTY != (c.size != "") {
					t.Errorf("%+v", *starts)
				}
				if tape.of(stream.Stdin) != c.in || tape.of(stream.Stdout) != c.want.out || tape.of(stream.Stderr) != c.want.err || tape.of(stream.Error) != got.status ||
					fmt.Sprint(tape.exits) != c.exits || c.sizes != "" && fmt.Sprint(tape.sizes) != c.sizes || tape.closed != 1 {
					t.Errorf("shown %+v", tape)
				}
				ended(t)
			})
		}
	}
}

// TestExecAsks: the server gets the query as it was read here, and nothing else of the client's.
func TestExecAsks(t *testing.T) {
	pod := &pod{t: t}
	p := newPlace(t, pod.ServeHTTP)
	p.runs("v4.channel.k8s.io,base64.channel.k8s.io,v4.base64.channel.k8s.io", "stdout=yes&stdout=0&stderr=FALSE&stdin=0&tty&command=exit&command=0&container=c&container=d&dryRun=All", nil, "")
	if len(pod.asks) != 1 {
		t.Fatal("not asked once")
	}
	r := pod.asks[0]
	if got := r.URL.RawQuery; got != "command=exit&command=0&container=c&stderr=false&stdin=false&stdout=true&tty=true" {
		t.Error(got)
	}
	if got := r.Header["Sec-Websocket-Protocol"]; len(got) != 1 || got[0] != "v4.channel.k8s.io" {
		t.Errorf("%q", got)
	}
	if u, g := r.Header["Impersonate-User"], r.Header["Impersonate-Group"]; fmt.Sprint(u, g) != "[alice] [devs readers]" {
		t.Errorf("%q %q", u, g)
	}
}

// TestA52Refused: what the server says in place of a switch goes to the client whole, and nothing is recorded of what did not
// begin; what cannot be read here, or not be recorded, does not reach the server.
func TestA52Refused(t *testing.T) {
	pod := &pod{t: t}
	p := newPlace(t, pod.ServeHTTP)
	tape, _ := p.recorded()
	for _, raw := range []string{get(podPath+"exec?command=refused", opens...),
		"POST " + podPath + "exec?command=refused HTTP/1.1\r\nHost: x\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"} {
		if res, body := p.asks(raw); res.StatusCode != 403 || !strings.HasSuffix(body, `"code":403}`) || len(body) < 2048 {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	if n := len(p.log.kinds(event.KubeRequest)); n != 2 || tape.closed != 2 || len(pod.asks) != 2 {
		t.Errorf("%d on record, %d closed", n, tape.closed)
	}
	for _, headers := range [][]string{
		append(slices.Clone(opens[:4]), "Sec-WebSocket-Protocol: v4.base64.channel.k8s.io"), opens[:4], append(slices.Clone(opens), "Upgrade: SPDY/3.1"),
		append(slices.Clone(opens), "Origin: https://page.example"),
		{"Upgrade: SPDY/3.1", "Connection: Upgrade"}, {"Upgrade: h2c", "Connection: Upgrade"}, {"Upgrade: SPDY/3.1", "Connection: Upgrade", "X-Stream-Protocol-Version: v9.channel.k8s.io"},
		{"Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"}, {opens[0], opens[1], opens[2], opens[4]}, {opens[0], opens[1], opens[3], opens[4]},
		{"Upgrade: SPDY/3.1", "Connection: Upgrade", "X-Stream-Protocol-Version: v4.channel.k8s.io", "Transfer-Encoding: chunked"},
	} {
		if res, body := p.asks(get(podPath+"exec?command=cat", headers...) + "0\r\n\r\n"); res.StatusCode != 400 || !strings.Contains(body, `"message":"the request was not taken: `) {
			t.Errorf("%q: %d %s", headers, res.StatusCode, body)
		}
	}
	p.door.Record = func(context.Context, Start) (stream.Tape, error) {
		return nil, fault.New(fault.Unavailable, "the disk for recordings is full").WithReason("recording")
	}
	if res, body := p.asks(get(podPath+"exec?command=cat", opens...)); res.StatusCode != 403 || !strings.Contains(body, "recordings is full") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if ends := p.log.kinds(event.SessionEnd); len(ends) != 3 || ends[2].Reason != "recording" {
		t.Errorf("%+v", ends)
	}
	if len(pod.asks) != 2 {
		t.Errorf("%d reached the server", len(pod.asks))
	}
}

// TestA54Exec: the end of the trust ends a command, in both protocols, and the client's error stream says why.
func TestA54Exec(t *testing.T) {
	for _, protocol := range append(protocols, "v4.channel.k8s.io", "s/v2.channel.k8s.io") {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		in, hold := io.Pipe()
		result := make(chan ran, 1)
		go func() { result <- p.runs(protocol, "stdin=1&stdout=1&command=cat", in, "") }()
		_, _ = io.WriteString(hold, "hi")
		eventually(t, "nothing came through", func() bool { return tape.of(stream.Stdout) == "hi" })
		began := time.Now()
		p.apply(false, &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, Message: "stolen laptop"})
		select {
		case got := <-result:
			if d := time.Since(began); !strings.Contains(got.status, "lock targeting User") || got.out != "hi" || d > time.Second {
				t.Errorf("%s: %+v after %s", protocol, got, d)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: it lives on", protocol)
		}
		hold.Close()
		eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
		if end := p.log.kinds(event.SessionEnd)[0]; end.Reason != "locked" || end.ExitCode != nil || tape.closed != 1 {
			t.Errorf("%+v, closed %d", end, tape.closed)
		}
		ended(t)
	}
}

// TestA54Blocked: a client that reads nothing, and a server that does not, keep no session alive and no memory filled.
func TestA54Blocked(t *testing.T) {
	for _, protocol := range protocols {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		if protocol[:2] == "s/" {
			conn := p.upgrade("exec", "stdout=1&command=bulk&command=1000000000", protocol[2:])
			for _, name := range []string{"error", "stdout"} {
				if _, err := conn.CreateStream(http.Header{"streamType": {name}}, nil, false); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			p.exec(protocol, "stdout=1&command=bulk&command=1000000000")
		}
		eventually(t, "nothing came through", func() bool { return len(tape.of(stream.Stdout)) > 0 })
		still := func() (n int) {
			for last := -1; n != last; {
				last, n = n, len(tape.of(stream.Stdout))
				runtime.Gosched()
				<-time.After(50 * time.Millisecond)
			}
			return n
		}
		if n := still(); n > 64<<20 { // what queues in the test's own client is not read here
			t.Errorf("%s: %d bytes were read for a client that takes none", protocol, n)
		}
		p.apply(false, &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}})
		eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
		ended(t)
	}
}

// TestBulk: 100 MB pass whole, in both directions.
func TestBulk(t *testing.T) {
	const size = 100 << 20
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(noise(), size))
	want := hex.EncodeToString(h.Sum(nil))
	for _, protocol := range protocols {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		got := p.runs(protocol, fmt.Sprintf("stdout=1&command=bulk&command=%d", size), nil, "")
		sum := sha256.Sum256([]byte(got.out))
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: down %d bytes, %s", protocol, len(got.out), got.status)
		}
		if got := p.runs(protocol, "stdin=1&stdout=1&command=hash", io.LimitReader(noise(), size), ""); got.out != want {
			t.Errorf("%s: up %+v", protocol, got)
		}
	}
}

// TestBroken: what is no frame ends the session, with an error to the other side, whoever sends it; so does a server that goes
// away without a word.
func TestBroken(t *testing.T) {
	for _, protocol := range protocols {
		for command, want := range map[string]string{"junk": "could not be read", "die": "was lost"} {
			p := newPlace(t, (&pod{t: t}).ServeHTTP)
			got := p.runs(protocol, "stdout=1&command="+command, nil, "")
			if !strings.Contains(got.status, want) {
				t.Errorf("%s %s: %+v", protocol, command, got)
			}
			eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
			ended(t)
		}
	}
	for name, sends := range map[string]func(c *websocket.Conn){
		"no frame":              func(c *websocket.Conn) { _, _ = c.NetConn().Write([]byte{0xff, 0xff, 0xff, 0xff}) },
		"the server's channel":  func(c *websocket.Conn) { _ = c.WriteMessage(2, []byte("\x01x")) },
		"no channel":            func(c *websocket.Conn) { _ = c.WriteMessage(2, []byte("\x07x")) },
		"no size":               func(c *websocket.Conn) { _ = c.WriteMessage(2, []byte("\x04[]")) },
		"an endless size":       func(c *websocket.Conn) { _ = c.WriteMessage(2, []byte("\x04{"+strings.Repeat(" ", 2048))) },
		"the end of its output": func(c *websocket.Conn) { _ = c.WriteMessage(2, []byte{255, 1}) },
	} {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		c := p.exec("v5.channel.k8s.io", "stdin=1&stdout=1&command=cat")
		if name == "no frame" { // of a client that takes nothing
			c.Close()
			c = p.exec("v5.channel.k8s.io", "stdin=1&stdout=1&command=bulk&command=1000000000")
			eventually(t, "nothing came through", func() bool { return len(tape.of(stream.Stdout)) > 0 })
		}
		sends(c.Conn)
		eventually(t, name+": its end is not on record", func() bool {
			ends := p.log.kinds(event.SessionEnd)
			return len(ends) > 0 && ends[len(ends)-1].Reason == "malformed"
		})
		ended(t)
	}
}

// TestGone: a client that goes away ends the command, whose record is whole.
func TestGone(t *testing.T) {
	for _, protocol := range protocols {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		if protocol[:2] == "s/" {
			conn := p.upgrade("exec", "stdout=1&command=junk", protocol[2:])
			if _, err := conn.CreateStream(http.Header{"streamType": {"error"}}, nil, false); err != nil {
				t.Fatal(err)
			}
			p.close()
		} else {
			p.exec(protocol, "stdin=1&stdout=1&command=cat").NetConn().Close()
		}
		eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
		if tape.closed != 1 {
			t.Errorf("%s: closed %d", protocol, tape.closed)
		}
		ended(t)
	}
}

// forwarder opens SPDY for port-forwarding, alone or through a WebSocket.
func (p *place) forwarder(tunnelled bool) *spdystream.Connection {
	if !tunnelled {
		return p.upgrade("portforward", "", "portforward.k8s.io")
	}
	c, _, err := p.websocket("SPDY/3.1+portforward.k8s.io", "portforward", "")
	if err != nil {
		p.t.Fatal(err)
	}
	_ = c.NetConn().SetDeadline(time.Time{})
	conn, err := spdystream.NewConnection(&pipe{Conn: c}, false)
	if err != nil {
		p.t.Fatal(err)
	}
	go conn.Serve(spdystream.NoOpStreamHandler)
	p.t.Cleanup(func() { c.Close() })
	return conn
}

// connects opens a forwarded connection.
func connects(t *testing.T, conn *spdystream.Connection, id, port string) *spdystream.Stream {
	t.Helper()
	var s *spdystream.Stream
	for _, kind := range []string{"error", "data"} {
		var err error
		if s, err = conn.CreateStream(http.Header{"streamType": {kind}, "port": {port}, "requestID": {id}}, nil, false); err != nil {
			t.Fatal(err)
		}
		if kind == "error" {
			_ = s.Close()
		}
	}
	return s
}

// TestPortForward: each forwarded connection comes through and is on record with its port, its bytes and its time; the end of
// the trust ends them.
func TestPortForward(t *testing.T) {
	for _, tunnelled := range []bool{false, true} {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		conn := p.forwarder(tunnelled)
		for i, port := range []string{"80", "8080"} {
			s := connects(t, conn, fmt.Sprint(i), port)
			_, _ = io.WriteString(s, "hello")
			_ = s.Close()
			if got, err := io.ReadAll(s); err != nil || string(got) != port+":hello" {
				t.Errorf("%q %v", got, err)
			}
		}
		eventually(t, "not on record", func() bool { return len(p.log.kinds(event.Port)) == 4 })
		ports := p.log.kinds(event.Port)
		if a, b := ports[0].Action, ports[1].Action; a.Target != "dev/web:80" || a.Traffic != nil || b.Traffic == nil || b.Target != "dev/web:80" || b.Sent != 5 || b.Received != 8 || b.Millis == 0 {
			t.Errorf("%+v %+v", a, b)
		}
		live := connects(t, conn, "9", "81")
		if _, err := io.ReadFull(live, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		p.apply(false, &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}})
		if _, err := live.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("it lives on: %v", err)
		}
		eventually(t, "its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 && len(p.log.kinds(event.Port)) == 6 })
		ended(t)
	}
}

// TestPortForwardUnrecorded: a connection that cannot be on record is not made.
func TestPortForwardUnrecorded(t *testing.T) {
	p := newPlace(t, (&pod{t: t}).ServeHTTP)
	conn := p.forwarder(false)
	p.log.mu.Lock()
	p.log.fails = errors.New("disk full")
	p.log.mu.Unlock()
	s := connects(t, conn, "0", "80")
	if got, _ := io.ReadAll(s); len(got) > 0 {
		t.Errorf("%q", got)
	}
	ended(t)
}

// TestKubectl: the real one, by both protocols.
func TestKubectl(t *testing.T) {
	_, file, _, _ := runtime.Caller(0)
	kubectl := filepath.Join(filepath.Dir(file), "../../.cache/kube/kubectl")
	if _, err := os.Stat(kubectl); err != nil {
		t.Fatalf("%v: run scripts/kube.sh", err)
	}
	for _, sockets := range []string{"true", "false"} {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		at := p.listen()
		run := func(in io.Reader, args ...string) (string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			c := exec.CommandContext(ctx, kubectl, append([]string{"--server=http://" + at, "-n", "dev"}, args...)...)
			c.Env = []string{"HOME=" + t.TempDir(), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=" + sockets, "KUBECTL_PORT_FORWARD_WEBSOCKETS=" + sockets}
			c.Stdin = in
			out, err := c.CombinedOutput()
			return string(out), err
		}
		if out, err := run(nil, "exec", "web", "--", "both"); err != nil || out != "outerr" && out != "errout" {
			t.Errorf("%q %v", out, err)
		}
		var code *exec.ExitError
		if out, err := run(nil, "exec", "web", "--", "exit", "42"); !errors.As(err, &code) || code.ExitCode() != 42 {
			t.Errorf("%q %v", out, err)
		}
		if out, err := run(strings.NewReader("hello"), "exec", "-i", "web", "--", "hash"); err != nil || !strings.HasPrefix(out, "2cf24dba") {
			t.Errorf("%q %v", out, err)
		}
		if out, err := run(strings.NewReader("hello"), "attach", "-i", "web"); err != nil || !strings.Contains(out, "hello") {
			t.Errorf("%q %v", out, err)
		}
		if out, err := run(nil, "exec", "web", "--", "refused"); err == nil || !strings.Contains(out, "pods web is forbidden") {
			t.Errorf("%q %v", out, err)
		}
		if out, err := run(nil, "exec", "web", "--", "die"); err == nil || !strings.Contains(out, "was lost") {
			t.Errorf("%q %v", out, err)
		}
		in, hold := io.Pipe()
		said := make(chan string, 1)
		go func() {
			out, err := run(in, "exec", "-i", "web", "--", "cat")
			said <- fmt.Sprint(out, err)
		}()
		_, _ = io.WriteString(hold, "still here")
		eventually(t, "nothing came through", func() bool { return strings.Contains(tape.of(stream.Stdout), "still here") })
		p.apply(false, &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, Message: "stolen laptop"})
		eventually(t, "its end is not on record", func() bool {
			return slices.ContainsFunc(p.log.kinds(event.SessionEnd), func(e event.Event) bool { return e.Reason == "locked" })
		})
		hold.Close()
		if got := <-said; !strings.Contains(got, "lock targeting User") || !strings.Contains(got, "exit status") {
			t.Errorf("kubectl says %q", got)
		}
		ended(t)
	}
}

// TestBrokenStreams: SPDY streams that are none of a command's or a forwarding's, or too many, end the session before the server
// hears of them.
func TestBrokenStreams(t *testing.T) {
	open := func(conn *spdystream.Connection, h http.Header) *spdystream.Stream {
		s, err := conn.CreateStream(h, nil, false)
		if err != nil {
			t.Error(err)
		}
		return s
	}
	kind := func(s string) http.Header { return http.Header{"streamType": {s}} }
	for name, sends := range map[string]func(*spdystream.Connection){
		"of no type":      func(c *spdystream.Connection) { open(c, kind("data")) },
		"without a type":  func(c *spdystream.Connection) { open(c, http.Header{"port": {"80"}}) },
		"twice of a type": func(c *spdystream.Connection) { open(c, kind("stdin")); open(c, kind("stdin")) },
		"the server's": func(c *spdystream.Connection) {
			s := open(c, kind("stdout"))
			_ = s.Wait()
			_, _ = s.Write([]byte("x"))
		},
		"no size": func(c *spdystream.Connection) {
			s := open(c, kind("resize"))
			_ = s.Wait()
			_, _ = s.Write([]byte("x"))
		},
	} {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		sends(p.upgrade("exec", "stdin=1&stdout=1&tty=1&command=cat", "v4.channel.k8s.io"))
		eventually(t, name+": its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
		if end := p.log.kinds(event.SessionEnd)[0]; end.Reason != "malformed" || tape.closed != 1 || tape.of(stream.Stdout) != "" {
			t.Errorf("%s: %+v", name, end)
		}
		p.close()
		ended(t)
	}
	forward := func(kind, port, id string) http.Header {
		return http.Header{"streamType": {kind}, "port": {port}, "requestID": {id}}
	}
	for name, headers := range map[string][]http.Header{
		"of no port": {forward("data", "0", "1")}, "of a large port": {forward("data", "65536", "1")}, "of two spellings": {forward("data", "080", "1")}, "of a name": {forward("data", "http", "1")},
		"of a command": {forward("stdin", "80", "1")}, "of no number": {forward("data", "80", "x y")}, "too many": slices.Repeat([]http.Header{forward("error", "80", "1")}, 600),
	} {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		conn := p.forwarder(false)
		for _, h := range headers {
			if _, err := conn.CreateStream(h, nil, false); err != nil {
				break
			}
		}
		eventually(t, name+": its end is not on record", func() bool { return len(p.log.kinds(event.SessionEnd)) == 1 })
		if end := p.log.kinds(event.SessionEnd)[0]; end.Reason != "malformed" || len(p.log.kinds(event.Port)) > 0 {
			t.Errorf("%s: %+v", name, end)
		}
		ended(t)
	}
}

// TestEarlyEnd: how a command ended reaches a client that is still sending what the command does not read.
func TestEarlyEnd(t *testing.T) {
	for _, protocol := range protocols {
		for range 5 {
			p := newPlace(t, (&pod{t: t}).ServeHTTP)
			if got := p.runs(protocol, "stdin=1&stdout=1&command=exit&command=7", io.LimitReader(noise(), 50<<20), ""); !strings.Contains(got.status, `"7"`) {
				t.Fatalf("%s: %+v", protocol, got)
			}
			p.close()
		}
		ended(t)
	}
}

// TestClose: a door that closes tells who uses a stream, waits until that is over, and takes no other.
func TestClose(t *testing.T) {
	p := newPlace(t, (&pod{t: t}).ServeHTTP)
	tape, _ := p.recorded()
	c := p.exec("v5.channel.k8s.io", "stdin=1&stdout=1&command=cat")
	conn := p.forwarder(false)
	live := connects(t, conn, "1", "80")
	if _, err := io.ReadFull(live, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	p.door.Close()
	if ends := p.log.kinds(event.SessionEnd); len(ends) != 2 || ends[0].Reason != "stopping" || ends[1].Reason != "stopping" {
		t.Errorf("on record: %+v", ends)
	}
	if ch, got := c.next(); ch != 3 || !strings.Contains(got, "is stopping") {
		t.Errorf("%d %q", ch, got)
	}
	if _, err := io.ReadAll(live); err != nil {
		t.Error(err)
	}
	if tape.closed != 1 {
		t.Error("the tape is not closed")
	}
	if _, _, err := p.websocket("v5.channel.k8s.io", "exec", "stdout=1&command=both"); err == nil {
		t.Error("another one begins")
	}
	ended(t)
}

// TestUnread: a client that is still sending when its command is over is read on for a while: a connection that is closed with
// something unread may lose what is on its way to the client.
func TestUnread(t *testing.T) {
	p := newPlace(t, (&pod{t: t}).ServeHTTP)
	c := p.exec("v5.channel.k8s.io", "stdin=1&stdout=1&command=exit&command=7")
	c.SetCloseHandler(func(int, string) error { return nil })
	if ch, got := c.next(); ch != 3 || !strings.Contains(got, `"7"`) {
		t.Fatalf("%d %q", ch, got)
	}
	if ch, got := c.next(); ch != 256 || !strings.Contains(got, "1000") {
		t.Fatalf("%d %q", ch, got)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		<-tick.C
		if _, err := c.NetConn().Write([]byte{0x82, 0x82, 0, 0, 0, 0, 0, 'x'}); err != nil {
			t.Fatal(err)
		}
	}
	p.close()
	ended(t)
}

// TestA52Switch: a server that switches to what was not asked for, or whose answer has no end, opens nothing.
func TestA52Switch(t *testing.T) {
	const accept = "Sec-WebSocket-Accept: 6w4wrmqNvTNcMfQTbYYJzLzpEWs=\r\n"
	for _, answer := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9.channel.k8s.io\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + accept + "\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "no HTTP\r\n\r\n", "",
	} {
		p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, answer)
			c.Close()
		})
		for _, raw := range []string{get(podPath+"exec?command=x", opens...), get(podPath+"exec?command=x", "Upgrade: SPDY/3.1", "Connection: Upgrade", "X-Stream-Protocol-Version: v4.channel.k8s.io")} {
			if res, body := p.asks(raw); res.StatusCode != 502 || !strings.Contains(body, `"kind":"Status"`) {
				t.Errorf("%.80q: %d %s", answer, res.StatusCode, body)
			}
		}
	}
}
