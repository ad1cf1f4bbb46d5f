package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
)

func checkCgroup(context.Context, *subject) Result {
	root, err := intercept.CgroupRoot()
	if err != nil {
		return fail("", brief(err), "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or give the container the host's /sys/fs/cgroup")
	}
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return ok("cgroup v2 at " + root)
	}
	if len(strings.Fields(string(controllers))) > 0 {
		return ok("cgroup v2 at " + root)
	}
	return ok("cgroup v2 at " + root + ", hybrid: its controllers are in v1, which does no harm")
}

func (s *subject) ancestor() (intercept.AncestorState, error) {
	return intercept.InspectAncestor(s.node.Cgroup)
}

// jobDepth is how far below the ancestor a job is ("jobs/NAME").
const jobDepth = 2

func checkAncestor(_ context.Context, s *subject) Result {
	a, err := s.ancestor()
	if err != nil {
		return fail("", brief(err), "correct cgroup in the Node document, or the mount of cgroup v2")
	}
	if limit := intercept.MaxDepth - jobDepth; a.Depth > limit {
		return fail(a.Path, fmt.Sprintf("it is %d cgroups deep, and the programs see jobs in %d at most", a.Depth, limit),
			"choose a cgroup nearer to the root in the Node document")
	}
	// The root has no type; a threaded cgroup takes no processes of its own.
	if kind, err := os.ReadFile(filepath.Join(a.Nearest, "cgroup.type")); err == nil && strings.TrimSpace(string(kind)) != "domain" {
		return fail(a.Path, fmt.Sprintf("%s is of type %q", a.Nearest, strings.TrimSpace(string(kind))), "choose a cgroup that is a domain in the Node document")
	}
	if err := unix.Access(a.Nearest, unix.W_OK); err != nil {
		if !s.root {
			return skip(fmt.Sprintf("%s can't be written by this user", a.Nearest), asRoot)
		}
		return fail(a.Path, fmt.Sprintf("no cgroup can be made in %s: %s", a.Nearest, err), "mount cgroup v2 writable for the daemon")
	}
	if !a.Exists() {
		return ok(a.Path + " can be made")
	}
	return ok(fmt.Sprintf("%s, id %d", a.Path, a.ID))
}

func checkOtherPrograms(_ context.Context, s *subject) Result {
	a, err := s.ancestor()
	if err != nil {
		return skip("without a cgroup there is nothing to look at", "see \"cgroup\" and \"ancestor\"")
	}
	if !mayLook() {
		return unseen("what is attached", unix.EPERM)
	}
	others, err := intercept.OtherPrograms(a, s.node.PinDir)
	if err != nil {
		return pinFault("what is attached", err)
	}
	var refusing, overridden, beside []string
	for _, o := range others {
		line := fmt.Sprintf("%s at %s: program %d %s, %s", o.Hook, o.Cgroup, o.ID, o.Name, o.Sharing)
		switch {
		case o.Refuses:
			refusing = append(refusing, line)
		case o.Sharing == intercept.Overridable:
			overridden = append(overridden, line)
		default:
			beside = append(beside, line)
		}
	}
	const who = `"bpftool cgroup tree" shows them; have their owner attach them with BPF_F_ALLOW_MULTI, or by a link`
	switch {
	case len(refusing) > 0:
		return fail("", "programs that let none of ours in beside them:\n"+strings.Join(refusing, "\n"), who)
	case len(overridden) > 0:
		return warn("", "programs that don't run below the ancestor once ours do:\n"+strings.Join(overridden, "\n"), who)
	case len(beside) > 0:
		return ok(fmt.Sprintf("%d programs of others run after ours: %s", len(beside), strings.Join(beside, "; ")))
	}
	return ok(fmt.Sprintf("none at %s and above", a.Path))
}

func checkBPFFS(_ context.Context, s *subject) Result {
	dir := s.node.PinDir
	kind, at, err := fileSystem(dir)
	switch {
	case err != nil && forbidden(err):
		return unseen(dir, err)
	case err != nil:
		return fail("", brief(err), "correct pinDir in the Node document")
	case kind == unix.BPF_FS_MAGIC:
		return folderMode(dir, at)
	}
	const usual = "/sys/fs/bpf"
	if dir == usual || strings.HasPrefix(dir, usual+"/") {
		return warn("", "no bpffs is mounted at "+usual+"; the daemon mounts one when it starts, with CAP_SYS_ADMIN",
			"mount -t bpf -o mode=700 bpf "+usual+" at boot; in a container the host's must be given to it, or the pins end with it")
	}
	return fail("", fmt.Sprintf("%s is not on a bpffs", dir), fmt.Sprintf("mount -t bpf -o mode=700 bpf %s, or correct pinDir in the Node document", dir))
}

