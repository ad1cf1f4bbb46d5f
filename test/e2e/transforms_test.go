package e2e

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/stage"
)

const transformingNode = `apiVersion: chaperone.dev/v1alpha1
kind: Node
metadata: {name: stage}
spec:
  cgroup: "{{cgroup}}"
  pinDir: "{{pins}}"
  runDir: "{{dir}}/run"
  keys: {masks: {file: "{{dir}}/masks.key"}}
`

const transformingMask = `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.customers.name", with: {fixed: "n/a"}}
    - {match: "public.customers.email", with: {hmac: masks}}
    - {match: "public.customers.id", with: {hmac: masks}}
    - {match: "public.orders.customer", with: {hmac: masks}}
    - {match: "public.customers.card_number", with: {formatPreserving: masks}}
    - {match: "public.orders.amount", with: {formatPreserving: masks}}
    - {match: "public.customers.ssn", with: {truncate: year}}
  detect: [payment-card, phone]
`

// Transforms by the name of a key of the Node document: codes join, formats stay.
func TestMasksTransform(t *testing.T) {
	w := setUp(t, stage.Options{Documents: map[string]string{"node.yaml": transformingNode, "mask.yaml": transformingMask}})
	if err := os.WriteFile(w.Path("masks.key"), []byte("sixteen bytes and more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(sql string) []string {
		t.Helper()
		r := w.psql(sql, "-A", "-t")
		r.want(t, 0)
		return strings.Split(strings.TrimSpace(r.out), "\n")
	}
	rows := ask("SELECT name, email, card_number, ssn FROM customers")
	form := regexp.MustCompile(`^n/a\|[0-9a-f]{32}\|[0-9]{15,16}\|\[redacted\]$`)
	for _, row := range rows {
		if !form.MatchString(row) || strings.Contains(row, "4111111111111111") {
			t.Errorf("a row is %q", row)
		}
	}
	if again := ask("SELECT name, email, card_number, ssn FROM customers"); !slices.Equal(rows, again) {
		t.Errorf("%q, then %q", rows, again)
	}
	ids := ask("SELECT id FROM customers")
	for _, code := range ask("SELECT customer FROM orders") {
		if !slices.Contains(ids, code) {
			t.Errorf("an order's customer %q is none of %q", code, ids)
		}
	}
	if slices.Contains(ids, "1") && slices.Contains(ids, "2") {
		t.Errorf("ids in clear: %q", ids)
	}
	for _, amount := range ask("SELECT amount FROM orders") {
		if !regexp.MustCompile(`^[1-9][0-9]?\.[0-9]{2}$`).MatchString(amount) || amount == "99.50" {
			t.Errorf("an amount is %q", amount)
		}
	}
	if got := ask("SELECT upper(name), 'call +49 731 1234567' FROM customers"); got[0] != "[redacted]|call [phone]" {
		t.Errorf("computed, and found: %q", got)
	}
}
