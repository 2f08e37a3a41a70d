package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// chunk is something that a container said at once.
type chunk struct {
	at   time.Time
	errs bool
	text []byte
}

// said is all that a container said, for who reads its log and who is attached.
type said struct {
	mu    sync.Mutex
	all   []chunk       // guarded by mu
	over  bool          // guarded by mu
	again chan struct{} // guarded by mu; closed and made anew with each chunk
}

func newSaid() *said { return &said{again: make(chan struct{})} }

func (s *said) add(errs bool, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, chunk{time.Now(), errs, append([]byte(nil), b...)})
	close(s.again)
	s.again = make(chan struct{})
}

func (s *said) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	close(s.again)
	s.again = make(chan struct{})
}

// from gives what was said from the nth chunk on, whether that is all, and what tells of more.
func (s *said) from(n int) ([]chunk, bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[min(n, len(s.all)):], s.over, s.again
}

// writer adds lines, or without a line's end what came at once.
type writer struct {
	to   *said
	errs bool
}

func (w writer) Write(b []byte) (int, error) {
	w.to.add(w.errs, b)
	return len(b), nil
}

// lines copies r line by line.
func (w writer) lines(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			w.to.add(w.errs, line)
		}
		if err != nil {
			return
		}
	}
}

// attached copies what is said from now on until it is over or ctx ends.
func (s *said) attached(ctx context.Context, out, errs io.Writer) error {
	old, _, _ := s.from(0)
	for n := len(old); ; {
		more, over, again := s.from(n)
		for _, c := range more {
			to := out
			if c.errs {
				to = errs
			}
			if to == nil {
				continue
			}
			if _, err := to.Write(c.text); err != nil {
				return err
			}
		}
		if n += len(more); over {
			return nil
		}
		select {
		case <-again:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// logs answers a request for a container's log.
func (s *said) logs(w http.ResponseWriter, ctx context.Context, q url.Values) {
	all, _, _ := s.from(0)
	n := 0
	if tail, err := strconv.Atoi(q.Get("tailLines")); err == nil {
		n = max(0, len(all)-tail)
	}
	var since time.Time
	if d, err := strconv.Atoi(q.Get("sinceSeconds")); err == nil {
		since = time.Now().Add(-time.Duration(d) * time.Second)
	}
	limit, err := strconv.Atoi(q.Get("limitBytes"))
	if err != nil {
		limit = 1 << 62
	}
	w.WriteHeader(http.StatusOK)
	for {
		more, over, again := s.from(n)
		for _, c := range more {
			text := c.text
			if q.Get("timestamps") == "true" {
				text = fmt.Appendf(nil, "%s %s", c.at.UTC().Format(time.RFC3339Nano), text)
			}
			if c.at.Before(since) {
				continue
			}
			text = text[:min(len(text), limit)]
			if limit -= len(text); len(text) == 0 {
				return
			}
			if _, err := w.Write(text); err != nil {
				return
			}
		}
		n += len(more)
		_ = http.NewResponseController(w).Flush()
		if over || q.Get("follow") != "true" {
			return
		}
		select {
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}
