package session

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/transfer"
)

// Location is a place that a copy names: here where Host is empty.
type Location struct{ Login, Host, Path string }

// ParseLocation reads [[login@]host:]path as scp does: what has a slash before the first colon is a path, as is a
// drive letter on Windows; an IPv6 host is in brackets.
func ParseLocation(s string) Location { return parseLocation(s, runtime.GOOS == "windows") }

func parseLocation(s string, drives bool) Location {
	here := Location{Path: s}
	if drives && len(s) >= 2 && s[1] == ':' {
		return here
	}
	head, rest := "", s
	if i := strings.IndexByte(s, '['); i == 0 || i > 0 && s[i-1] == '@' && !strings.ContainsAny(s[:i], ":/") {
		end := strings.Index(s, "]:")
		if end < 0 {
			return here
		}
		head, rest = s[:i]+s[i+1:end], s[end+2:]
	} else {
		var found bool
		head, rest, found = strings.Cut(s, ":")
		if !found || head == "" || strings.ContainsRune(head, '/') {
			return here
		}
	}
	l := Location{Host: head, Path: rest}
	if at := strings.LastIndexByte(head, '@'); at >= 0 {
		l.Login, l.Host = head[:at], head[at+1:]
	}
	if l.Host == "" {
		return here
	}
	return l
}

// Copy is one scp.
type Copy = transfer.Job

// Copy copies by SFTP. It goes on after a file that fails, tells report of each, and returns the first failure. What
// the node names never lands outside the destination, and never with setuid or setgid.
func (c *Client) Copy(ctx context.Context, job Copy, report func(error)) error {
	channel, requests, err := c.open("session", nil)
	if err != nil {
		return err
	}
	defer channel.Close()
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	go ssh.DiscardRequests(requests)
	if err := ask(channel, "subsystem", ssh.Marshal(struct{ Name string }{"sftp"})); err != nil {
		return err
	}
	words := &headText{all: make(chan struct{})}
	go func() { defer close(words.all); _, _ = io.Copy(words, channel.Stderr()) }()
	client, err := sftp.NewClientPipe(channel, channel, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true))
	if err != nil {
		return c.uncopied(ctx, err, words)
	}
	defer func() { go client.Close() }()
	over := make(chan error, 1)
	go func() { over <- transfer.Run(ctx, client, job, report) }()
	select { // a node that does not answer is not waited for
	case err = <-over:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && (errors.Is(err, sftp.ErrSSHFxConnectionLost) || ctx.Err() != nil) {
		return c.uncopied(ctx, err, words)
	}
	return err
}

// uncopied words the end of the channel: the node may have said why on standard error.
func (c *Client) uncopied(ctx context.Context, err error, words *headText) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-words.all:
	case <-time.After(reasonTime):
	}
	if lines := strings.TrimSpace(plain(words.String())); lines != "" {
		return &Cut{Lines: lines}
	}
	return c.lost(err)
}

// headText keeps the first words that are written to it.
type headText struct {
	all  chan struct{} // closed when there is no more
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

var _ io.Writer = (*headText)(nil)

func (t *headText) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := maxText - t.text.Len(); left > 0 {
		t.text.Write(b[:min(left, len(b))])
	}
	return len(b), nil
}

func (t *headText) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
