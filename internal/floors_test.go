// Package internal holds the rules of the house.
package internal

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sallyport/sallyport/"

// floors is the house, lowest first. Imports go to lower floors only; families, and floor 0, may import each other.
var floors = [][]string{
	0: {"fault", "label", "device", "identity", "role", "target", "lock", "cluster", "event", "live"},
	1: {"access", "access/objects", "access/strictest", "attestation", "bootlog", "ceremony", "manifest", "recording", "recording/screen", "wire", "config", "sshcert",
		"dbwire/postgres", "dbwire/postgres/sql", "dbwire/mysql", "dbwire/redis", "dbwire/mongo"},
	2: {"store", "store/sqlite", "store/postgres", "store/etcd", "keystore", "hwkey", "hwkey/tpm", "hwkey/platform", "hwkey/enclave", "hwkey/software", "hwkey/local", "hwkey/elevation",
		"tunnel", "turnstile", "handoff", "ekroots", "adminsocket", "outbound", "profile", "shell", "hostinfo", "framework", "console", "transfer", "kubeconfig", "recording/spool", "timerslack"}, // 2a: hold state, know no use case
	3: {"ca", "audit", "audit/spool", "inventory", "records", "snapshot", "snapshot/feed"},                                                                                                                                                                                                      // 2b: engines that may use 2a
	4: {"issuance", "client/authority", "client/contact", "login", "login/bots", "trust", "trust/proof", "trust/fleet", "membership", "roster", "census", "archive", "gate/recorder", "client/recordings", "client", "client/member", "client/census", "client/fleet", "client/enroll", "gate"}, // 3: use cases
	5: {"entry", "kube/request", "kube/frame", "kube/sieve", "kube/stream", "kube/upstream", "rpc", "rpc/authority", "rpc/fleet", "rpc/device", "rpc/feed", "rpc/census", "rpc/event", "rpc/recording", "proxy", "node", "node/ask", "kube", "app", "web", "session", "player", "listener", "listener/localcert", "listener/refusal", "sshagent",
		"database", "database/mysql/server", "database/servers", "database/postgres", "database/postgres/upstream", "database/mysql", "database/redis", "database/mongo"}, // 4: doors
	6: {"daemon", "daemon/host", "daemon/command", "quickstart", "tsh", "tsh/db", "tsh/kube", "tsh/doctor", "tsh/tool", "tsh/remote", "tsh/recordings", "tctl", "tctl/tool", "tctl/people", "tctl/resource", "tctl/machines", "tctl/sessions"}, // 5: assembly
	7: {"cmd/sallyport", "cmd/tsh", "cmd/tctl"},
}

// floorNames are the floors as docs call them.
var floorNames = []string{"0", "1", "2a", "2b", "3", "4", "5", "cmd"}

// testPackages are for tests: nothing shipped links them.
var testPackages = []string{"peer", "peer/redis", "peer/mongo", "peer/authority", "peer/mariadb", "peer/pgserver", "peer/kubeserver", "peer/door", "swtpm", "standin", "swtpm/firmware", "store/storetest", "memnet", "world"}

// reaches are imports that go sideways or up by a decision of the design, with the reason. One that is not needed any
// more fails the test.
var reaches = map[string]string{
	"wire -> manifest":           "a resource travels as the JSON that manifest prints",
	"keystore -> store":          "signing keys are sealed in the store",
	"snapshot/feed -> records":   "the picture is made of the typed records",
	"profile -> hwkey":           "a login's files are for their owner alone, as its keys are",
	"hostinfo -> framework":      "a Mac's serial is told by a framework",
	"shell -> timerslack":        "what a login runs has its timers kept exactly",
	"hwkey/enclave -> framework": "the Secure Enclave is reached through a framework",
}

// pkg is one package's shipped sources on every platform: its imports, and a file that has each.
type pkg struct {
	imports map[string]string
	files   map[string]*ast.File
}

// load parses every source of the module but tests, whatever platform it is for.
func load(t *testing.T) map[string]*pkg {
	t.Helper()
	out := map[string]*pkg{}
	fset := token.NewFileSet()
	for _, top := range []string{".", "../cmd", "../api"} {
		err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			if err != nil || ignored(f) {
				return err
			}
			name := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
			if out[name] == nil {
				out[name] = &pkg{imports: map[string]string{}, files: map[string]*ast.File{}}
			}
			out[name].files[path] = f
			for _, i := range f.Imports {
				p, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					return err
				}
				out[name].imports[strings.TrimPrefix(strings.TrimPrefix(p, module), "internal/")] = path
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d packages were found", len(out))
	}
	return out
}

// ignored reports whether a file is for no build, as generators are.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if x, err := constraint.Parse(c.Text); err == nil && c.Pos() < f.Package && x.String() == "ignore" {
				return true
			}
		}
	}
	return false
}

func floorOf(name string) int {
	return slices.IndexFunc(floors, func(f []string) bool { return slices.Contains(f, name) })
}

func family(name string) string {
	first, _, _ := strings.Cut(name, "/")
	return first
}

