package stream

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
)

// Offer is what of a client's upgrade can be read here.
type Offer struct {
	Forward   bool     // of ports, else a command
	WebSocket bool     // else SPDY/3.1
	Protocols []string // as the client prefers them, those alone that can be read
}

// The protocols, newest first. Of those of WebSockets the base64 ones are left out.
var (
	commandProtocols = []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"}
	socketProtocols  = []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"}
	forwardProtocols = []string{"portforward.k8s.io"}
	tunnelProtocols  = []string{"SPDY/3.1+portforward.k8s.io"}
)

const (
	spdyUpgrade    = "SPDY/3.1"
	protocolHeader = "X-Stream-Protocol-Version"
	socketHeader   = "Sec-Websocket-Protocol"
)

// Read reads a client's upgrade to a command's streams, or to those of forwarded ports. What offers nothing that can be read
// here is an error that says what could be.
func Read(r *http.Request, forward bool) (Offer, error) {
	o := Offer{Forward: forward}
	if r.ProtoMajor != 1 {
		return o, errors.New("a stream wants HTTP/1.1")
	}
	asked, connection := r.Header["Upgrade"], strings.Join(r.Header["Connection"], ",")
	if len(asked) != 1 || !slices.ContainsFunc(strings.Split(connection, ","), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), "upgrade") }) {
		return o, errors.New("a stream wants one upgrade of its connection")
	}
	if len(r.TransferEncoding) > 0 || r.ContentLength > 0 {
		return o, errors.New("an upgrade with a body")
	}
	switch {
	case strings.EqualFold(asked[0], "websocket"):
		o.WebSocket = true
		if err := socket(r); err != nil {
			return o, err
		}
	case !strings.EqualFold(asked[0], spdyUpgrade):
		return o, errors.New("an upgrade to neither websocket nor " + spdyUpgrade)
	case r.Method != http.MethodPost && r.Method != http.MethodGet:
		return o, errors.New("method " + r.Method + " of a stream")
	}
	name, can := o.spoken()
	for _, line := range r.Header[name] {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); slices.Contains(can, p) && !slices.Contains(o.Protocols, p) {
				o.Protocols = append(o.Protocols, p)
			}
		}
	}
	if len(o.Protocols) == 0 {
		return o, errors.New("it offers in " + name + " nothing that is on record here: offer " + strings.Join(can, " or "))
	}
	return o, nil
}

// socket judges the rest of a WebSocket's opening (RFC 6455, section 4.2.1).
func socket(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	switch {
	case r.Method != http.MethodGet:
		return errors.New("a WebSocket is opened by GET")
	case len(r.Header["Sec-Websocket-Version"]) != 1 || r.Header.Get("Sec-Websocket-Version") != "13":
		return errors.New("a WebSocket of another version than 13")
	case err != nil || len(key) != 16 || len(r.Header["Sec-Websocket-Key"]) != 1:
		return errors.New("a WebSocket without a key")
	case !websocket.IsWebSocketUpgrade(r):
		return errors.New("no opening of a WebSocket")
	case len(r.Header["Origin"]) > 0: // a web page's, which is to be this door's own
		if from, err := url.Parse(r.Header.Get("Origin")); err != nil || !strings.EqualFold(from.Host, r.Host) {
			return errors.New("a WebSocket of another origin")
		}
	}
	return nil
}

// spoken is the header that protocols are offered in, and those that can be read.
func (o Offer) spoken() (header string, protocols []string) {
	switch {
	case o.WebSocket && o.Forward:
		return socketHeader, tunnelProtocols
	case o.WebSocket:
		return socketHeader, socketProtocols
	case o.Forward:
		return protocolHeader, forwardProtocols
	}
	return protocolHeader, commandProtocols
}
