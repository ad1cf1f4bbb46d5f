package policy_test

import (
	"net/netip"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

// What is refused is shown with the documents.
func TestParseHost(t *testing.T) {
	prefix := netip.MustParsePrefix
	for text, want := range map[string]policy.Host{
		"orders.db.example:5432":    {Name: "orders.db.example", Port: 5432},
		"Orders.DB.Example:1":       {Name: "orders.db.example", Port: 1},
		"localhost:65535":           {Name: "localhost", Port: 65535},
		"my_db:5432":                {Name: "my_db", Port: 5432},
		"192.0.2.1:5432":            {Prefix: prefix("192.0.2.1/32"), Port: 5432},
		"192.0.2.0/24:5432":         {Prefix: prefix("192.0.2.0/24"), Port: 5432},
		"[2001:db8::1]:5432":        {Prefix: prefix("2001:db8::1/128"), Port: 5432},
		"[2001:db8::/32]:5432":      {Prefix: prefix("2001:db8::/32"), Port: 5432},
		"[2001:0DB8:0:0::0/32]:543": {Prefix: prefix("2001:db8::/32"), Port: 543},
	} {
		if got, err := policy.ParseHost(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
}