// chain is a shortest way by which a package comes to import another, or nil.
func chain(all map[string]*pkg, from string, to func(string) bool) []string {
	came, queue := map[string]string{from: ""}, []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at != from && to(at) {
			var way []string
			for p := at; p != ""; p = came[p] {
				way = append([]string{p}, way...)
			}
			return way
		}
		if all[at] == nil {
			continue
		}
		for _, next := range slices.Sorted(maps.Keys(all[at].imports)) {
			if _, seen := came[next]; !seen {
				came[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

func TestFloors(t *testing.T) {
	all, used := load(t), map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, "api/") || slices.Contains(testPackages, name) {
			continue
		}
		floor := floorOf(name)
		if floor < 0 {
			t.Errorf("package %s is on no floor: put it into the table", name)
			continue
		}
		for dep, file := range all[name].imports {
			if all[dep] == nil || strings.HasPrefix(dep, "api/") {
				continue
			}
			below := floorOf(dep)
			edge := name + " -> " + dep
			switch {
			case slices.Contains(testPackages, dep):
				t.Errorf("%s (%s): shipped code imports a test package", edge, file)
			case below < floor, below == floor && (floor == 0 || family(name) == family(dep)):
			case reaches[edge] != "":
				used[edge] = true
			default:
				t.Errorf("%s (%s): floor %s imports floor %s", edge, file, floorNames[floor], floorNames[below])
			}
		}
	}
	for edge := range reaches {
		if !used[edge] {
			t.Errorf("%s is allowed and is not there", edge)
		}
	}
}

// TestPurity holds that floors 0 and 1 read no clock, file or socket and start no goroutine; floor 0 imports the
// standard library and x/crypto alone.
func TestPurity(t *testing.T) {
	all := load(t)
	impure := []string{"os", "os/exec", "os/signal", "os/user", "net", "net/http", "syscall", "log", "log/slog", "database/sql", "io/ioutil"}
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	for floor, names := range floors[:2] {
		for _, name := range names {
			p := all[name]
			if p == nil {
				continue
			}
			for dep, file := range p.imports {
				outside := strings.Contains(family(dep), ".") && !strings.HasPrefix(dep, "golang.org/x/crypto/")
				if slices.Contains(impure, dep) && !allowed[name+" imports "+dep] {
					t.Errorf("%s imports %s (%s): floors 0 and 1 are pure", name, dep, file)
				}
				if floor == 0 && outside {
					t.Errorf("%s imports %s (%s): floor 0 knows the standard library and x/crypto alone", name, dep, file)
				}
			}
			for path, f := range p.files {
				ast.Inspect(f, func(n ast.Node) bool {
					switch x := n.(type) {
					case *ast.GoStmt:
						t.Errorf("%s starts a goroutine (%s): floors 0 and 1 are pure", name, path)
					case *ast.SelectorExpr:
						if id, ok := x.X.(*ast.Ident); ok && id.Name == "time" && slices.Contains(clocks, x.Sel.Name) {
							t.Errorf("%s uses time.%s (%s): floors 0 and 1 are pure", name, x.Sel.Name, path)
						}
					}
					return true
				})
			}
		}
	}
}

// allowed are impure imports that are used for their values alone.
var allowed = map[string]bool{
	"config imports net": true, // SplitHostPort
	"target imports net": true, // SplitHostPort
}

// TestLinks holds who may import what, and what each program must not link, and names the chain that does.
func TestLinks(t *testing.T) {
	all := load(t)
	for name, p := range all {
		for dep, file := range p.imports {
			if strings.HasPrefix(dep, "api/") && !strings.HasPrefix(name, "api/") && !slices.Contains([]string{"wire", "rpc", "rpc/authority", "client/authority", "rpc/fleet", "rpc/device", "rpc/feed", "rpc/census", "rpc/event", "rpc/recording", "client/recordings", "client", "client/member", "client/census", "client/fleet", "client/enroll"}, name) {
				t.Errorf("%s imports %s (%s): generated protobuf is for wire, rpc and client alone", name, dep, file)
			}
			if dep == "C" {
				t.Errorf("%s uses cgo (%s)", name, file)
			}
		}
	}
	under := func(names ...string) func(string) bool {
		return func(s string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return s == n || strings.HasPrefix(s, n+"/") })
		}
	}
	for _, rule := range []struct {
		from string
		bad  func(string) bool
		why  string
	}{
		{"tsh", under("store", "ca", "attestation"), "tsh judges nothing and stores nothing"},
		{"cmd/tsh", under("store", "ca", "attestation", "daemon"), "tsh judges nothing and stores nothing"},
		{"cmd/tctl", under("store", "ca", "attestation", "daemon"), "tctl runs where tsh does"},
		{"daemon", under("hwkey/local"), "a server has no device of its own"},
		{"cmd/sallyport", under("hwkey/local"), "a server has no device of its own"},
		{"cmd/sallyport", under("testing"), "nothing shipped links testing"},
		{"cmd/tsh", under("testing"), "nothing shipped links testing"},
		{"cmd/tctl", under("testing"), "nothing shipped links testing"},
	} {
		if all[rule.from] == nil {
			continue
		}
		if way := chain(all, rule.from, rule.bad); way != nil {
			t.Errorf("%s: %s", strings.Join(way, " -> "), rule.why)
		}
	}
}
