package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"chaperone.dev/chaperone/pkg/policy"
)

func checkDocuments(_ context.Context, s *subject) Result {
	if s.invalid != nil {
		const most = 20
		messages := policy.Messages(s.invalid)
		if more := len(messages) - most; more > 0 {
			messages = append(messages[:most], fmt.Sprintf("and %d more", more))
		}
		if forbidden(s.invalid) && !s.root {
			return unseen(s.opts.Config, s.invalid)
		}
		return fail("", strings.Join(messages, "\n"),
			"correct the documents; until then the other checks take the defaults of a Node document, and issuers and targets are not looked at")
	}
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(s.set.Counts())) {
		counts = append(counts, fmt.Sprintf("%d %s", s.set.Counts()[kind], kind))
	}
	found := fmt.Sprintf("%s, revision %s: %s", s.opts.Config, s.set.Revision, strings.Join(counts, ", "))
	var missing []string
	for _, kind := range []string{"Target", "Workload", "Policy"} {
		if s.set.Counts()[kind] == 0 {
			missing = append(missing, "no "+kind)
		}
	}
	if len(missing) > 0 {
		return warn(found, strings.Join(missing, ", ")+": no planner can do anything", "add them; docs/configuration.md has an example of each")
	}
	return ok(found)
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// secret is a file that nobody but the daemon may read.
type secret struct {
	path, what string
	// refused are the mode bits with which the daemon takes it not at all;
	// with those in noted it does, unwisely.
	refused, noted fs.FileMode
	later          bool // it may come later, with a job
}

