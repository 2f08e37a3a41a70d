package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
)

func TestParseRefuses(t *testing.T) {
	const join = "join: {proxy: 'p:3080', token: t, ca_pin: ['sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + "']}\n"
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "version: v1\nauth:\n  enabled: true\n  lissten: x\n", `line 4: unknown key "lissten"`},
		{"no version", "auth: {enabled: true}\n", "line 1: version: want v1"},
		{"wrong type", "version: v1\nauth: {enabled: maybe}\n", "line 2: want a bool, got a str"},
		{"nothing enabled", "version: v1\n" + join, "nothing is enabled"},
		{"nothing to join", "version: v1\nssh: {enabled: true}\n", "join: needed where auth is not enabled"},
		{"join beside auth", "version: v1\nauth: {enabled: true}\n" + join, "line 3: join: auth is enabled here"},
		{"a pin that is none", "version: v1\nssh: {enabled: true}\njoin: {proxy: 'p:1', token: t, ca_pin: [abc]}\n", "line 3: join: ca_pin \"abc\""},
		{"no pin", "version: v1\nssh: {enabled: true}\njoin: {proxy: 'p:1', token: t}\n", "line 3: join: needs ca_pin"},
		{"a proxy that joins by a proxy", "version: v1\nproxy: {enabled: true}\n" + join, "line 3: join: a proxy joins by auth"},
		{"storage", "version: v1\nauth:\n  enabled: true\n  storage: {type: etcd}\n", `line 4: auth.storage.type: "etcd" is not enforced by this build`},
		{"a database without a protocol", "version: v1\nauth: {enabled: true}\ndatabases: [{name: x}]\n", `line 3: databases: entry 1: protocol: unknown protocol ""`},
		{"a database without a port", "version: v1\nauth: {enabled: true}\ndatabases: [{name: x, protocol: redis, uri: h}]\n", `line 3: databases: entry 1: uri: "h" is no HOST:PORT`},
		{"a database twice", "version: v1\nauth: {enabled: true}\ndatabases: [{name: x, protocol: redis, uri: \"h:1\"}, {name: x, protocol: redis, uri: \"h:1\"}]\n", `databases: entry 2: name: "x" is there twice`},
		{"a database's unknown key", "version: v1\nauth: {enabled: true}\ndatabases: [{name: x, protocl: redis}]\n", `line 3: unknown key "protocl"`},
		{"a cluster without a name", "version: v1\nauth: {enabled: true}\nkubernetes: [{kubeconfig: x}]\n", `line 3: kubernetes: entry 1: name: ""`},
		{"a cluster with a context of nothing", "version: v1\nauth: {enabled: true}\nkubernetes: [{name: x, context: y}]\n", `line 3: kubernetes: entry 1: context: there is no kubeconfig`},
		{"applications", "version: v1\nauth: {enabled: true}\napplications: [{name: x}]\n", "line 3: applications: not enforced by this build"},
		{"recordings for minutes", "version: v1\nauth:\n  enabled: true\n  recordings: {dir: x, keep: 5m}\n", "line 4: auth.recordings.keep: want an hour or more"},
		{"recordings", "version: v1\nauth:\n  enabled: true\n  recordings: {}\n", "line 4: auth.recordings: want {dir: DIRECTORY}"},
		{"unknown mode", "version: v1\nauth:\n  enabled: true\n  authentication:\n    device_trust:\n      mode: sometimes\n", "line 6: auth.authentication.device_trust.mode: unknown mode"},
		{"webauthn", "version: v1\nauth:\n  enabled: true\n  authentication:\n    second_factors: [webauthn]\n", "line 5: auth.authentication.second_factors: webauthn is not enforced by this build"},
		{"ekcert_policy", "version: v1\nauth:\n  enabled: true\n  authentication:\n    device_trust: {ekcert_policy: maybe}\n", "device_trust.ekcert_policy: unknown policy"},
		{"cluster name", "version: v1\ncluster_name: Exa mple\nauth: {enabled: true}\n", "line 2: cluster_name:"},
		{"node name", "version: v1\nnode_name: \"a\\u001bb\"\nauth: {enabled: true}\n", "line 2: node_name:"},
		{"public address", "version: v1\nauth: {enabled: true}\nproxy: {enabled: true, public_addr: [nowhere]}\n", `line 3: proxy.public_addr: "nowhere" is no HOST:PORT`},
		{"PROXY sources", "version: v1\nauth: {enabled: true}\nproxy: {enabled: true, proxy_protocol_from: [x]}\n", `line 3: proxy.proxy_protocol_from: "x"`},
		{"labels", "version: v1\nauth: {enabled: true}\nssh: {enabled: true, labels: {\"a,b\": c}}\n", "line 3: ssh.labels"},
		{"malformed", "version: [", "line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(c.text), "host")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestSampleParses(t *testing.T) {
	c, err := Parse(strings.NewReader(fmt.Sprintf(Sample, "example.com", "web", "/var/lib/sallyport")), "host")
	if err != nil {
		t.Fatal(err)
	}
	if c.ClusterName != "example.com" || !c.NameGiven || c.Auth.Listen != DefaultAuthListen || c.Proxy.Listen != DefaultProxyListen || c.SSH == nil ||
		c.Auth.Settings.DeviceTrust.Mode != device.ModeOptional || !c.Auth.Seeded {
		t.Fatalf("%+v", c)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Parse(strings.NewReader("version: v1\nauth: {enabled: true}\n"), "HOST")
	if err != nil || c.ClusterName != "host" || c.NodeName != "host" || c.NameGiven || c.Proxy != nil || c.SSH != nil {
		t.Fatalf("%+v %v", c, err)
	}
	if d := Default("HOST"); d.ClusterName != "host" || d.Auth == nil || d.Proxy == nil || d.SSH == nil {
		t.Fatalf("%+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fmt.Sprintf(Sample, "a", "b", "c"))
	f.Add("version: v1\nauth: {enabled: true}\njoin: {}\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(strings.NewReader(s), "host")
		if err == nil && c.Auth == nil && c.Proxy == nil && c.SSH == nil {
			t.Fatal("a config that does nothing")
		}
	})
}
