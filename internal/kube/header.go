package kube

import (
	"encoding/json"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kube/request"
	"github.com/sallyport/sallyport/internal/target"
)

// identityHeader reports whether a header could say who somebody is, to the API server or to a front of it: by any of the
// spellings that some server takes for the same name.
func identityHeader(name string) bool {
	n := strings.ReplaceAll(textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-")), " ", "")
	for _, prefix := range []string{"Impersonate-", "X-Remote-", "X-Forwarded-", "X-Client-", "Forwarded-"} {
		if strings.HasPrefix(n, prefix) {
			return true
		}
	}
	switch n {
	case "Authorization", "Proxy-Authorization", "Forwarded", "X-Real-Ip", "X-Ssl-Client-Cert", "Ssl-Client-Cert", "Cookie", "Via":
		return true
	}
	return false
}

// bearerProtocol is by which a WebSocket client may hand over a token (k8s.io/apiserver, authentication/request/websocket).
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

func dropTokens(h http.Header) {
	list := h.Values("Sec-Websocket-Protocol")
	if len(list) == 0 {
		return
	}
	var keep []string
	for _, line := range list {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" && !strings.HasPrefix(strings.ToLower(p), bearerProtocol) {
				keep = append(keep, p)
			}
		}
	}
	h.Del("Sec-Websocket-Protocol")
	if len(keep) > 0 {
		h.Set("Sec-Websocket-Protocol", strings.Join(keep, ", "))
	}
}

// applies reports whether a patch is a server-side apply of an object, which makes it where it is not there (k8s.io/apiserver,
// PatchResource); of a subresource it makes none.
func applies(h http.Header, q request.Request) bool {
	if q.Verb != "patch" || !strings.HasSuffix(strings.TrimSuffix(q.Path, "/"), "/"+url.PathEscape(q.Object.Name)) {
		return false
	}
	return slices.ContainsFunc(h.Values("Content-Type"), func(v string) bool { return strings.Contains(strings.ToLower(v), "apply-patch") })
}

func unescaped(path string) string {
	if p, err := url.PathUnescape(path); err == nil {
		return p
	}
	return path
}

// status is Kubernetes' object for an error (meta/v1 Status).
type status struct {
	Kind       string         `json:"kind"`
	APIVersion string         `json:"apiVersion"`
	Metadata   map[string]any `json:"metadata"`
	Status     string         `json:"status"`
	Message    string         `json:"message"`
	Reason     string         `json:"reason"`
	Code       int            `json:"code"`
}

func statusOf(code int, f *fault.Error) status {
	reason := map[int]string{http.StatusForbidden: "Forbidden", http.StatusBadRequest: "BadRequest", http.StatusGone: "Expired", http.StatusServiceUnavailable: "ServiceUnavailable"}[code]
	if reason == "" {
		reason = "InternalError"
	}
	text := f.Text
	if f.Cause != "" {
		text += ": " + f.Cause
	}
	if f.Fix != "" {
		text += " (to fix: " + f.Fix + ")"
	}
	return status{Kind: "Status", APIVersion: "v1", Metadata: map[string]any{}, Status: "Failure", Message: fault.Plain(text), Reason: reason, Code: code}
}

// refuse answers with a Status, which kubectl prints; what is about no resource, as plain text, for of answers to discovery
// clients read nothing else.
func refuse(w http.ResponseWriter, o target.KubeObject, code int, f *fault.Error) {
	if o.Resource == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, statusOf(code, f).Message)
		return
	}
	raw, err := json.Marshal(statusOf(code, f))
	if err != nil {
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(raw)
}
