package keystore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/store"
)

// recordings is the use of the key that recordings are sealed for. It signs nothing.
const recordings Use = "recordings"

// Recordings is the key that opens the cluster's recordings, made on first demand; servers that race end with the same one.
func (k *Keys) Recordings(ctx context.Context) (*recording.Identity, error) {
	for {
		id, err := k.readRecordings(ctx)
		if !errors.Is(err, store.ErrNotFound) {
			return id, err
		}
		if id, err = recording.NewIdentity(nil); err != nil {
			return nil, err
		}
		private, err := id.Private()
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", recordings, err)
		}
		public := hex.EncodeToString(id.Public())
		value, err := json.Marshal(sealed{ID: public, Key: k.seal.seal(private, string(recordings), public)})
		clear(private)
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", recordings, err)
		}
		_, err = k.store.Txn(ctx, []store.Op{store.Create(path(recordings), value)})
		if !errors.Is(err, store.ErrConflict) {
			return id, err
		}
	}
}

func (k *Keys) readRecordings(ctx context.Context) (*recording.Identity, error) {
	r, err := k.store.Get(ctx, path(recordings))
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", recordings, err)
	}
	var rec sealed
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return nil, damaged(recordings)
	}
	private, err := k.seal.open(rec.Key, string(recordings), rec.ID)
	if err != nil {
		return nil, damaged(recordings)
	}
	id, err := recording.NewIdentity(private)
	clear(private)
	if err != nil {
		return nil, damaged(recordings)
	}
	return id, nil
}
