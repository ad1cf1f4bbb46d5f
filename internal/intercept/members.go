package intercept

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"chaperone.dev/chaperone/bpf"
)

// takeOverMembers makes this process's cgroup the only exempt one, but for that of a
// daemon that is beside it, and forgets planners whose cgroup is no more. The others
// stay enrolled.
func (i *Interceptor) takeOverMembers(beside uint64) error {
	above, role, err := i.memberAbove(i.own.path)
	if err != nil {
		return err
	}
	if role == bpf.InterceptRoleROLE_PLANNER {
		return fmt.Errorf("%w: the daemon runs inside the planner's cgroup %s", ErrCgroup, above)
	}
	alive, err := i.ancestor.ids()
	if err != nil {
		return err
	}
	if err := retain(i.objects.Members, func(id uint64, m bpf.InterceptMember) bool {
		otherDaemon := m.Role == uint32(bpf.InterceptRoleROLE_DAEMON) && id != i.own.id && id != beside
		return alive[id] && !otherDaemon // exempt ones outside are told anew
	}); err != nil {
		return fmt.Errorf("forget cgroups that are gone: %w", err)
	}
	m := bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_DAEMON)}
	if err := i.objects.Members.Put(i.own.id, m); err != nil {
		return fmt.Errorf("exempt the daemon's cgroup: %w", err)
	}
	return nil
}

// Enroll makes a cgroup below the ancestor, and all cgroups in it, a planner's.
// It should still be empty: sockets keep the cgroup that they were made in. The id
// that it returns is the cgroup's inode number, which [Origin] and
// [Bypass] name the planner by. To enroll it again changes nothing.
//
// A cgroup that is not strictly below the ancestor, is inside another planner's,
// holds the daemon or lies deeper than 16 levels is refused with [ErrCgroup].
func (i *Interceptor) Enroll(path string) (id uint64, err error) {
	return i.EnrollAs(path, 0)
}

// EnrollAs is [Interceptor.Enroll] for a planner that may reach, besides what is
// captured, only loopback and what [Interceptor.Egress] and [Interceptor.Allow]
// list for the profile. Profile 0 is none. To enroll a cgroup again changes its
// profile.
func (i *Interceptor) EnrollAs(path string, profile uint32) (id uint64, err error) {
	path = filepath.Clean(path)
	cg, err := i.candidate(path)
	if err == nil && below(path, i.own.path) {
		err = fmt.Errorf("%w: %s holds the daemon", ErrCgroup, path)
	}
	if err != nil {
		return 0, err
	}
	m := bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_PLANNER), Profile: profile}
	return cg.id, errors.Join(i.put(cg, m), i.forgetBelow(cg))
}

// Pass makes a cgroup below the ancestor, and all cgroups in it, known to be no planner's: it
// goes its way, but for the node's belt. The conditions are those of
// [Interceptor.Enroll], and [Interceptor.Withdraw] ends it too.
func (i *Interceptor) Pass(path string) (id uint64, err error) {
	path = filepath.Clean(path)
	cg, err := i.candidate(path)
	if err != nil {
		return 0, err
	}
	// A daemon that starts again may know less of it than the one that enrolled it.
	var known bpf.InterceptMember
	if err := i.objects.Members.Lookup(cg.id, &known); err == nil && known.Role == uint32(bpf.InterceptRoleROLE_PLANNER) {
		return 0, fmt.Errorf("%w: %s is a planner's, and stays one", ErrCgroup, path)
	}
	return cg.id, i.put(cg, bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_BYSTANDER)})
}

// Exempt lets a cgroup anywhere on the node, and all cgroups in it, reach targets
// in spite of the node's belt. [Interceptor.Withdraw] ends it too.
func (i *Interceptor) Exempt(path string) (id uint64, err error) {
	cg, err := stat(filepath.Clean(path))
	switch {
	case err != nil:
		return 0, err
	case !below(string(i.root), cg.path):
		return 0, fmt.Errorf("%w: %s is not below %s", ErrCgroup, path, i.root)
	case cg.path == i.ancestor.path, below(cg.path, i.ancestor.path):
		return 0, fmt.Errorf("%w: %s holds the planners' %s", ErrCgroup, path, i.ancestor.path)
	}
	return cg.id, i.put(cg, bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_EXEMPT)})
}

