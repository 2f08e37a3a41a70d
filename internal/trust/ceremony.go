package trust

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
)

// Prove runs the middle of every ceremony.
func Prove(ctx context.Context, await *ceremony.AwaitChallenge, ask ceremony.Ask, c Exchanger) (ceremony.Result, error) {
	challenge, awaitProof, err := await.Challenge(ask)
	if err != nil {
		return ceremony.Result{}, err
	}
	proof, err := c.Exchange(ctx, challenge)
	if err != nil {
		return ceremony.Result{}, err
	}
	return Finish(ctx, awaitProof, proof, c)
}

// Finish judges a proof, and gathers the event log that follows a quote.
func Finish(ctx context.Context, await *ceremony.AwaitProof, proof []byte, c Exchanger) (ceremony.Result, error) {
	result, log, err := await.Proof(proof)
	for more := log != nil; more && err == nil; {
		var piece []byte
		if piece, err = c.Receive(ctx); err == nil {
			result, more, err = log.Log(piece)
		}
	}
	return result, err
}

// Collect keeps the newest collections.
func Collect(have []device.Data, d device.Data, now time.Time) []device.Data {
	d.CollectTime = now.UTC()
	have = append(slices.Clone(have), d)
	if len(have) > keepData {
		have = have[len(have)-keepData:]
	}
	return have
}
