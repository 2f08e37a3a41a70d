package records

import (
	"context"
	"net/url"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/store"
)

// LoginKey is where the certificates of a device credential are remembered.
func LoginKey(credential string) string { return "login/" + url.PathEscape(credential) }

// Login reads the certificates that a device credential has, with the record's revision; 0 where there are none.
func (r *Records) Login(ctx context.Context, credential string) (identity.History, uint64, error) {
	var h identity.History
	revision, _, err := r.value(ctx, LoginKey(credential), &h)
	return h, revision, err
}

// PutLogin are the operations that replace a history that was read at a revision. It lives as long as its last
// certificate.
func PutLogin(credential string, h identity.History, revision uint64) ([]store.Op, error) {
	put, err := PutValue(LoginKey(credential), h)
	return []store.Op{store.CheckRevision(LoginKey(credential), revision), put.Until(identity.LastEnd(h.Issued))}, err
}