// forgetBelow withdraws what was known of cgroups inside a planner's: the kernel
// programs look at a process's own cgroup first.
func (i *Interceptor) forgetBelow(planner cgroup) error {
	inside, err := planner.ids()
	if err != nil {
		return err
	}
	delete(inside, planner.id)
	var errs []error
	for id := range inside {
		errs = append(errs, i.Withdraw(id))
	}
	return errors.Join(errs...)
}

// put makes a cgroup a member, and keeps the account of one that is it already.
func (i *Interceptor) put(cg cgroup, m bpf.InterceptMember) error {
	var known bpf.InterceptMember
	err := i.objects.Members.Lookup(cg.id, &known)
	if err == nil && known.Role == m.Role && known.Profile == m.Profile {
		return nil
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("look up cgroup %s: %w", cg.path, err)
	}
	m.Pending = known.Pending
	if err := i.objects.Members.Put(cg.id, m); err != nil {
		return fmt.Errorf("enroll %s: %w", cg.path, err)
	}
	return nil
}

// candidate returns the cgroup at a path if it can be a planner's.
func (i *Interceptor) candidate(path string) (cgroup, error) {
	cg, err := stat(path)
	if err != nil {
		return cgroup{}, err
	}
	switch depth := 1 + strings.Count(strings.TrimPrefix(path, string(i.root)+"/"), "/"); {
	case !below(i.ancestor.path, path):
		return cgroup{}, fmt.Errorf("%w: %s is not below %s", ErrCgroup, path, i.ancestor.path)
	case path == i.own.path:
		return cgroup{}, fmt.Errorf("%w: %s is the daemon's own", ErrCgroup, path)
	case depth > maxDepth:
		return cgroup{}, fmt.Errorf("%w: %s lies %d levels below the root, more than %d", ErrCgroup, path, depth, maxDepth)
	}
	above, role, err := i.memberAbove(filepath.Dir(path))
	switch {
	case err != nil:
		return cgroup{}, err
	case role == bpf.InterceptRoleROLE_PLANNER:
		return cgroup{}, fmt.Errorf("%w: %s is inside the planner's cgroup %s", ErrCgroup, path, above)
	case role == bpf.InterceptRoleROLE_BYSTANDER, role == bpf.InterceptRoleROLE_EXEMPT:
		return cgroup{}, fmt.Errorf("%w: %s is inside %s, which is known to be no planner's", ErrCgroup, path, above)
	}
	return cg, nil
}

// memberAbove returns the known cgroup that path is or is inside of, and what it
// is, or "". The daemon's own doesn't count.
func (i *Interceptor) memberAbove(path string) (string, bpf.InterceptRole, error) {
	for ; below(i.ancestor.path, path); path = filepath.Dir(path) {
		cg, err := stat(path)
		if err != nil {
			return "", 0, err
		}
		var m bpf.InterceptMember
		err = i.objects.Members.Lookup(cg.id, &m)
		if role := bpf.InterceptRole(m.Role); err == nil && role != bpf.InterceptRoleROLE_DAEMON {
			return path, role, nil
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return "", 0, fmt.Errorf("look up cgroup %s: %w", path, err)
		}
	}
	return "", 0, nil
}

// Withdraw ends what [Interceptor.Enroll] or [Interceptor.Pass] began. What still runs in the
// cgroup is unknown then: refused, not diverted. An id that is not enrolled is no error.
func (i *Interceptor) Withdraw(id uint64) error {
	if err := remove(i.objects.Members, id); err != nil {
		return fmt.Errorf("withdraw cgroup %d: %w", id, err)
	}
	return nil
}
