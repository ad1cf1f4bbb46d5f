package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"chaperone.dev/chaperone/internal/pgsql"
	"chaperone.dev/chaperone/pkg/policy"
)

// How people write on a command line what a policy is asked about.

// readStatements reads SQL as the daemon does.
func readStatements() func(sql string) ([]policy.Statement, error) {
	parser := pgsql.NewParser(pgsql.Options{})
	return func(sql string) ([]policy.Statement, error) {
		query, err := parser.Parse(sql)
		if err != nil {
			return nil, err
		}
		facts := make([]policy.Statement, len(query.Statements))
		for i, s := range query.Statements {
			facts[i] = s.Facts(sql)
		}
		return facts, nil
	}
}

// readCommand reads a command line as a shell would begin to: its programs are
// told only where nothing in it depends on the server's shell.
func readCommand(text string) policy.Command {
	c := policy.Command{Text: text}
	lines, ok := splitCommands(text)
	if !ok {
		return c
	}
	for i, argv := range lines {
		program := path.Base(argv[0])
		if i == 0 {
			c.Argv, c.Program = argv, program
		}
		c.Programs = append(c.Programs, program)
	}
	return c
}

// splitCommands splits a command line into the words of each simple command.
// It gives up where what runs can't be told from the text: expansions,
// redirections, assignments and compound commands.
func splitCommands(text string) (commands [][]string, ok bool) {
	var word strings.Builder
	var words []string
	inWord := false
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() bool {
		endWord()
		if len(words) == 0 || strings.Contains(words[0], "=") || isCompound(words[0]) {
			return false
		}
		commands, words = append(commands, words), nil
		return true
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case ' ', '\t':
			endWord()
		case '|', ';', '&', '\n':
			if !endCommand() {
				return nil, false
			}
			if (c == '|' || c == '&') && i+1 < len(text) && text[i+1] == c {
				i++
			}
		case '\'', '"':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				return nil, false
			}
			quoted := text[i+1 : i+1+end]
			if c == '"' && strings.ContainsAny(quoted, "$`\\") {
				return nil, false
			}
			word.WriteString(quoted)
			inWord = true
			i += end + 1
		case '\\', '$', '`', '<', '>', '(', ')', '{', '}', '*', '?', '[', '~', '!', '#':
			return nil, false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord || len(words) > 0 {
		if !endCommand() {
			return nil, false
		}
	}
	return commands, len(commands) > 0
}

func isCompound(word string) bool {
	return slices.Contains([]string{
		"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "select", "function", "time", "coproc", "[[",
	}, word)
}

// readFile reads OP:PATH.
func readFile(text string) (*policy.File, error) {
	op, name, ok := strings.Cut(text, ":")
	known := []string{"read", "write", "remove", "rename", "mkdir", "rmdir", "list", "stat", "setstat", "link"}
	switch {
	case !ok || !slices.Contains(known, op):
		return nil, fmt.Errorf("--file %q is not OP:PATH, where OP is one of %s", text, strings.Join(known, ", "))
	case !path.IsAbs(name) || path.Clean(name) != name:
		return nil, fmt.Errorf("--file %q: the path must be absolute, without \".\" and \"..\"", text)
	}
	return &policy.File{Op: op, Path: name}, nil
}

// readRequest reads VERB:RESOURCE[/SUB][:NAMESPACE[/NAME]], where RESOURCE is
// "pods", "deployments.apps", or a path such as "/healthz".
func readRequest(text string) (*policy.Request, error) {
	verb, rest, ok := strings.Cut(text, ":")
	if !ok || verb == "" || rest == "" {
		return nil, fmt.Errorf("--request %q is not VERB:RESOURCE[/SUB][:NAMESPACE[/NAME]]", text)
	}
	r := &policy.Request{Verb: verb}
	if strings.HasPrefix(rest, "/") {
		r.NonResourcePath = rest
		return r, nil
	}
	resource, where, _ := strings.Cut(rest, ":")
	resource, r.Subresource, _ = strings.Cut(resource, "/")
	r.Resource, r.Group, _ = strings.Cut(resource, ".")
	r.Namespace, r.Name, _ = strings.Cut(where, "/")
	if r.Resource == "" {
		return nil, fmt.Errorf("--request %q names no resource", text)
	}
	return r, nil
}

// readWorkload reads what is given as KEY=VALUE; a label is "labels.KEY=VALUE".
func readWorkload(pairs []string) (policy.WorkloadFacts, error) {
	var w policy.WorkloadFacts
	words := map[string]*string{
		"name": &w.Name, "node": &w.Node, "executable": &w.Executable, "unit": &w.Unit,
		"namespace": &w.Namespace, "serviceAccount": &w.ServiceAccount, "image": &w.Image,
	}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		label, isLabel := strings.CutPrefix(key, "labels.")
		switch {
		case !ok:
			return w, fmt.Errorf("--workload %q is not KEY=VALUE", pair)
		case isLabel:
			if w.Labels == nil {
				w.Labels = map[string]string{}
			}
			w.Labels[label] = value
		case key == "uid":
			uid, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return w, fmt.Errorf("--workload %q: the uid is no number", pair)
			}
			w.UID = uid
		case words[key] != nil:
			*words[key] = value
		default:
			return w, fmt.Errorf("--workload %q: known are name, node, executable, unit, namespace, serviceAccount, image, uid and labels.KEY", pair)
		}
	}
	return w, nil
}

// readPrincipal reads SUBJECT@ISSUER.
func readPrincipal(as string, groups []string) (policy.Principal, error) {
	subject, issuer, ok := cutLast(as, "@")
	if !ok || subject == "" || issuer == "" {
		return policy.Principal{}, fmt.Errorf("--as %q is not SUBJECT@ISSUER", as)
	}
	return policy.Principal{Subject: subject, Issuer: issuer, Groups: groups}, nil
}

// targetFacts are those of a connection to the target's first host.
func targetFacts(set *policy.Set, name string) (policy.TargetFacts, error) {
	t := set.Target(name)
	if t == nil {
		return policy.TargetFacts{}, fmt.Errorf("no Target document is named %q", name)
	}
	facts := policy.TargetFacts{Name: name, Protocol: t.Spec.Protocol, Labels: t.Metadata.Labels}
	if len(t.Spec.Hosts) == 0 {
		return facts, errors.New("the target has no hosts")
	}
	host, err := policy.ParseHost(t.Spec.Hosts[0])
	if err != nil {
		return facts, err
	}
	facts.Host, facts.Port = host.Name, int64(host.Port)
	if host.Name == "" {
		facts.Host = host.Prefix.Addr().String()
	}
	return facts, nil
}
