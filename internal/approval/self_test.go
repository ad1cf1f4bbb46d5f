package approval

import (
	"errors"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// One issuer may be called by several names, in one folder or in the sink's and a node's.
func TestNobodyAnswersForThemselvesUnderAnotherName(t *testing.T) {
	const issuer = "https://idp.corp.example"
	r := Request{
		Principal: event.Principal{Subject: "ana", Issuer: "jobs"}, IssuerURL: issuer,
		From: policy.PrincipalSelect{Subjects: []string{"*"}}, Created: time.Now(),
	}
	for _, test := range []struct {
		name string
		by   Person
		want error
	}{
		{"the same name", Person{Subject: "ana", Issuer: "jobs"}, ErrSelf},
		{"another name of the issuer", Person{Subject: "ana", Issuer: "corp-idp", IssuerURL: issuer}, ErrSelf},
		{"another issuer", Person{Subject: "ana", Issuer: "partner", IssuerURL: "https://idp.partner.example"}, nil},
		{"somebody else", Person{Subject: "bob", Issuer: "corp-idp", IssuerURL: issuer}, nil},
	} {
		if err := MayAnswer(r, test.by, r.Created); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	// Nor do they count twice.
	r.Principal.Subject, r.Count, r.Expires = "job", 2, r.Created.Add(time.Hour)
	vote := func(p Person) Vote {
		return Vote{Verdict: Yes, By: p, At: r.Created, Until: r.Expires}
	}
	votes := []Vote{vote(Person{Subject: "ana", Issuer: "jobs", IssuerURL: issuer}), vote(Person{Subject: "ana", Issuer: "corp-idp", IssuerURL: issuer})}
	if state, _ := Decide(r, votes, r.Created); state != StatePending {
		t.Errorf("one person under two names made it %s", state)
	}
}