// folderMode says who may change the pins. at is where the path ends that
// exists.
func folderMode(dir, at string) Result {
	if at != dir {
		return ok(fmt.Sprintf("bpffs at %s; %s is made when the daemon starts", at, dir))
	}
	info, err := os.Stat(dir)
	if err != nil {
		return unseen(dir, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fail(dir, fmt.Sprintf("its mode %04o lets others at the pins", mode), "chmod 700 "+dir)
	}
	return ok(fmt.Sprintf("%s on a bpffs, mode %04o", dir, info.Mode().Perm()))
}

// fileSystem says on what kind of file system a path is, or would be: at is
// the path's longest beginning that exists.
func fileSystem(path string) (kind int64, at string, err error) {
	for at = filepath.Clean(path); ; at = filepath.Dir(at) {
		var st unix.Statfs_t
		err := unix.Statfs(at, &st)
		if err == nil {
			return int64(st.Type), at, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || at == "/" || at == "." {
			return 0, at, fmt.Errorf("%s: %w", at, err)
		}
	}
}

func checkPins(ctx context.Context, s *subject) Result {
	a, err := s.ancestor()
	if err != nil {
		return skip("without a cgroup there is nothing to look at", "see \"cgroup\" and \"ancestor\"")
	}
	pins, err := intercept.InspectPins(s.node.PinDir, a)
	daemon := s.reachDaemon(ctx) == nil
	const restart = "restart the daemon, which attaches what is missing"
	detach := "with no planner running stop the daemon, run \"chaperone detach --pin-dir " + s.node.PinDir + "\", and start it"
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(pins.Foreign) > 0:
		return fail("", "pins of another build: "+strings.Join(pins.Foreign, ", "), "detach them with the build that made them, then start this one")
	case errors.Is(err, fs.ErrNotExist) && daemon:
		return fail("", "nothing is pinned at "+pins.Dir+" though a daemon runs: it uses another pinDir or is in another mount namespace",
			"start the daemon with this configuration, in the host's mount namespace or with its bpffs")
	case errors.Is(err, fs.ErrNotExist):
		return skip("nothing is pinned at "+pins.Dir+": nothing is enforced before a daemon starts", "start the daemon")
	case err != nil:
		return pinFault(s.node.PinDir, err)
	}
	found := fmt.Sprintf("%d links at %s, to port %d", len(pins.Links), pins.Dir, pins.Port)
	switch {
	case len(pins.Foreign) > 0:
		return fail(found, "pins of another build: "+strings.Join(pins.Foreign, ", "), detach)
	case len(pins.Missing) > 0:
		return fail(found, "no link for "+strings.Join(pins.Missing, ", "), restart)
	case len(pins.Astray) > 0:
		return fail(found, fmt.Sprintf("attached to another cgroup than %s is now: %s", a.Path, strings.Join(pins.Astray, ", ")), restart)
	case pins.Port == 0:
		return fail(found, "no configuration was written, so all connections below the ancestor are refused", restart)
	case int(pins.Port) != s.node.ListenPort:
		return fail(found, fmt.Sprintf("listenPort is %d in the Node document", s.node.ListenPort), "restart the daemon, or correct the document")
	case !daemon:
		return warn(found+", attached and alive", "no daemon answers, so planners' connections to targets are refused",
			"start the daemon; or end enforcement with \"chaperone detach\"")
	}
	return ok(found + ", attached and alive")
}

// pinFault is the result of what takes rights to look at.
func pinFault(what string, err error) Result {
	if forbidden(err) || errors.Is(err, unix.EPERM) {
		return unseen(what, err)
	}
	return fail("", brief(err), "see the kernel's log, and \"kernel features\"")
}

// listeners are the sockets that listen on a port of this network namespace,
// as "address (pid 7, name)".
func listeners(port int) ([]string, error) {
	inodes, err := listening(port)
	if err != nil || len(inodes) == 0 {
		return nil, err
	}
	owners := socketOwners(inodes)
	var lines []string
	for inode, address := range inodes {
		owner := owners[inode]
		if owner == "" {
			owner = "a process that can't be seen"
		}
		lines = append(lines, fmt.Sprintf("%s (%s)", address, owner))
	}
	slices.Sort(lines)
	return lines, nil
}
