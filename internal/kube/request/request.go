// Package request reads what a request to a Kubernetes API server is about, from its method and its path, as the server
// itself would (k8s.io/apiserver, RequestInfoFactory), and refuses what two readers could read differently.
//
//	/api/v1/[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/…]]]
//	/apis/GROUP/VERSION/[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/…]]]
//	anything else is no resource's
package request

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sallyport/sallyport/internal/target"
)

// Request is what somebody asks of a cluster. Path is its canonical path, which is the one to send on.
type Request struct {
	Verb   string
	Object target.KubeObject
	Path   string
	// Stream is what is asked to be an upgraded connection: Exec, Attach or PortForward, empty for other requests.
	Stream  string
	Options Options // of Exec and Attach
}

// The streams.
const (
	Exec        = "exec"
	Attach      = "attach"
	PortForward = "portforward"
)

// errUnclear is of a path that could be read in more than one way.
var errUnclear = errors.New("a path that could be read in more than one way")

// Parse reads a request. escaped is the path as it was sent, percent-encoding included.
func Parse(method, escaped string, query url.Values) (Request, error) {
	parts, err := segments(escaped)
	if err != nil {
		return Request{}, err
	}
	r := Request{Path: "/" + strings.Join(escapeAll(parts), "/")}
	if strings.HasSuffix(escaped, "/") && len(parts) > 0 {
		r.Path += "/"
	}
	rest, group, ok := resourcePath(parts)
	if !ok {
		r.Verb, r.Object = strings.ToLower(method), target.KubeObject{Path: "/" + strings.Join(parts, "/")}
		return r, nil
	}
	r.Object.Group = group
	if err := r.resource(rest); err != nil {
		return Request{}, err
	}
	if r.Verb, err = verb(method, r.Object, query); err != nil {
		return Request{}, err
	}
	r.through()
	if r.Stream == Exec || r.Stream == Attach {
		r.Options = ReadOptions(query)
	}
	if r.Stream == Attach { // what the server does not read must not look like what is run
		r.Options.Command = nil
	}
	if r.Verb == "proxy" {
		r.Object.Name, err = proxied(r.Object.Name)
	}
	return r, err
}

// proxied is the object in the name of a proxy request, [SCHEME:]NAME[:PORT], as the server takes it apart
// (k8s.io/apimachinery, SplitSchemeNamePort).
func proxied(id string) (string, error) {
	parts := strings.Split(id, ":")
	if len(parts) == 3 && (parts[0] == "" || parts[0] == "http" || parts[0] == "https") {
		parts = parts[1:]
	}
	if len(parts) > 2 || parts[0] == "" {
		return "", errUnclear
	}
	return parts[0], nil
}

// segments takes a path apart. Empty segments, dots, encoded slashes and dots, and control characters are refused: a
// server may see other segments there than this reader. One slash at the end is taken.
func segments(escaped string) ([]string, error) {
	if !strings.HasPrefix(escaped, "/") || len(escaped) > 4096 {
		return nil, errUnclear
	}
	trimmed := strings.TrimSuffix(escaped[1:], "/")
	if trimmed == "" {
		if escaped != "/" {
			return nil, errUnclear
		}
		return nil, nil
	}
	var out []string
	for s := range strings.SplitSeq(trimmed, "/") {
		p, err := url.PathUnescape(s)
		if err != nil {
			return nil, errUnclear
		}
		lower := strings.ToLower(s)
		if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "/\\;") || strings.Contains(lower, "%2e") || strings.Contains(p, "%") ||
			strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
			return nil, errUnclear
		}
		out = append(out, p)
	}
	return out, nil
}

func escapeAll(parts []string) []string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = url.PathEscape(p)
	}
	return out
}

// resourcePath cuts off group and version.
func resourcePath(parts []string) (rest []string, group string, ok bool) {
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		return parts[2:], "", true
	case len(parts) >= 4 && parts[0] == "apis":
		return parts[3:], parts[1], true
	}
	return nil, "", false
}

// resource reads [namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/…]]].
func (r *Request) resource(parts []string) error {
	o := &r.Object
	switch parts[0] {
	case "watch", "proxy": // verbs of old in the place of a resource
		return fmt.Errorf("paths that begin with %q behind the version are not taken: use ?watch=true, or the object's own proxy", parts[0])
	case "namespaces":
		if len(parts) >= 3 && parts[2] != "status" && parts[2] != "finalize" {
			o.Namespace, parts = parts[1], parts[2:]
		}
	}
	o.Resource = parts[0]
	if len(parts) > 1 {
		o.Name = parts[1]
	}
	if len(parts) > 2 {
		o.Subresource = parts[2]
	}
	if len(parts) > 3 && o.Subresource != "proxy" {
		return errUnclear
	}
	return nil
}

func verb(method string, o target.KubeObject, query url.Values) (string, error) {
	switch method {
	case http.MethodGet, http.MethodHead:
		if o.Name != "" {
			return "get", nil
		}
		if w, ok := query["watch"]; ok {
			if len(w) != 1 {
				return "", errors.New("watch is there more than once")
			}
			if truth(w) {
				return "watch", nil
			}
		}
		return "list", nil
	case http.MethodPost:
		if o.Name != "" && o.Subresource == "" { // a custom resource's server would take the name of the body, whatever the path's
			return "", errors.New("a POST to an object's own path: create it where its list is")
		}
		return "create", nil
	case http.MethodPut:
		return "update", nil
	case http.MethodPatch:
		return "patch", nil
	case http.MethodDelete:
		if o.Name == "" {
			return "deletecollection", nil
		}
		return "delete", nil
	}
	return "", fmt.Errorf("method %q", method)
}

// own are subresources that are a part of their object: who may do something to it may do it to them.
var own = map[string]bool{"log": true, "status": true, "scale": true, "ephemeralcontainers": true, "resize": true, "binding": true}

// through gives requests that reach through an object a verb of their own, whatever method they come by.
func (r *Request) through() {
	o := &r.Object
	switch o.Subresource {
	case Exec, Attach:
		r.Verb, r.Stream = "exec", o.Subresource
	case PortForward:
		r.Verb, r.Stream = "portforward", o.Subresource
	case "proxy":
		r.Verb = "proxy"
	case "eviction":
		r.Verb = "delete"
	default:
		if !own[o.Subresource] {
			return
		}
	}
	if o.Group != "" && !own[o.Subresource] { // another group's subresource of that name is its own
		return
	}
	o.Subresource = ""
}
