package tctl_test

import "testing"

func TestTry(t *testing.T) {
	w := newWorld(t)
	for _, a := range [][]string{{"version"}, {"status"}, {"users", "add", "myuser", "--roles=access,auditor,editor", "--logins=root,ubuntu"}, {"users", "ls"}, {"get", "users/myuser"}, {"get", "roles"}, {"get", "cap", "--format=json"}, {"devices", "ls"},
		{"devices", "add", "--os=linux", "--asset-tag=c00aa0aaaa0a", "--enroll"}, {"devices", "ls"}, {"devices", "tokens"}, {"devices", "enroll", "--asset-tag=c00aa0aaaa0a"}, {"devices"}, {"devices", "foo"}, {"foo"}, {"users", "add"}, {"users", "add", "x", "--nope"},
		{"audit", "ls"}, {"audit", "verify"}, {"access", "explain", "--user=myuser", "--resource=role"}, {"auth", "export"}, {"tokens", "add", "--type=proxy,node"}, {"tokens", "ls"}, {"bots", "add", "ci", "--roles=access"}, {"bots", "ls"},
		{"lock", "--user=myuser"}, {"get", "locks"}, {"devices", "lock", "--asset-tag=C00AA0AAAA0A"}, {"devices", "rm", "--asset-tag=C00AA0AAAA0A"}, {"devices", "rm", "--asset-tag=C00AA0AAAA0A"}, {"devices", "rm"}, {"get", "user/nobody"}, {"-d", "get", "user/nobody"}, {"get", "db"}, {"help"}, {"help", "users", "add"}} {
		r := w.run("", a...)
		t.Logf("$ tctl %v -> %d\n%s---\n%s", a, r.code, r.out, r.err)
	}
}
