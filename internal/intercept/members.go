package intercept

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"chaperone.dev/chaperone/bpf"
)

// takeOverMembers makes this process's cgroup the only exempt one, and forgets
// planners whose cgroup is no more. The others stay enrolled.
func (i *Interceptor) takeOverMembers() error {
	planner, err := i.plannerAbove(i.own.path)
	if err != nil {
		return err
	}
	if planner != "" {
		return fmt.Errorf("%w: the daemon runs inside the planner's cgroup %s", ErrCgroup, planner)
	}
	alive, err := i.ancestor.ids()
	if err != nil {
		return err
	}
	var (
		id    uint64
		m     bpf.InterceptMember
		stale []uint64
	)
	entries := i.objects.Members.Iterate()
	for entries.Next(&id, &m) {
		if m.Role == uint32(bpf.InterceptRoleROLE_DAEMON) && id != i.own.id || !alive[id] {
			stale = append(stale, id)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list enrolled cgroups: %w", err)
	}
	for _, id := range stale {
		if err := i.Withdraw(id); err != nil {
			return err
		}
	}
	m = bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_DAEMON)}
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
	path = filepath.Clean(path)
	cg, err := stat(path)
	if err != nil {
		return 0, err
	}
	switch depth := 1 + strings.Count(strings.TrimPrefix(path, string(i.root)+"/"), "/"); {
	case !below(i.ancestor.path, path):
		return 0, fmt.Errorf("%w: %s is not below %s", ErrCgroup, path, i.ancestor.path)
	case path == i.own.path || below(path, i.own.path):
		return 0, fmt.Errorf("%w: %s holds the daemon", ErrCgroup, path)
	case depth > maxDepth:
		return 0, fmt.Errorf("%w: %s lies %d levels below the root, more than %d", ErrCgroup, path, depth, maxDepth)
	}
	planner, err := i.plannerAbove(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	if planner != "" {
		return 0, fmt.Errorf("%w: %s is inside the planner's cgroup %s", ErrCgroup, path, planner)
	}
	m := bpf.InterceptMember{Role: uint32(bpf.InterceptRoleROLE_PLANNER)}
	err = i.objects.Members.Update(cg.id, m, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return 0, fmt.Errorf("enroll %s: %w", path, err)
	}
	return cg.id, nil
}

// plannerAbove returns the enrolled cgroup that path is or is inside of, or "".
func (i *Interceptor) plannerAbove(path string) (string, error) {
	for ; below(i.ancestor.path, path); path = filepath.Dir(path) {
		cg, err := stat(path)
		if err != nil {
			return "", err
		}
		var m bpf.InterceptMember
		err = i.objects.Members.Lookup(cg.id, &m)
		if err == nil && m.Role == uint32(bpf.InterceptRoleROLE_PLANNER) {
			return path, nil
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return "", fmt.Errorf("look up cgroup %s: %w", path, err)
		}
	}
	return "", nil
}

// Withdraw ends what [Interceptor.Enroll] began. What still runs in the cgroup is a
// stranger then: refused, not diverted. An id that is not enrolled is no error.
func (i *Interceptor) Withdraw(id uint64) error {
	if err := i.objects.Members.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("withdraw cgroup %d: %w", id, err)
	}
	return nil
}
