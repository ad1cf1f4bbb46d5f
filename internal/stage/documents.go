package stage

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// Documents are the stage's, by file name.
func Documents() map[string]string {
	return map[string]string{
		"node.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Node
metadata: {name: stage}
spec:
  cgroup: "{{cgroup}}"
  pinDir: "{{pins}}"
  runDir: "{{dir}}/run"
`,
		"target.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  hosts: ["orders.db.internal:5432"]
  tls: {mode: verify-full, caFile: "{{dir}}/target-ca.pem"}
  credential:
    postgresRole:
      adminFrom: {file: "{{dir}}/orders-admin.dsn"}
      memberOf: [orders_reader]
      ttl: 15m
`,
		"workload.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly-planner}
spec:
  select:
    run: {name: "nightly-*"}
`,
		"policy.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
    - name: write-orders
      when: "statement.kind in ['INSERT', 'UPDATE', 'DELETE', 'COPY'] && statement.tables.all(t, t in ['orders', 'public.orders'])"
      then: allow
    - {name: no-ddl, when: "statement.ddl", then: deny, message: "schema changes go through migrations"}
  session: {maxDuration: 1h, record: durable}
`,
		"mask.yaml": `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.customers.card_number", with: {keepLast: 4}}
    - {match: "public.customers.ssn", with: redact}
  detect: [payment-card, email]
  untraceable: deny
`,
	}
}

// writeDocuments writes the stage's documents, with those of its options.
func (s *Stage) writeDocuments() error {
	documents := Documents()
	maps.Copy(documents, s.options.Documents)
	if err := os.MkdirAll(s.ConfigDir(), 0o755); err != nil {
		return err
	}
	for name, text := range documents {
		if text == "" {
			continue
		}
		if err := s.WriteDocument(name, text); err != nil {
			return err
		}
	}
	return nil
}

// ConfigDir is the documents' folder.
func (s *Stage) ConfigDir() string { return s.Path("config") }

// WriteDocument writes one document; "{{dir}}" stands for the stage's folder.
func (s *Stage) WriteDocument(name, text string) error {
	text = strings.NewReplacer(
		"{{dir}}", s.Dir, "{{pins}}", s.pinDir(), "{{cgroup}}", filepath.Base(s.cgroup.Path),
	).Replace(text)
	return os.WriteFile(filepath.Join(s.ConfigDir(), name), []byte(text), 0o644)
}

// fill makes the sample data, the role whose rights planners get, and the
// administrator that Chaperone mints with, who is no superuser.
func (s *Stage) fill(ctx context.Context) error {
	password := rand.Text()
	if err := s.Postgres.Exec(ctx, "postgres",
		"CREATE DATABASE "+Database,
		"CREATE ROLE orders_reader NOLOGIN",
		fmt.Sprintf("CREATE ROLE chaperone_admin LOGIN CREATEROLE PASSWORD '%s'", password),
		"GRANT orders_reader TO chaperone_admin WITH ADMIN OPTION",
		"GRANT pg_signal_backend TO chaperone_admin",
	); err != nil {
		return err
	}
	if err := s.Postgres.Exec(ctx, Database,
		`CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text, ssn text, card_number text)`,
		`INSERT INTO customers VALUES
		  (1, 'Ada Lovelace',  'ada@example.com',   '078-05-1120', '4111111111111111'),
		  (2, 'Alan Turing',   'alan@example.com',  '219-09-9999', '5500005555555559'),
		  (3, 'Grace Hopper',  'grace@example.com', '457-55-5462', '340000000000009')`,
		`CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, amount numeric(10,2), note text)`,
		`INSERT INTO orders (customer, amount, note) VALUES
		  (1, 99.50, 'first'), (1, 12.00, 'pay with 4111 1111 1111 1111 please'), (2, 5.25, NULL)`,
		`GRANT SELECT ON customers TO orders_reader`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO orders_reader`,
		`GRANT USAGE ON SEQUENCE orders_id_seq TO orders_reader`,
	); err != nil {
		return err
	}
	dsn := fmt.Sprintf("host=%s port=%d user=chaperone_admin password=%s dbname=%s sslmode=verify-full sslrootcert=%s",
		Host, Port, password, Database, s.Path("admin-ca.pem"))
	return os.WriteFile(s.Path("orders-admin.dsn"), []byte(dsn+"\n"), 0o600)
}
