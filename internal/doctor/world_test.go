package doctor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/lab"
)

const (
	dbName    = "orders.db.internal"
	dbAddress = "10.20.0.5"
)

func TestMain(m *testing.M) {
	if err := lab.Isolate(lab.Namespace{Hosts: map[string]string{dbName: dbAddress}}); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root, to make namespaces, and to load kernel programs:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// world is all that a good set of documents names, running.
type world struct {
	dir    string
	idp    *httptest.Server
	skew   time.Duration // of what the issuer says that the time is
	nats   *bus.Server
	cgroup string
	pins   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.cgroup = fmt.Sprintf("chaperone-doctor-%d", os.Getpid()) // never made
	w.pins = filepath.Join("/sys/fs/bpf", w.cgroup)
	ca := newAuthority(t, "ca.pem", w)
	newAuthority(t, "other-ca.pem", w)
	w.startPostgres(t, 5432, ca.issue(t, time.Hour*24*90, dbName))
	w.startIDP(t, ca.issue(t, time.Hour*24*90, "127.0.0.1"))
	var err error
	w.nats, err = bus.Embedded(t.Context(), bus.Options{Dir: w.path("bus"), Cluster: "c1", Node: "n1", Listen: "127.0.0.1:0", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.nats.Shutdown)
	w.write(t, "admin.dsn", "host=orders.db.internal", 0o600)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.path(name), mode); err != nil {
		t.Fatal(err)
	}
}

func (w *world) startPostgres(t *testing.T, port int, certificate *lab.KeyPair) {
	t.Helper()
	server, err := lab.StartPostgres(t.Context(), lab.PostgresOptions{Listen: []string{dbAddress}, Port: port, TLS: certificate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// startIDP starts a real OpenID provider.
func (w *world) startIDP(t *testing.T, certificate *lab.KeyPair) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	issuer := "https://" + listener.Addr().String()
	provider, err := op.NewProvider(&op.Config{}, storage.NewStorage(storage.NewUserStore(issuer)), op.StaticIssuer(issuer),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := certificate.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	w.idp = &httptest.Server{Listener: listener, Config: &http.Server{
		ErrorLog: log.New(new(bytes.Buffer), "", 0), // refused handshakes
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Date", time.Now().Add(w.skew).UTC().Format(http.TimeFormat))
			provider.ServeHTTP(rw, r)
		}),
	}}
	w.idp.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	w.idp.StartTLS()
	t.Cleanup(w.idp.Close)
	w.idp.URL = issuer
}

// documents are good ones. Of each pair in changes the first text, which must
// be there, is replaced by the second.
func (w *world) documents(t *testing.T, changes ...string) string {
	t.Helper()
	text := strings.NewReplacer("{{dir}}", w.dir, "{{cgroup}}", w.cgroup, "{{pins}}", w.pins, "{{nats}}", w.nats.URL(),
		"{{nkey}}", bus.SeedFile(w.path("bus"), bus.RoleNode), "{{idp}}", w.idp.URL).Replace(goodDocuments)
	for i := 0; i+1 < len(changes); i += 2 {
		from := strings.NewReplacer("{{nats}}", w.nats.URL(), "{{idp}}", w.idp.URL, "{{dir}}", w.dir).Replace(changes[i])
		to := strings.ReplaceAll(changes[i+1], "{{dir}}", w.dir)
		if !strings.Contains(text, from) {
			t.Fatalf("the documents hold no %q", from)
		}
		text = strings.Replace(text, from, to, 1)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const goodDocuments = `apiVersion: chaperone.dev/v1alpha1
kind: Node
metadata: {name: n1}
spec:
  cluster: c1
  cgroup: "{{cgroup}}"
  pinDir: "{{pins}}"
  listenPort: 15001
  runDir: "{{dir}}/run"
  journal: {maxBytes: 16MiB}
  nats: {url: "{{nats}}", nkeyFile: "{{nkey}}"}
---
apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db}
spec:
  protocol: postgres
  hosts: ["orders.db.internal:5432"]
  tls: {mode: verify-full, caFile: "{{dir}}/ca.pem"}
  credential: {postgresRole: {adminFrom: {file: "{{dir}}/admin.dsn"}}}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec:
  issuer: "{{idp}}"
  audiences: [chaperone]
  caFile: "{{dir}}/ca.pem"
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly}
spec: {select: {run: {name: "nightly-*"}}, identity: {issuer: corp-idp}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {subjects: ["*"]}
  targets: [orders-db]
  rules: [{name: read, when: "statement.readOnly", then: allow}]
`

// diagnose makes some of the checks, in the order in which they are named.
func diagnose(t *testing.T, opts Options, names ...string) map[string]Result {
	t.Helper()
	s, err := newSubject(opts)
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]Result{}
	for _, name := range names {
		for _, c := range s.checks() {
			if c.name == name {
				results[name] = s.make(t.Context(), c)
			}
		}
		if _, made := results[name]; !made {
			t.Fatalf("there is no check %q", name)
		}
	}
	return results
}

func (w *world) diagnose(t *testing.T, config string, names ...string) map[string]Result {
	t.Helper()
	return diagnose(t, Options{Config: config, State: w.path("state"), Timeout: 5 * time.Second}, names...)
}

// want fails the test unless a result has the status, and says the text.
func want(t *testing.T, r Result, status Status, text, do string) {
	t.Helper()
	if r.Status != status || !strings.Contains(r.Found+"; "+r.Missing, text) || !strings.Contains(r.Do, do) {
		t.Errorf("%q: %s\nfound %q\nmissing %q\ndo %q\nwant %s, %q, do %q", r.Check, r.Status, r.Found, r.Missing, r.Do, status, text, do)
	}
}

// authority is a CA whose certificates end when a test says.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, file string, w *world) *authority {
	t.Helper()
	a := &authority{}
	var encoded []byte
	a.certificate, a.key, encoded = certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "doctor's CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(365 * 24 * time.Hour),
	}, nil)
	w.write(t, file, string(encoded), 0o644)
	return a
}

// issue makes a certificate that ends after a time, which may be negative.
func (a *authority) issue(t *testing.T, after time.Duration, name string) *lab.KeyPair {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotAfter: time.Now().Add(after),
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	_, key, encoded := certificate(t, template, a)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &lab.KeyPair{CertPEM: encoded, KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

func certificate(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-100 * 24 * time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
