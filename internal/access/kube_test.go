package access

import (
	"testing"

	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// asking is a situation where a role says some of kubernetes_resources, or a second one denies them.
func asking(verb string, o *target.KubeObject, rules ...role.KubeResource) func(*situation) {
	return func(s *situation) {
		s.kube(verb, o)
		s.role("access").Allow.KubernetesResources = rules
	}
}

func without(verb string, o *target.KubeObject, rules ...role.KubeResource) func(*situation) {
	return func(s *situation) {
		s.kube(verb, o)
		s.role("deny").Deny.KubernetesResources = rules
	}
}

func of(kind, namespace, name string, verbs ...string) role.KubeResource {
	return role.KubeResource{Kind: kind, Namespace: namespace, Name: name, Verbs: verbs}
}

func object(group, resource, namespace, name string) *target.KubeObject {
	return &target.KubeObject{Group: group, Resource: resource, Namespace: namespace, Name: name}
}

func path(p string) *target.KubeObject { return &target.KubeObject{Path: p} }

var (
	refused  = want{reason: NotGranted}
	denied   = want{DeniedByRole, FromRole, "deny"}
	readsDev = of("pods", "dev", "*", "get", "list", "watch")
	token    = &target.KubeObject{Resource: "serviceaccounts", Subresource: "token", Namespace: "dev", Name: "robot"}
)

var kubeRows = []row{
	{"a request about nothing", asking("get", nil), refused},
	{"kubernetes_resources", asking("get", pod("dev", "web"), readsDev), want{}},
	{"kubernetes_resources in the singular", asking("get", pod("dev", "web"), of("Pod", "dev", "*", "get")), want{}},
	{"kubernetes_resources of another namespace", asking("get", pod("prod", "web"), readsDev), refused},
	{"kubernetes_resources of a namespace in other case", asking("get", pod("Dev", "web"), readsDev), refused},
	{"kubernetes_resources of another kind", asking("get", object("", "secrets", "dev", "web"), readsDev), refused},
	{"kubernetes_resources of another verb", asking("delete", pod("dev", "web"), readsDev), refused},
	{"kubernetes_resources by a pattern", asking("get", pod("team-a", "web-1"), of("pods", "team-*", "web-*", "get")), want{}},
	{"kubernetes_resources beside a pattern", asking("get", pod("team-a", "db-1"), of("pods", "team-*", "web-*", "get")), refused},
	{"kubernetes_resources of everything", asking("delete", object("apps", "deployments", "x", "y"), of("*", "*", "*", "*")), want{}},
	{"kubernetes_resources of a group", asking("get", object("apps", "deployments", "dev", "web"), of("deployments.apps", "dev", "*", "get")), want{}},
	{"kubernetes_resources of another group", asking("get", object("evil.example", "deployments", "dev", "web"), of("deployments.apps", "dev", "*", "get")), refused},
	{"a custom resource", asking("get", object("example.com", "policies", "dev", "web"), of("policies.example.com", "dev", "*", "get")), want{}},
	{"a custom resource in the singular", asking("get", object("example.com", "policies", "dev", "web"), of("policy", "dev", "*", "get")), want{}},
	{"a list of one namespace", asking("list", pod("dev", ""), readsDev), want{}},
	{"a list of another namespace", asking("list", pod("prod", ""), readsDev), refused},
	{"a list of all namespaces, to be filtered", asking("list", pod("", ""), readsDev), want{}},
	{"a watch of all namespaces, to be filtered", asking("watch", pod("", ""), readsDev), want{}},
	{"a list of one name, to be filtered", asking("list", pod("dev", ""), of("pods", "dev", "web", "list")), want{}},
	{"a list without the verb", asking("list", pod("dev", ""), of("pods", "dev", "*", "get")), refused},
	{"deletecollection of some names", asking("deletecollection", pod("dev", ""), of("pods", "dev", "web-*", "*")), refused},
	{"deletecollection of all namespaces", asking("deletecollection", pod("", ""), of("pods", "dev", "*", "*")), refused},
	{"create of a name that is not known", asking("create", pod("dev", ""), of("pods", "dev", "web-*", "*")), refused},
	{"create of any name", asking("create", pod("dev", ""), of("pods", "dev", "*", "create")), want{}},
	{"cluster-wide, by an empty namespace", asking("get", object("", "nodes", "", "n1"), of("nodes", "", "*", "get")), want{}},
	{"cluster-wide, by a namespace", asking("get", object("", "nodes", "", "n1"), of("nodes", "dev", "*", "get")), refused},
	{"everything of one namespace is nothing cluster-wide", asking("get", object("", "nodes", "", "n1"), of("*", "dev", "*", "*")), refused},
	{"a namespace of one's own name", asking("get", object("", "namespaces", "", "dev"), of("*", "dev", "*", "*")), refused},
	{"in a namespace, by an empty one", asking("get", pod("dev", "web"), of("pods", "", "*", "get")), refused},
	{"exec by get", asking("exec", pod("dev", "web"), of("pods", "dev", "*", "get", "create")), refused},
	{"exec", asking("exec", pod("dev", "web"), of("pods", "dev", "*", "exec")), want{}},
	{"a token by the rights over its account", asking("create", token, of("serviceaccounts", "dev", "*", "*")), refused},
	{"a token", asking("create", token, of("serviceaccounts/token", "dev", "robot", "create")), want{}},
	{"discovery", asking("get", path("/apis/apps/v1"), readsDev), want{}},
	{"discovery with another verb", asking("post", path("/apis/apps/v1"), readsDev), refused},
	{"what one may do oneself", asking("create", object("authorization.k8s.io", "selfsubjectaccessreviews", "", ""), readsDev), want{}},
	{"what others may do", asking("create", object("authorization.k8s.io", "subjectaccessreviews", "", ""), readsDev), refused},
	{"a path that is no discovery", asking("get", path("/metrics"), readsDev), refused},
	{"a path that is no discovery, by everything", asking("get", path("/metrics"), of("*", "*", "*", "*")), want{}},
	{"a path that is no discovery, without kubernetes_resources", asking("get", path("/metrics")), want{}},

	{"kubernetes_resources denied", without("get", object("", "secrets", "dev", "x"), of("secrets", "*", "*", "*")), denied},
	{"kubernetes_resources denied of another kind", without("get", pod("dev", "x"), of("secrets", "*", "*", "*")), want{}},
	{"kubernetes_resources denied, with no namespace", without("get", object("", "secrets", "dev", "x"), of("secrets", "", "*", "*")), denied},
	{"kubernetes_resources denied of one name", without("get", pod("dev", "web"), of("pods", "dev", "db", "*")), want{}},
	{"a list with a denied name, to be filtered", without("list", pod("dev", ""), of("pods", "dev", "db", "*")), want{}},
	{"a list of a denied namespace", without("list", pod("dev", ""), of("pods", "dev", "*", "*")), denied},
	{"deletecollection with a denied name", without("deletecollection", pod("dev", ""), of("pods", "dev", "db", "*")), denied},
	{"create where a name is denied", without("create", pod("dev", ""), of("pods", "dev", "db", "*")), denied},
	{"everything denied, a path too", without("get", path("/metrics"), of("*", "*", "*", "*")), denied},
}

func TestKubeRows(t *testing.T) { runRows(t, kubeRows) }

// TestKubeFilters: an answer is looked through where some role says something about objects, and only there.
func TestKubeFilters(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*situation)
		want   bool
	}{
		{"no rules", asking("list", pod("", "")), false},
		{"one object", asking("get", pod("dev", "web"), readsDev), false},
		{"all of a namespace", asking("list", pod("dev", ""), readsDev), false},
		{"all namespaces", asking("list", pod("", ""), readsDev), true},
		{"a pattern of names", asking("watch", pod("dev", ""), of("pods", "dev", "w*", "watch")), true},
		{"everything", asking("list", pod("", ""), of("*", "*", "*", "*")), false},
		{"everything cluster-wide, of what may have namespaces", asking("list", object("", "secrets", "", ""), of("*", "", "*", "*")), true},
		{"a deny", without("list", pod("dev", ""), of("pods", "dev", "db", "*")), true},
		{"a role without rules beside one with", func(s *situation) {
			asking("list", pod("", ""), readsDev)(s)
			s.role("other").Allow = role.Conditions{KubernetesLabels: all}
		}, false},
	} {
		s := granted()
		c.change(s)
		if got := KubeFilters(s.input()); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
