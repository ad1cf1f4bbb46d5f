package policy

import "time"

// Node holds the settings of a node's daemon. A set has at most one; without
// it every setting has its default.
type Node struct {
	// Metadata.Name is the node's name in events. It alone may be left out:
	// the daemon then uses the host's name, so that one folder serves many
	// nodes.
	Metadata Metadata `json:"metadata" yaml:"metadata"`
	Spec     NodeSpec `json:"spec" yaml:"spec"`
}

// NodeSpec is the body of a Node document.
type NodeSpec struct {
	// Cluster is the name of the group of nodes in events (default "default").
	Cluster string `json:"cluster,omitempty" yaml:"cluster,omitempty"`
	// Cgroup is the ancestor below which planners live, relative to the
	// cgroup v2 mount (default "chaperone").
	Cgroup string `json:"cgroup,omitempty" yaml:"cgroup,omitempty"`
	// PinDir is where programs, maps and links are pinned in bpffs (default
	// /sys/fs/bpf/chaperone).
	PinDir string `json:"pinDir,omitempty" yaml:"pinDir,omitempty"`
	// ListenPort is the loopback TCP port that connections are diverted to
	// (default 15001).
	ListenPort int `json:"listenPort,omitempty" yaml:"listenPort,omitempty"`
	// Belt is who is kept from targets: BeltPlanners (the default) or BeltNode.
	Belt string `json:"belt,omitempty" yaml:"belt,omitempty"`
	// Exempt are cgroups, relative to the mount, that BeltNode lets reach
	// targets all the same, such as "system.slice/kubelet.service".
	Exempt []string `json:"exempt,omitempty" yaml:"exempt,omitempty"`
	// DNS is how planners' names are resolved.
	DNS DNSSpec `json:"dns,omitzero" yaml:"dns,omitempty"`
	// Kubernetes is needed where Workload documents select pods.
	Kubernetes *NodeKubernetesSpec `json:"kubernetes,omitempty" yaml:"kubernetes,omitempty"`
	// RunDir holds the control socket (default /run/chaperone).
	RunDir  string      `json:"runDir,omitempty" yaml:"runDir,omitempty"`
	Limits  LimitsSpec  `json:"limits,omitzero" yaml:"limits,omitempty"`
	Journal JournalSpec `json:"journal,omitzero" yaml:"journal,omitempty"`
	// NATS is where events and recordings go. Without it the node publishes
	// nowhere but to the server inside its own process, if it runs one.
	NATS NATSSpec `json:"nats,omitzero" yaml:"nats,omitempty"`
	// Authority is whose word counts for approvals, locks and published documents.
	Authority AuthoritySpec `json:"authority,omitzero" yaml:"authority,omitempty"`
	// Documents says where documents come from besides the folder.
	Documents DocumentsSpec `json:"documents,omitzero" yaml:"documents,omitempty"`
	// Keys are secrets that masks name, such as those of hmac.
	Keys map[string]SecretSource `json:"keys,omitempty" yaml:"keys,omitempty"`
}

// AuthoritySpec names the sinks that may sign decisions.
type AuthoritySpec struct {
	// Keys are Ed25519 public keys in base64, as "chaperone-sink key" prints
	// them. A node whose sink runs in the same process knows its key without.
	Keys []string `json:"keys,omitempty" yaml:"keys,omitempty"`
}

// DocumentsSpec says where documents come from besides the folder.
type DocumentsSpec struct {
	// Published takes the Target, Workload, IdentityProvider, Policy and Mask
	// documents that "chaperone policy publish" put into NATS, signed by the authority,
	// beside those of the folder. The Node and Sink documents stay the folder's.
	Published bool `json:"published,omitempty" yaml:"published,omitempty"`
}

// The values of NodeSpec.Belt.
const (
	// BeltPlanners keeps planners, and cgroups below the ancestor that are not
	// known yet, from targets. What is known to be no planner goes its way.
	BeltPlanners = "planners"
	// BeltNode keeps everything on the node from targets but the daemon and what
	// is exempt: for nodes that run planners and nothing else.
	BeltNode = "node"
)

// DNSSpec says who answers planners' DNS.
type DNSSpec struct {
	// Servers are "address" or "address:port"; empty means those of the node's
	// /etc/resolv.conf.
	Servers []string `json:"servers,omitempty" yaml:"servers,omitempty"`
}

// NodeKubernetesSpec says how the node learns of its pods.
type NodeKubernetesSpec struct {
	// Kubeconfig is a file; empty means the service account of the daemon's own pod.
	Kubeconfig string `json:"kubeconfig,omitempty" yaml:"kubeconfig,omitempty"`
	// NodeName is this node's name in the cluster; empty means the environment
	// variable NODE_NAME, else the host's name.
	NodeName string `json:"nodeName,omitempty" yaml:"nodeName,omitempty"`
}

// LimitsSpec bounds what a node takes on.
type LimitsSpec struct {
	// Sessions is how many may be open at once (default 1000).
	Sessions int `json:"sessions,omitempty" yaml:"sessions,omitempty"`
	// SessionsPerJob is how many of them one job may have (default 100, or
	// Sessions where that is less).
	SessionsPerJob int `json:"sessionsPerJob,omitempty" yaml:"sessionsPerJob,omitempty"`
	// ConnectTimeout bounds reaching and entering the target (default 10s).
	ConnectTimeout Duration `json:"connectTimeout,omitempty" yaml:"connectTimeout,omitempty"`
	// Approvals is how many requests may wait for people at once (default 200).
	Approvals int `json:"approvals,omitempty" yaml:"approvals,omitempty"`
	// ApprovalsPerJob is how many of them may be one job's (default 10, or
	// Approvals where that is less).
	ApprovalsPerJob int `json:"approvalsPerJob,omitempty" yaml:"approvalsPerJob,omitempty"`
}

// JournalSpec bounds the queue of what was recorded and not yet published.
type JournalSpec struct {
	// MaxBytes is its size on disk (default 1GiB, at least 16MiB). When it is
	// full, new commands are refused.
	MaxBytes Size `json:"maxBytes,omitempty" yaml:"maxBytes,omitempty"`
}

// NATSSpec says how to reach the NATS servers.
type NATSSpec struct {
	// URL is one address or several, separated by commas. It holds no
	// credential.
	URL string `json:"url,omitempty" yaml:"url,omitempty"`
	// CredsFile or NKeyFile is the node's credential; at most one is set.
	CredsFile string `json:"credsFile,omitempty" yaml:"credsFile,omitempty"`
	NKeyFile  string `json:"nkeyFile,omitempty" yaml:"nkeyFile,omitempty"`
	// CAFile holds the PEM certificates to trust; empty means the system's.
	CAFile string `json:"caFile,omitempty" yaml:"caFile,omitempty"`
}

func (n *NodeSpec) setDefaults() {
	setDefault(&n.Cluster, "default")
	setDefault(&n.Cgroup, "chaperone")
	setDefault(&n.PinDir, "/sys/fs/bpf/chaperone")
	setDefault(&n.ListenPort, 15001)
	setDefault(&n.Belt, BeltPlanners)
	setDefault(&n.RunDir, "/run/chaperone")
	setDefault(&n.Limits.Sessions, 1000)
	setDefault(&n.Limits.SessionsPerJob, min(100, n.Limits.Sessions))
	setDefault(&n.Limits.ConnectTimeout, Duration(10*time.Second))
	setDefault(&n.Limits.Approvals, 200)
	setDefault(&n.Limits.ApprovalsPerJob, min(10, n.Limits.Approvals))
	setDefault(&n.Journal.MaxBytes, 1<<30)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
