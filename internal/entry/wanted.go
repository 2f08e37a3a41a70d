package entry

import (
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// Wanted are the resources of one kind that an agent is to serve by the picture of now: its own, which its config names and which
// were checked when that was read, and those that were created for it, which win.
func Wanted[T any](pictures *snapshot.Mirror, agent identity.Host, own []T, created func(*snapshot.Picture) map[string]*T, served func(*T) (target.Served, error)) []Resource {
	picture, _ := pictures.Current()
	list := []Resource{}
	for i := range own {
		if s, _ := served(&own[i]); created(picture)[s.Name] == nil {
			list = append(list, Resource{Served: s, Spec: &own[i]})
		}
	}
	for name, t := range created(picture) {
		s, err := served(t)
		if _, serves := picture.Assigned(agent, name); serves && err == nil {
			list = append(list, Resource{Served: s, Spec: t})
		}
	}
	return list
}

// Specs are what resources of one kind are made of.
func Specs[T any](list []Resource) []*T {
	var out []*T
	for _, r := range list {
		if t, ok := r.Spec.(*T); ok {
			out = append(out, t)
		}
	}
	return out
}
