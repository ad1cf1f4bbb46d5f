package identity

import (
	"fmt"
	"os/user"
	"slices"
	"strconv"

	"chaperone.dev/chaperone/pkg/policy"
)

// Local is the principal of a local user, as the user database has it: the
// user's name, and the names of its groups. A uid without a name is an error,
// for a rule can't speak of it.
func Local(uid uint32) (policy.Principal, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return policy.Principal{}, fmt.Errorf("local user %d: %w", uid, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return policy.Principal{}, fmt.Errorf("groups of local user %s: %w", u.Username, err)
	}
	p := policy.Principal{Subject: u.Username, Issuer: policy.LocalIssuer}
	for _, id := range ids {
		// A group without a name has nothing that a rule could match.
		if g, err := user.LookupGroupId(id); err == nil {
			p.Groups = append(p.Groups, g.Name)
		}
	}
	slices.Sort(p.Groups)
	p.Groups = slices.Compact(p.Groups)
	return p, nil
}
