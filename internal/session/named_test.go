package session

import (
	"testing"

	"chaperone.dev/chaperone/internal/pgsql"
)

func TestNamesStandForWhatTheServerHas(t *testing.T) {
	p := namedKey{name: "p"}
	n := newNames()
	send := func() *named {
		t.Helper()
		e := &named{}
		if err := n.send(p, e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	want := func(when string, now, last *named, settled bool) {
		t.Helper()
		if got := n.now(p); got != now {
			t.Errorf("%s: the server has %+v, want %+v", when, got, now)
		}
		if got, ok := n.last(p); got != last || ok != settled {
			t.Errorf("%s: what was sent last is %+v (%v), want %+v (%v)", when, got, ok, last, settled)
		}
	}
	made := func(e *named) effect { return effect{kind: effectMake, key: p, made: e} }

	want("at first", nil, nil, false)
	a := send()
	want("sent", nil, a, false)
	n.came(made(a), true)
	want("made", a, a, true)
	b := send() // fails, since p exists
	want("another on its way", a, b, false)
	n.came(made(b), false)
	want("the other failed", a, a, true)
	n.came(effect{kind: effectClose, key: p}, false)
	want("not closed", a, a, true)

	c := send() // behind a DEALLOCATE that is on its way
	n.came(effect{kind: effectClose, key: p}, true)
	want("closed", nil, c, false)
	n.came(made(c), true)
	want("made anew", c, c, true)

	n.forget(p) // a Close or Parse message of that name
	want("voided", nil, nil, false)
	d := send()
	n.came(made(c), true)
	want("an older one comes true late", nil, d, false)
	n.came(made(d), true)
	want("made behind the message", d, d, true)
	n.forgetAll()
	want("all voided", nil, nil, false)

	e := send()
	n.came(made(e), true)
	n.came(effect{kind: effectCloseAll, key: namedKey{cursor: true}}, true)
	want("cursors closed", e, e, true)
	n.came(effect{kind: effectCloseAll}, true)
	want("statements closed", nil, nil, false)
	f := send()
	n.came(made(f), true)
	n.came(effect{kind: effectDiscard}, true)
	want("all discarded", nil, nil, false)
	if len(n.sent)+len(n.known)+len(n.void) > 0 {
		t.Errorf("%d, %d, %d names are remembered", len(n.sent), len(n.known), len(n.void))
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := newNames()
	for i := range maxNamed {
		if err := n.send(namedKey{name: string(rune('a' + i))}, &named{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.send(namedKey{name: "one more"}, &named{}); err == nil {
		t.Error("a session may have any number")
	}
	if err := n.send(namedKey{name: "a"}, &named{}); err != nil {
		t.Errorf("a name that is known: %v", err)
	}
}

func TestEffectsOnNames(t *testing.T) {
	parser := pgsql.NewParser(pgsql.Options{})
	for sql, want := range map[string]effect{
		"DECLARE c CURSOR FOR SELECT 1":               {kind: effectMake, key: namedKey{true, "c"}},
		"DECLARE \"C\" CURSOR WITH HOLD FOR SELECT 1": {kind: effectMake, key: namedKey{true, "C"}},
		"PREPARE p (int) AS SELECT $1":                {kind: effectMake, key: namedKey{false, "p"}},
		"CLOSE c":                                     {kind: effectClose, key: namedKey{true, "c"}},
		"CLOSE ALL":                                   {kind: effectCloseAll, key: namedKey{cursor: true}},
		"DEALLOCATE PREPARE p":                        {kind: effectClose, key: namedKey{false, "p"}},
		"DEALLOCATE ALL":                              {kind: effectCloseAll},
		"DISCARD ALL":                                 {kind: effectDiscard},
		"DISCARD PLANS":                               {},
		"FETCH ALL FROM c":                            {},
		"SELECT 1":                                    {},
	} {
		q, err := parser.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		if got := effectOf(q.Statements[0]); got != want {
			t.Errorf("%s: %+v", sql, got)
		}
	}
}
