package access

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// predicate is a compiled `where`. A nil program never holds for an allow side and always for a deny side.
type predicate struct {
	program cel.Program
}

// maxPredicate bounds a predicate's text, in bytes; costLimit its evaluation, in CEL cost units.
const (
	maxPredicate = 1024
	costLimit    = 10_000
)

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("user", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("resource", cel.MapType(cel.StringType, cel.DynType)),
	)
})

func compilePredicate(text string) (*predicate, error) {
	if text == "" {
		return &predicate{}, nil
	}
	if len(text) > maxPredicate {
		return &predicate{}, fmt.Errorf("longer than %d characters", maxPredicate)
	}
	env, err := environment()
	if err != nil {
		return &predicate{}, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return &predicate{}, issues.Err()
	}
	if !ast.OutputType().IsExactType(cel.BoolType) && !ast.OutputType().IsExactType(cel.DynType) {
		return &predicate{}, fmt.Errorf("gives %s, want true or false", ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit))
	if err != nil {
		return &predicate{}, err
	}
	return &predicate{program: program}, nil
}

// holds evaluates the predicate; whatever fails answers otherwise: false for an allow side, true for a deny side.
func (p *predicate) holds(in *Input, otherwise bool) bool {
	if p.program == nil {
		return otherwise
	}
	traits := map[string]any{}
	for k, v := range in.Identity.Traits {
		traits[k] = v
	}
	out, _, err := p.program.Eval(map[string]any{
		"user": map[string]any{
			"name": in.Identity.Name, "roles": in.Identity.Roles, "kind": string(in.Identity.Kind), "traits": traits,
		},
		"resource": in.Target.Object,
	})
	if err != nil {
		return otherwise
	}
	b, ok := out.Value().(bool)
	if !ok {
		return otherwise
	}
	return b
}

// Query is a predicate over what a listing shows, `resource.name` and `resource.labels`, that a person asks with. It
// narrows a listing and never widens it; what it cannot be asked of does not match.
type Query struct{ predicate *predicate }

// ParseQuery compiles a query; an empty one matches everything.
func ParseQuery(text string) (Query, error) {
	if text == "" {
		return Query{}, nil
	}
	p, err := compilePredicate(text)
	return Query{p}, err
}

// MatchesObject reports whether the query holds for an object.
func (q Query) MatchesObject(object map[string]any) bool {
	return q.predicate == nil || q.predicate.holds(&Input{Identity: &identity.User{}, Target: target.Target{Object: object}}, false)
}

// Matches reports whether the query holds for a target.
func (q Query) Matches(t target.Target) bool {
	if q.predicate == nil {
		return true
	}
	labels := map[string]any{}
	for k, v := range t.Labels {
		labels[k] = v
	}
	t.Object = map[string]any{"kind": string(t.Kind), "name": t.Name, "id": t.ID, "labels": labels}
	return q.predicate.holds(&Input{Identity: &identity.User{}, Target: t}, false)
}
