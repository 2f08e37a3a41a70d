package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/kube/request"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// named is whose an object is.
type named struct {
	Metadata struct{ Name, Namespace string }
}

var inDev = role.KubeResource{Kind: "*", Namespace: "dev", Name: "*", Verbs: []string{"*"}}

// TestFilterLong: of a long list the beginning is there while the server still makes the rest, and nothing of it is lost.
func TestFilterLong(t *testing.T) {
	read := make(chan struct{})
	const pods = 4000
	p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"PodList","items":[`)
		for i := range pods {
			if i > 0 {
				_, _ = io.WriteString(w, ",")
			}
			if i == pods/2 {
				_ = http.NewResponseController(w).Flush()
				<-read
			}
			fmt.Fprintf(w, `{"metadata":{"name":"p%d","namespace":%q,"labels":{"x":%q}}}`, i, []string{"dev", "prod"}[i%2], strings.Repeat("y", 300))
		}
		_, _ = io.WriteString(w, `],"metadata":{"remainingItemCount":9}}`)
	}, inDev)
	c := p.dials()
	go func() { _, _ = io.WriteString(c, get("/api/v1/pods")) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	first := make([]byte, 1024)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	close(read)
	rest, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Metadata map[string]any `json:"metadata"`
		Items    []named        `json:"items"`
	}
	if err := json.Unmarshal(append(first, rest...), &list); err != nil || len(list.Items) != pods/2 || len(list.Metadata) != 0 {
		t.Fatalf("%v, %d of them, %v", err, len(list.Items), list.Metadata)
	}
	for i, n := range list.Items {
		if n.Metadata.Namespace != "dev" || n.Metadata.Name != fmt.Sprintf("p%d", 2*i) {
			t.Fatalf("%+v", n)
		}
	}
}

// TestFilterBroken: what turns out, when some of it is out already, to be no list that can be looked through ends in the middle.
func TestFilterBroken(t *testing.T) {
	good := fmt.Sprintf(`{"metadata":{"name":"web","namespace":"dev","x":%q}}`, strings.Repeat("y", 2*maxAhead))
	for name, rest := range map[string]string{
		"a second list":  `],"rows":[{"object":{"metadata":{"name":"secret","namespace":"prod"}}}]}`,
		"a large object": `,{"metadata":{"name":"` + strings.Repeat("z", 16<<20) + `","namespace":"dev"}}]}`,
		"no end":         `,{"metadata":{"name":"secret"`,
		"no JSON":        `,secret]}`,
		"something more": `]} secret`,
	} {
		p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"kind":"PodList","items":[`+good+rest)
		}, inDev)
		c := p.dials()
		go func() { _, _ = io.WriteString(c, get("/api/v1/pods")) }()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %v %v", name, res, err)
		}
		body, err := io.ReadAll(res.Body)
		if err == nil || bytes.Contains(body, []byte("secret")) || bytes.Contains(body, []byte("zzz")) {
			t.Errorf("%s: it ends in order with %d bytes", name, len(body))
		}
	}
}

// FuzzFilter: what is let through of any bytes is JSON whose objects are all granted.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{`{"kind":"PodList","metadata":{"continue":"x"},"items":[{"metadata":{"name":"web","namespace":"dev"}},{"metadata":{"name":"web","namespace":"prod"}}]}`,
		`{"kind":"Table","rows":[{"object":{"metadata":{"name":"a","namespace":"dev"}}},{"cells":[1]}]}`, `{}`, `{"items":null,"kind":"x"}`, `{"items":[],"rows":[]}`, `[]`, `{"kind":"Status"}`} {
		f.Add([]byte(s))
	}
	p := newPlace(f, func(http.ResponseWriter, *http.Request) {}, inDev)
	v := p.visit()
	session, err := p.door.Gate.Admit(context.Background(), p.door.asks(&v, request.Request{Verb: "list", Object: target.KubeObject{Resource: "pods"}}))
	if err != nil {
		f.Fatal(err)
	}
	x := &exchange{door: p.door, session: session}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out bytes.Buffer
		if x.sieve().List(&out, bytes.NewReader(raw)) != nil {
			return
		}
		var whole map[string]json.RawMessage
		if err := json.Unmarshal(out.Bytes(), &whole); err != nil {
			t.Fatalf("%q: %v", out.Bytes(), err)
		}
		var items []named
		var rows []struct{ Object named }
		if whole["items"] != nil && whole["rows"] != nil || whole["items"] != nil && json.Unmarshal(whole["items"], &items) != nil || whole["rows"] != nil && json.Unmarshal(whole["rows"], &rows) != nil {
			t.Fatalf("%q", out.Bytes())
		}
		for _, r := range rows {
			items = append(items, r.Object)
		}
		for _, n := range items {
			if n.Metadata.Namespace != "dev" {
				t.Errorf("%+v is shown", n)
			}
		}
	})
}

// TestFilterWatchLong: a watch lives however much it says; one event that is too large ends it.
func TestFilterWatchLong(t *testing.T) {
	const events = 12
	p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := range events {
			fmt.Fprintf(w, `{"type":"ADDED","object":{"metadata":{"name":"p%d","namespace":"dev","x":%q}}}`+"\n", i, strings.Repeat("y", 1<<20))
		}
		fmt.Fprintf(w, `{"type":"ADDED","object":{"metadata":{"name":"large","namespace":"dev","x":%q}}}`+"\n", strings.Repeat("z", 16<<20))
	}, inDev)
	c := p.dials()
	go func() { _, _ = io.WriteString(c, get("/api/v1/pods?watch=1")) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	body, err := io.ReadAll(res.Body)
	if n := bytes.Count(body, []byte("\n")); err == nil || n != events || bytes.Contains(body, []byte("large")) {
		t.Errorf("%d events, %v", n, err)
	}
}

