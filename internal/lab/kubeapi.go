package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// KubeAPIOptions say what API server to start. The zero value starts one on a
// free port of 127.0.0.1.
type KubeAPIOptions struct {
	// Dir is the folder of the servers, made if need be; it stays after Stop.
	// Empty: a fresh one in the system's temporary folder, gone after Stop.
	Dir string
	// Port is the one that the API server listens on; 0 takes a free one.
	Port int
	// Names are further names and addresses that its certificate is for.
	Names []string
	// Flags are further flags of kube-apiserver.
	Flags []string
	// Log receives the log of etcd and kube-apiserver, from one goroutine
	// each: writes may come at the same time. May be nil.
	Log io.Writer
}

// KubeAPI is a Kubernetes API server with its etcd, and nothing else of a
// cluster: no controller makes a namespace's default service account, no
// scheduler binds a pod, no kubelet runs one. RBAC decides on requests. It
// dies with the process that started it. Methods must not be called at the
// same time as Halt, Start or Stop.
type KubeAPI struct {
	options KubeAPIOptions
	bin     string
	dir     string
	ownDir  bool
	ca      *CA
	token   string
	etcd    *daemon
	server  *daemon // nil while halted
}

// StartKubeAPI makes an API server and returns when it is ready. ctx bounds the
// start, not the server's life. It needs Debian's etcd-server, and what
// tools/kube.sh builds.
func StartKubeAPI(ctx context.Context, options KubeAPIOptions) (_ *KubeAPI, err error) {
	k := &KubeAPI{options: options, dir: options.Dir, token: rand.Text()}
	if k.bin, err = findKube(); err != nil {
		return nil, err
	}
	if k.dir == "" {
		if k.dir, err = os.MkdirTemp("", "chaperone-lab-kube-"); err != nil {
			return nil, fmt.Errorf("kube-apiserver folder: %w", err)
		}
		k.ownDir = true
	}
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err = errors.Join(err, k.Stop(stop))
		}
	}()
	if err := k.writeFiles(); err != nil {
		return nil, fmt.Errorf("kube-apiserver files: %w", err)
	}
	if err := k.startEtcd(ctx); err != nil {
		return nil, err
	}
	if err := k.Start(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Addr is the host and port that the API server listens on.
func (k *KubeAPI) Addr() string { return net.JoinHostPort(loopback, strconv.Itoa(k.options.Port)) }

// CA is the authority that signed the API server's certificate.
func (k *KubeAPI) CA() *CA { return k.ca }

// AdminToken is the bearer token of a user who may do everything.
func (k *KubeAPI) AdminToken() string { return k.token }

// AdminKubeconfig is a kubeconfig file of that user.
func (k *KubeAPI) AdminKubeconfig() string { return k.file("admin.kubeconfig") }

// WriteKubeconfig writes a kubeconfig file for a bearer token. addr is where
// the API server is reached; empty means where it is. The file goes with Stop
// when the folder does.
func (k *KubeAPI) WriteKubeconfig(name, addr, token string) (string, error) {
	if addr == "" {
		addr = k.Addr()
	}
	path := k.file(name + ".kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster: {server: "https://%s", certificate-authority-data: %s}
contexts:
- name: lab
  context: {cluster: lab, user: lab}
users:
- name: lab
  user: {token: %q}
`, addr, base64.StdEncoding.EncodeToString(k.ca.PEM()), token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("kubeconfig of %s: %w", name, err)
	}
	return path, nil
}

// Kubectl runs kubectl as the user who may do everything, and returns what it
// prints.
func (k *KubeAPI) Kubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(k.bin, "kubectl"), arguments...)
	cmd.Env = []string{"HOME=" + k.dir, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + k.AdminKubeconfig()}
	cmd.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	cmd.Stderr = &said
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// ServiceAccountToken asks the API server for a token of a service account.
func (k *KubeAPI) ServiceAccountToken(ctx context.Context, namespace, name string) (string, error) {
	token, err := k.Kubectl(ctx, "", "create", "token", "--namespace", namespace, name)
	return strings.TrimSpace(token), err
}

// Halt kills the API server and keeps etcd, its data and the port, for
// [KubeAPI.Start]. All that it was told is in etcd; asked to end, it would wait
// a minute for its watchers to leave.
func (k *KubeAPI) Halt() {
	if k.server != nil {
		k.server.kill()
		k.server = nil
	}
}

// Start starts the API server that was halted, at the same address, and
// returns when it is ready.
func (k *KubeAPI) Start(ctx context.Context) error {
	if k.server != nil {
		return errors.New("kube-apiserver runs already")
	}
	// A free port may be taken by somebody else between looking and
	// listening; only then another one is tried.
	const attempts = 5
	fixed := k.options.Port != 0
	for i := 1; ; i++ {
		if !fixed {
			port, err := FreePort(ctx, loopback)
			if err != nil {
				return err
			}
			k.options.Port = port
		}
		taken, err := k.launch(ctx)
		if err == nil {
			break
		}
		if !taken || fixed || i == attempts {
			return err
		}
	}
	_, err := k.WriteKubeconfig("admin", "", k.token)
	return err
}

// Stop ends the servers and removes their folder, unless the folder was given.
// When ctx ends first etcd is killed too.
func (k *KubeAPI) Stop(ctx context.Context) error {
	k.Halt()
	var err error
	if k.etcd != nil {
		err = k.etcd.stop(ctx)
		k.etcd = nil
	}
	if k.ownDir {
		err = errors.Join(err, os.RemoveAll(k.dir))
	}
	return err
}

const (
	loopback = "127.0.0.1"
	// The socket of etcd, in the folder that both servers work in. etcd 3.4
	// takes no path, and a name only when it looks like a port's.
	etcdSocket = "etcd:1"
)

func (k *KubeAPI) file(name string) string { return filepath.Join(k.dir, name) }

func (k *KubeAPI) writeFiles() (err error) {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if k.ca, err = NewCA(); err != nil {
		return err
	}
	serving, err := k.ca.Issue(append([]string{loopback, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, k.options.Names...)...)
	if err != nil {
		return err
	}
	// Service accounts' tokens are signed with this one.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"server.crt": serving.CertPEM,
		"server.key": serving.KeyPEM,
		"tokens.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		"tokens.csv": []byte(k.token + `,admin,admin,"system:masters"` + "\n"),
	} {
		if err := os.WriteFile(k.file(name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startEtcd runs etcd behind unix sockets in the servers' folder, where nobody
// else gets at it.
func (k *KubeAPI) startEtcd(ctx context.Context) (err error) {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return fmt.Errorf("etcd isn't installed (Debian: etcd-server): %w", err)
	}
	const client, peer = "unix://" + etcdSocket, "unix://peer:1"
	k.etcd, err = startDaemon("etcd", k.dir, k.options.Log, path,
		"--name=lab", "--data-dir="+k.file("etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=lab="+peer)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", k.file(etcdSocket))
	}}
	return k.etcd.ready(ctx, transport, "http://etcd/health", "")
}

// launch starts kube-apiserver and waits until it is ready.
func (k *KubeAPI) launch(ctx context.Context) (taken bool, err error) {
	k.server, err = startDaemon("kube-apiserver", k.dir, k.options.Log, filepath.Join(k.bin, "kube-apiserver"), append([]string{
		"--etcd-servers=unix://" + etcdSocket,
		"--bind-address=" + loopback, "--secure-port=" + strconv.Itoa(k.options.Port),
		"--advertise-address=" + loopback, "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file=" + k.file("server.crt"), "--tls-private-key-file=" + k.file("server.key"),
		"--token-auth-file=" + k.file("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + k.file("tokens.key"), "--service-account-signing-key-file=" + k.file("tokens.key"),
	}, k.options.Flags...)...)
	if err != nil {
		return false, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: k.ca.Pool()}}
	readyz := url.URL{Scheme: "https", Host: k.Addr(), Path: "/readyz"}
	if err := k.server.ready(ctx, transport, readyz.String(), k.token); err != nil {
		taken := k.server.log.saw("address already in use")
		k.Halt()
		return taken, err
	}
	return false, nil
}
