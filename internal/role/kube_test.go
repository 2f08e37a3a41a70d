package role

import "testing"

// TestKubeKinds: an entry that no request could ever be about is refused: in deny it would forbid nothing.
func TestKubeKinds(t *testing.T) {
	for kind, ok := range map[string]bool{"pods": true, "deployments.apps": true, "serviceaccounts/token": true, "things.example.com/exec": true, "*": true,
		"pods/exec": false, "pods/log": false, "services/proxy": false, "deployments.apps/scale": false, "": false} {
		if err := (KubeResource{Kind: kind, Name: "*", Verbs: []string{"*"}}).check(); (err == nil) != ok {
			t.Errorf("%q: %v", kind, err)
		}
	}
}