func (s *subject) secrets() []secret {
	var all []secret
	add := func(v secret) {
		same := func(known secret) bool { return known.path == v.path }
		if v.path != "" && !slices.ContainsFunc(all, same) {
			all = append(all, v)
		}
	}
	if s.set != nil {
		for _, t := range s.set.Targets {
			if role := t.Spec.Credential.PostgresRole; role != nil {
				add(secret{role.AdminFrom.File, "administrator of target " + t.Metadata.Name, 0o027, 0, false})
			}
			if cert := t.Spec.Credential.PostgresCert; cert != nil {
				add(secret{cert.KeyFile, "key of target " + t.Metadata.Name + "'s client certificates", 0o027, 0, false})
				if cert.AdminFrom != nil {
					add(secret{cert.AdminFrom.File, "administrator of target " + t.Metadata.Name, 0o027, 0, false})
				}
			}
			if stored := t.Spec.Credential.PostgresSecret; stored != nil {
				add(secret{stored.PasswordFrom.File, "password of target " + t.Metadata.Name, 0o027, 0, false})
				if stored.AdminFrom != nil {
					add(secret{stored.AdminFrom.File, "administrator of target " + t.Metadata.Name, 0o027, 0, false})
				}
			}
			if token := t.Spec.Credential.KubeToken; token != nil {
				add(secret{token.AdminFrom.File, "administrator of target " + t.Metadata.Name, 0, 0o077, false})
			}
		}
		for _, w := range s.set.Workloads {
			// Other workloads' are paths of their own mounts.
			if id := w.Spec.Identity; id != nil && w.Spec.Select.Run != nil {
				add(secret{id.TokenFile, "token of workload " + w.Metadata.Name, 0, 0o007, true})
			}
			if id := w.Spec.Identity; id != nil && id.ClientCredentials != nil {
				add(secret{id.ClientCredentials.ClientSecretFrom.File, "client secret of workload " + w.Metadata.Name, 0, 0o077, false})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.node.Keys)) {
		add(secret{s.node.Keys[name].File, "key " + name + " of masks", 0, 0o077, false})
	}
	add(secret{s.node.NATS.CredsFile, "NATS credentials", 0, 0o077, false})
	add(secret{s.node.NATS.NKeyFile, "NATS key", 0, 0o077, false})
	keys := filepath.Join(s.opts.State, "keys")
	for _, name := range []string{"ca.key", "node.key", "ssh_host_ca"} {
		if path := filepath.Join(keys, name); exists(path) {
			add(secret{path, "key of the node", 0o077, 0, false})
		}
	}
	return all
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// findings gathers what is wrong with several things of one kind.
type findings struct {
	failed, noted, hidden, todo []string
}

func (f *findings) result(found, nothing string) Result {
	do := strings.Join(f.todo, "; ")
	switch {
	case len(f.failed) > 0:
		return fail(found, strings.Join(append(f.failed, f.noted...), "\n"), do)
	case len(f.noted) > 0:
		return warn(found, strings.Join(f.noted, "\n"), do)
	case len(f.hidden) > 0:
		return skip("can't be seen: "+strings.Join(f.hidden, ", "), asRoot)
	case found == "":
		return skip(nothing, "")
	}
	return ok(found)
}

func checkSecretFiles(_ context.Context, s *subject) Result {
	var f findings
	all := s.secrets()
	for _, v := range all {
		f.secret(v)
	}
	found := ""
	if len(all) > 0 {
		found = files(len(all))
	}
	return f.result(found, "the documents name no secret")
}

func (f *findings) secret(v secret) {
	info, err := os.Stat(v.path)
	switch {
	case v.later && errors.Is(err, fs.ErrNotExist):
		return
	case err != nil && forbidden(err):
		f.hidden = append(f.hidden, v.path)
		return
	case err != nil:
		f.failed = append(f.failed, fmt.Sprintf("%s (%s): %s", v.path, v.what, reason(err)))
		f.todo = append(f.todo, "put "+v.path+" there")
		return
	case !info.Mode().IsRegular():
		f.failed = append(f.failed, fmt.Sprintf("%s (%s) is no regular file", v.path, v.what))
		return
	}
	mode := info.Mode().Perm()
	wrong := fmt.Sprintf("%s (%s) has mode %04o, which lets others at it", v.path, v.what, mode)
	switch {
	case mode&v.refused != 0:
		f.failed = append(f.failed, wrong+", so the daemon refuses it")
		f.todo = append(f.todo, "chmod 600 "+v.path)
	case mode&v.noted != 0:
		f.noted = append(f.noted, wrong)
		f.todo = append(f.todo, "chmod 600 "+v.path)
	}
	// Whoever owns a file can change it.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && v.refused != 0 && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		f.failed = append(f.failed, fmt.Sprintf("%s (%s) belongs to uid %d, not to root or the daemon's user", v.path, v.what, st.Uid))
		f.todo = append(f.todo, "chown root "+v.path)
	}
}

// unread tells whether an error is of a file that can't be read.
func unread(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// reason is an error's text without the path that it repeats.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return brief(err)
}

// checkCAFiles looks at the files of authorities alone; what they are for is
// reached by other checks.
func checkCAFiles(_ context.Context, s *subject) Result {
	type file struct{ path, what string }
	var all []file
	add := func(path, what string) {
		same := func(known file) bool { return known.path == path }
		if path != "" && !slices.ContainsFunc(all, same) {
			all = append(all, file{path, what})
		}
	}
	add(s.node.NATS.CAFile, "NATS")
	if s.set != nil {
		for _, p := range s.set.IdentityProviders {
			add(p.Spec.CAFile, "issuer "+p.Metadata.Name)
		}
		for _, t := range s.set.Targets {
			add(t.Spec.TLS.CAFile, "target "+t.Metadata.Name)
		}
	}
	var f findings
	for _, one := range all {
		authorities, err := readCertificates(one.path)
		if err != nil {
			if forbidden(err) {
				f.hidden = append(f.hidden, one.path)
				continue
			}
			f.noted = append(f.noted, fmt.Sprintf("%s (%s): %s", one.path, one.what, reason(err)))
			f.todo = append(f.todo, "put the authority's PEM certificate into "+one.path)
			continue
		}
		for _, c := range authorities {
			if late := expiry(c); late != "" {
				f.noted = append(f.noted, fmt.Sprintf("%s (%s): %s", one.path, one.what, late))
				f.todo = append(f.todo, "put the authority's next certificate into "+one.path+", beside this one")
			}
		}
	}
	found := ""
	if len(all) > 0 {
		found = files(len(all))
	}
	return f.result(found, "the documents name none: the system's authorities are trusted")
}
