package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

// Bound.Decide knows short ways to an answer, and Bound.Explain takes none:
// whatever the rules and the facts, both say the same.

// dice are choices: of a fuzzer, or at random.
type dice func(sides int) int

func pick[T any](d dice, from ...T) T { return from[d(len(from))] }

func randomDice(seed uint64) dice {
	return rand.New(rand.NewPCG(seed, 1)).IntN
}

func dataDice(data []byte) dice {
	return func(sides int) int {
		if len(data) == 0 {
			return 0
		}
		v := int(data[0])
		data = data[1:]
		return v % sides
	}
}

// expression writes a condition about statements.
func (d dice) expression(depth int) string {
	if depth == 0 {
		return d.atom()
	}
	sub := func() string { return d.expression(depth - 1) }
	switch d(8) {
	case 0, 1, 2:
		return sub() + " && " + sub()
	case 3:
		return "(" + sub() + " || " + sub() + ")"
	case 4:
		return "!(" + sub() + ")"
	case 5:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	}
	return d.atom()
}

func (d dice) atom() string {
	texts := func() string {
		return pick(d, "statement.kind", "workload.name", "principal.subject", "target.host", "statement.text", "'SELECT'", "'a'", "'job'")
	}
	list := func() string { return pick(d, "statement.tables", "statement.functions", "principal.groups") }
	switch d(13) {
	case 0:
		return pick(d, "statement.readOnly", "statement.ddl", "statement.multi", "true", "false")
	case 1:
		return pick(d, "statement.kind", "target.name") + pick(d, " == ", " != ") + pick(d, "'SELECT'", "'DELETE'", "'orders-db'", "''")
	case 2:
		return pick(d, "'SELECT'", "'a'") + " == " + texts()
	case 3:
		return texts() + pick(d, " == ", " != ", " < ") + texts()
	case 4:
		return "statement.kind in " + pick(d, "['SELECT', 'DELETE', 'SELECT']", "[]", "['DROP']", "statement.tables", "principal.groups")
	case 5:
		return pick(d, "'a'", "'b'", "'planners'", "statement.kind") + " in " + list()
	case 6:
		return texts() + pick(d, ".startsWith(", ".endsWith(", ".contains(") + texts() + ")"
	case 7:
		return pick(d, "workload.uid", "target.port", "session.rows") + pick(d, " == ", " != ", " < ", " <= ", " > ", " >= ") + pick(d, "0", "1", "5432", "-1")
	case 8:
		return "statement.tables." + pick(d, "exists", "all") + "(t, t " + pick(d, "== 'a'", "!= 'b'", "in principal.groups") + ")"
	case 9:
		return pick(d, "principal.claims.team == 'x'", "principal.claims.none == 'x'", "has(principal.claims.none)", "target.labels.tier == 'prod'", "target.labels['none'] == ''")
	case 10:
		return pick(d, "size(statement.tables) > 1", "now.getHours() < 7", "session.age > duration('1m')", "1 / statement.tables.size() > 0")
	case 11:
		return "dyn(statement)." + pick(d, "readOnly == true", "kind == 'SELECT'", "none == 1")
	}
	return "statement." + pick(d, "hasWhere", "readOnly") + pick(d, " == true", " != false")
}

func (d dice) documents() string {
	documents := []string{aTarget}
	for p := range 1 + d(4) {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: %s\nkind: Policy\nmetadata: {name: p%d}\nspec:\n  principals: {groups: [%s]}\n  targets: [orders-db]\n  enforce: %s\n  rules:\n",
			policy.APIVersion, p, pick(d, "planners", "planners", "planners", "dba"), pick(d, "on", "on", "shadow"))
		for r := range 1 + d(5) {
			action := pick(d, "allow", "allow", "approve", "deny")
			fmt.Fprintf(&b, "    - {name: r%d, then: %s, when: %q", r, action, d.expression(d(3)))
			if action == "approve" {
				b.WriteString(", approval: {from: {groups: [dba]}" + pick(d, "", ", per: session", ", per: command") + "}")
			}
			b.WriteString("}\n")
		}
		documents = append(documents, b.String())
	}
	return stream(documents...)
}

func (d dice) statement() *policy.Statement {
	st := &policy.Statement{
		Text: pick(d, "SELECT a", "DELETE FROM b", ""), Kind: pick(d, "SELECT", "DELETE", "DROP", ""),
		ReadOnly: d(2) == 0, DDL: d(2) == 0, HasWhere: d(2) == 0, Multi: d(2) == 0,
	}
	for range d(4) {
		st.Tables = append(st.Tables, pick(d, "a", "b", "planners", "SELECT"))
	}
	return st
}

func agree(t *testing.T, d dice) {
	t.Helper()
	text := d.documents()
	set, err := policy.Parse("made.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	who := planner
	who.Claims = map[string]any{"team": pick(d, "x", "y")}
	bound := set.Bind(who, job, orders)
	sess := policy.SessionFacts{Rows: int64(d(3))}
	for i := range 4 {
		var asked policy.Asked
		if i > 0 {
			asked.Statement = d.statement()
		}
		got := bound.Decide(noon, sess, asked)
		explained, results := bound.ExplainAsked(noon, sess, asked)
		if diff := cmp.Diff(explained, got); diff != "" {
			t.Fatalf("%+v is decided otherwise than explained (-explained +decided):\n%s\n%+v\n%s", asked.Statement, diff, results, text)
		}
	}
}

func TestDecideAgreesWithExplain(t *testing.T) {
	for seed := range uint64(250) {
		agree(t, randomDice(seed))
	}
}

func FuzzDecideAgreesWithExplain(f *testing.F) {
	f.Add([]byte("deny over approve over allow"))
	f.Add([]byte{3, 0, 0, 4, 2, 2, 0, 1, 4, 5, 7, 12, 9, 3, 1, 8, 2, 0, 6, 11})
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, dataDice(data)) })
}