// lists is a server's that answers every request with one list, or with what else it is given.
func lists(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

// TestA50ClusterWide: a role of what is cluster-wide shows nothing of any namespace, though the path names none.
func TestA50ClusterWide(t *testing.T) {
	p := newPlace(t, lists(`{"kind":"SecretList","items":[{"metadata":{"name":"db","namespace":"prod"}},{"metadata":{"name":"wide"}}]}`),
		role.KubeResource{Kind: "*", Name: "*", Verbs: []string{"*"}})
	if res, body := p.asks(get("/api/v1/secrets")); res.StatusCode != 200 || strings.Contains(body, "prod") || !strings.Contains(body, "wide") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, body := p.asks(get("/api/v1/secrets?watch=1")); strings.Contains(body, "prod") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestA50Counting: the size of pages, which would tell how many objects are withheld and whether one of a guessed name is, does
// not go to the server where a list is looked through; of other lists it does.
func TestA50Counting(t *testing.T) {
	for _, c := range []struct {
		path, want string
		rule       role.KubeResource
	}{
		{"/api/v1/pods?limit=1", "", inDev},
		{"/api/v1/pods?limit=1&limit=2&labelSelector=a%3Db", "labelSelector=a%3Db", inDev},
		{"/api/v1/namespaces/dev/pods?limit=1", "limit=1", inDev},
	} {
		asked := make(chan string, 1)
		p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.RawQuery
			lists(`{"kind":"PodList","items":[]}`)(w, r)
		}, c.rule)
		if res, body := p.asks(get(c.path)); res.StatusCode != 200 {
			t.Fatalf("%s: %d %s", c.path, res.StatusCode, body)
		}
		if got := <-asked; got != c.want {
			t.Errorf("%s: the server is asked %q", c.path, got)
		}
	}
}

// TestA50OtherAnswers: what is not looked through because of a status that is none of a list's goes to nobody either.
func TestA50OtherAnswers(t *testing.T) {
	for _, status := range []int{203, 206} {
		p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"kind":"PodList","items":[{"metadata":{"name":"secret","namespace":"prod"}}]}`)
		}, inDev)
		if res, body := p.asks(get("/api/v1/pods")); strings.Contains(body, "secret") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

// TestA50Keys: an object is whose the keys say that Kubernetes' clients read, not others that look alike; what no list has
// is no way around looking.
func TestA50Keys(t *testing.T) {
	const hidden = `"metadata":{"name":"secret","namespace":"prod"}`
	for _, body := range []string{
		`{"kind":"ThingList","items":[{` + hidden + `,"Metadata":{"name":"secret","namespace":"dev"}}]}`,
		`{"kind":"ThingList","items":[{"Metadata":{"namespace":"dev"},"metadata":{"name":"secret"}}]}`,
		`{"kind":"ThingList","items":[{"metadata":{"name":"secret","namespace":"prod","nameſpace":"dev"}}]}`,
		`{"kind":"ThingList","items":[{"metadata":{"name":"secret","namespace":"prod","Namespace":"dev"}}]}`,
		`{"kind":"ThingList","items":[{"metadata":{"namespace":"dev","name":"a"},` + hidden + `}]}`,
		`{"kind":"Table","rows":[{"object":{` + hidden + `},"Object":{"metadata":{"name":"a","namespace":"dev"}}}]}`,
		`{"kind":"ThingList","Items":[{` + hidden + `}],"items":[]}`,
		`{"kind":"ThingList","Items":[{` + hidden + `}]}`,
		`{"kind":"ThingList","items":[],"summary":{"secret":1}}`,
	} {
		p := newPlace(t, lists(body), inDev)
		if res, got := p.asks(get("/apis/example.com/v1/things")); strings.Contains(got, "secret") {
			t.Errorf("%s: %d %s", body, res.StatusCode, got)
		}
	}
	for _, event := range []string{
		`{"type":"ADDED","object":{"kind":"Thing","\u212aind":"Table",` + hidden + `,"rows":[{"object":{"metadata":{"name":"a","namespace":"dev"}}}]}}`,
		`{"type":"ADDED","object":{` + hidden + `,"Metadata":{"namespace":"dev"}}}`,
		`{"type":"BOOKMARK","object":{` + hidden + `}}`,
	} {
		p := newPlace(t, lists(event), inDev)
		if res, got := p.asks(get("/apis/example.com/v1/things?watch=1")); strings.Contains(got, "secret") {
			t.Errorf("%s: %d %s", event, res.StatusCode, got)
		}
	}
}

// TestA50Unsaid: what does not say its namespace is in the one whose list it is in.
func TestA50Unsaid(t *testing.T) {
	p := newPlace(t, lists(`{"kind":"ThingList","items":[{"metadata":{"name":"secret"}},{"metadata":{"name":"web-1"}}]}`),
		role.KubeResource{Kind: "*", Name: "*", Verbs: []string{"*"}}, role.KubeResource{Kind: "*", Namespace: "dev", Name: "web-*", Verbs: []string{"*"}})
	if res, body := p.asks(get("/apis/example.com/v1/namespaces/dev/things")); strings.Contains(body, "secret") || !strings.Contains(body, "web-1") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
