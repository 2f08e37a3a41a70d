package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/client/recordings"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/recording/spool"
)

// archive keeps the cluster's recordings, where the config says so.
func (d *daemon) archive(a *authPart) (*archive.Service, error) {
	s := &archive.Service{Store: a.store, Audit: a.log, Now: time.Now}
	dir := d.Config.Auth.Recordings
	if dir == "" {
		return s, nil
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(d.Config.DataDir, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Unavailable, "the recordings' directory %s cannot be made", dir).WithReason("recordings_dir").Wrapping(err).
			WithCause("%v", err).WithFix("see auth.recordings in the config")
	}
	var err error
	if s.Key, err = a.keys.Recordings(d.ctx); err != nil {
		return nil, err
	}
	s.Dir = dir
	if keep := d.Config.Auth.KeepFor; keep > 0 {
		d.run("recordings' end", func(ctx context.Context) error { s.Run(ctx, keep, d.Log); return nil })
	}
	return s, nil
}

// recorder records what an agent's sessions show, and hands it to auth.
func (d *daemon) recorder(a *agent) (*recorder.Recorder, error) {
	dir := filepath.Join(d.Config.DataDir, "recordings", string(a.Host().Role))
	tapes, err := spool.Open(spool.Config{Dir: dir, Log: a.log})
	if err != nil {
		return nil, fmt.Errorf("recordings: %w", err)
	}
	d.later(tapes.Close)
	d.run("recordings", func(ctx context.Context) error { return tapes.Run(ctx, recordings.New(a.calls).Send) })
	return &recorder.Recorder{Spool: tapes, Pictures: a.mirror, Host: a.Host(), Now: a.now}, nil
}
