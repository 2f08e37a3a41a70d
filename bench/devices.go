package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/sallyport/sallyport/bench/proof"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/device"
)

// proofs measures the device proof by itself.
func (w *world) proofs(context.Context) ([]row, error) {
	list, err := proof.Measure(filepath.Join(w.dir, "proofs"), cleaner{w})
	var rows []row
	for _, f := range list {
		rows = append(rows, row{f.What, f.Value, "", "", f.Goal})
	}
	return rows, err
}

// devices is how large the inventory is.
const devices = 100_000

// fleet measures a cluster with many devices: importing them, its first page, and a login beside them.
func (w *world) fleet(ctx context.Context) ([]row, error) {
	out, _, err := w.server("fleet", "fleet")
	if err != nil {
		return nil, err
	}
	f := *w
	f.env = append(w.env[:len(w.env):len(w.env)], "SALLYPORT_DATA_DIR="+filepath.Join(w.dir, "fleet"), "TSH_HOME="+filepath.Join(w.dir, "fleet-tsh"))
	pin, proxy := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(out), regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(out)
	for _, s := range [][]string{
		{"tctl", "users", "add", "alice", "--roles=access,editor", "--logins=root", "--password-file=-"},
		{"tsh", "login", "--proxy=" + proxy[1], "--ca-pin=" + pin[1], "--user=alice"},
		{"tsh", "device", "enroll", "--current-device"},
	} {
		if err := f.run(ctx, password, s[0], s[1:]...); err != nil {
			return nil, err
		}
	}
	login := func() error { return f.run(ctx, password, "tsh", "login", "--user=alice") }
	before, err := median(15, login)
	if err != nil {
		return nil, err
	}
	c := client.Local(filepath.Join(w.dir, "fleet", "admin.sock"))
	defer c.Close()
	rate, err := importMany(ctx, fleet.Of(c))
	if err != nil {
		return nil, err
	}
	sync, err := fsync(w.dir)
	if err != nil {
		return nil, err
	}
	after, err := median(15, login)
	if err != nil {
		return nil, err
	}
	page, err := median(30, func() error {
		list, _, err := fleet.Of(c).List(ctx, fleet.Listing{Limit: 100})
		if err == nil && len(list) != 100 {
			err = fmt.Errorf("a page of %d devices", len(list))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return []row{
		{fmt.Sprintf("import of %d devices, 30 to a transaction with tag index and events", devices), fmt.Sprintf("%.0f/s", rate), "fsync of this disk: " + ms(sync), "", "≥ 2,000/s"},
		{fmt.Sprintf("first page of %d devices (100 of them)", devices), ms(page), "", "", "≤ 20 ms"},
		{fmt.Sprintf("login with device proof beside %d devices", devices), ms(after), "beside 1: " + ms(before), ratio(after, before), "unchanged"},
	}, nil
}

// importMany imports in calls of the largest size, four at a time, as an administrator's scripts would.
func importMany(ctx context.Context, f *fleet.Fleet) (float64, error) {
	began := time.Now()
	starts := make(chan int)
	errs := make(chan error, 4)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for at := range starts {
				var list []device.Device
				for i := range fleet.MaxImport {
					list = append(list, device.Device{OSType: device.Windows, AssetTag: fmt.Sprintf("PC-%06d", at+i), Owner: "alice"})
				}
				done, err := f.Import(ctx, list, "csv", false)
				for _, d := range done {
					if err == nil && d.Outcome != "created" {
						err = fmt.Errorf("a device was %s: %s", d.Outcome, d.Reason)
					}
				}
				if err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for at := 0; at < devices; at += fleet.MaxImport {
		starts <- at
	}
	close(starts)
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	return devices / time.Since(began).Seconds(), nil
}

// fsync is how long the disk takes to keep 4 KiB.
func fsync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	return median(50, func() error {
		if _, err := f.Write(block); err != nil {
			return err
		}
		return f.Sync()
	})
}
