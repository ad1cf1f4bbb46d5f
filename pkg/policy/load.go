package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is loaded.
const (
	maxFileBytes = 1 << 20
	maxBytes     = 16 << 20
	maxFiles     = 1000
	maxDocuments = 5000
)

// Load reads every *.yaml and *.yml file of a folder, without its subfolders
// and without test cases (*_test.yaml). It returns the set only if all of it
// is valid; otherwise the error is an [Errors] of all that is wrong, or wraps
// [ErrNoDocuments].
//
// Files hold at most 1 MiB each, and a folder at most 1000 files, 5000
// documents and 16 MiB.
func Load(dir string) (*Set, error) {
	return loadFS(os.DirFS(dir), dir)
}

// LoadFS is [Load] for the top folder of a file system.
func LoadFS(fsys fs.FS) (*Set, error) {
	return loadFS(fsys, "")
}

// LoadFiles is [Load] for the contents of files by name. The names are used in
// errors, and files of test cases are passed over by theirs.
func LoadFiles(files map[string][]byte) (*Set, error) {
	l := newLoader()
	var names []string
	for name := range files {
		if !isTestFile(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > maxFiles {
		return nil, fmt.Errorf("the documents are in more than %d files", maxFiles)
	}
	for _, name := range names {
		l.file(name, files[name])
	}
	return l.finish("the files given")
}

// ReadFolder reads the files of a folder that [Load] would, for [LoadFiles]:
// their contents by path.
func ReadFolder(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	errs, err := readFolder(os.DirFS(dir), dir, func(path string, data []byte) { files[path] = data })
	if err == nil && len(errs) > 0 {
		err = errs.sorted()
	}
	return files, err
}

// KindsOf lists the kinds of a file's documents, in their order, and checks
// nothing else of them. The name is used in errors.
func KindsOf(name string, data []byte) ([]string, error) {
	roots, yamlErr := yamlDocuments(name, data)
	if yamlErr != nil {
		return nil, yamlErr
	}
	var kinds []string
	for _, root := range roots {
		var kind string
		for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
			if key, value := root.Content[i], root.Content[i+1]; key.Value == "kind" && value.Kind == yaml.ScalarNode {
				kind = value.Value
				break
			}
		}
		if kind == "" {
			return nil, &DocumentError{File: name, Line: root.Line, Field: "kind", Message: "is missing"}
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// Parse is [Load] for one file's content. The name is used in errors.
func Parse(name string, data []byte) (*Set, error) {
	l := newLoader()
	l.file(name, data)
	return l.finish(name)
}

func loadFS(fsys fs.FS, dir string) (*Set, error) {
	l := newLoader()
	errs, err := readFolder(fsys, dir, l.file)
	if err != nil {
		return nil, err
	}
	l.errs = append(l.errs, errs...)
	return l.finish(dir)
}

// readFolder hands out the contents of a folder's files, and says which can't
// be read.
func readFolder(fsys fs.FS, dir string, file func(path string, data []byte)) (Errors, error) {
	names, err := yamlFiles(fsys, false)
	if err != nil {
		return nil, fmt.Errorf("can't read the policy folder %s: %w", dir, err)
	}
	var errs Errors
	for _, name := range names {
		path := filepath.Join(dir, name)
		data, err := readFile(fsys, name)
		if err != nil {
			errs = append(errs, &DocumentError{File: path, Message: "can't be read: " + plain(err), Err: err})
			continue
		}
		file(path, data)
	}
	return errs, nil
}

// yamlFiles lists the files to load, or those of test cases, sorted. It
// follows symbolic links, as the files of a mounted ConfigMap are.
func yamlFiles(fsys fs.FS, tests bool) ([]string, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !isYAML(name) || isTestFile(name) != tests {
			continue
		}
		if info, err := fs.Stat(fsys, name); err == nil && info.IsDir() {
			continue
		}
		names = append(names, name)
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("it holds more than %d such files", maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

func isTestFile(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml")
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	// Stat first: opening a pipe would wait for somebody to write to it.
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// plain is an error's text without the path that a PathError repeats.
func plain(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// loader gathers the documents of a set.
type loader struct {
	errs      Errors
	bytes     int
	count     int
	names     map[string]place // of each "kind/name"
	files     map[string]string
	nodes     []located[Node]
	sinks     []located[Sink]
	targets   []located[Target]
	workloads []located[Workload]
	providers []located[IdentityProvider]
	policies  []located[Policy]
	masks     []located[Mask]
}

// located is a document with what is known of its source.
type located[T any] struct {
	doc *T
	at  *document
}

func newLoader() *loader {
	return &loader{names: map[string]place{}, files: map[string]string{}}
}

// file reads one file's documents.
func (l *loader) file(name string, data []byte) {
	if l.bytes += len(data); l.bytes > maxBytes {
		l.errs = append(l.errs, &DocumentError{File: name, Message: fmt.Sprintf("the files up to this one hold more than %d bytes", maxBytes)})
		return
	}
	roots, err := yamlDocuments(name, data)
	for _, root := range roots {
		if l.count++; l.count > maxDocuments {
			err = &DocumentError{File: name, Line: root.Line, Message: fmt.Sprintf("there are more than %d documents", maxDocuments)}
			break
		}
		l.document(name, root)
	}
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

// yamlDocuments reads the YAML documents of a file, without those that hold
// nothing but comments. It stops at the first that isn't YAML, since nothing
// is known of where the next begins.
func yamlDocuments(name string, data []byte) ([]*yaml.Node, *DocumentError) {
	if len(data) > maxFileBytes {
		return nil, &DocumentError{File: name, Message: fmt.Sprintf("the file is larger than %d bytes; split it", maxFileBytes)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var roots []*yaml.Node
	for {
		var root yaml.Node
		err := decoder.Decode(&root)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			line, message := yamlError(err)
			return roots, &DocumentError{File: name, Line: line, Message: "is no valid YAML: " + message}
		}
		if root.Kind == yaml.DocumentNode && len(root.Content) == 1 && root.Content[0].ShortTag() != "!!null" {
			roots = append(roots, root.Content[0])
		}
	}
}

// yamlError takes the line out of a syntax error's text, the only place where
// the library tells it.
func yamlError(err error) (line int, message string) {
	m := regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`).FindStringSubmatch(err.Error())
	if m == nil {
		return 0, err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	return line, m[2]
}

// document reads and checks one document by itself.
func (l *loader) document(file string, n *yaml.Node) {
	d := &document{file: file, line: n.Line, places: map[string]place{}, errs: &l.errs}
	if n.Kind != yaml.MappingNode {
		d.report(n.Line, "", "must be an object with apiVersion, kind, metadata and spec")
		return
	}
	parts := map[string]*yaml.Node{}
	d.eachKey(n, "", func(key, value *yaml.Node, at string) {
		switch at {
		case "apiVersion", "kind", "metadata", "spec":
			parts[at] = value
		default:
			d.errorf(at, "unknown field; known here are apiVersion, kind, metadata, spec")
		}
	})
	var version, kind string
	d.part(parts, "apiVersion", &version)
	if version != APIVersion {
		d.errorf("apiVersion", "is %s; this release reads %s", quote(version), APIVersion)
		return
	}
	d.part(parts, "kind", &kind)
	read := l.kinds()[kind]
	if read == nil {
		d.errorf("kind", "unknown kind %s; known are Target, Workload, IdentityProvider, Policy, Mask, Node, Sink", quote(kind))
		return
	}
	var meta Metadata
	if !isSingle(kind) || parts["metadata"] != nil {
		d.part(parts, "metadata", &meta)
		d.checkMetadata(kind, meta)
	}
	l.register(d, kind, meta.Name)
	read(d, meta, func(spec any) { d.part(parts, "spec", spec) })
}

// part decodes one of the four parts of a document, all of them required.
func (d *document) part(parts map[string]*yaml.Node, name string, into any) {
	n := parts[name]
	if n == nil {
		d.errorf(name, "is missing")
		return
	}
	d.decode(n, reflect.ValueOf(into).Elem(), name)
}

// isSingle tells of which kinds there is at most one document, which then
// needs no name.
func isSingle(kind string) bool { return kind == "Node" || kind == "Sink" }

// register refuses a second document of one kind and name.
func (l *loader) register(d *document, kind, name string) {
	key, said := kind+"/"+name, fmt.Sprintf("another %s is named %s", kind, quote(name))
	if isSingle(kind) {
		key, said = kind, fmt.Sprintf("another %s document exists", kind)
	}
	if first, again := l.names[key]; again && (name != "" || isSingle(kind)) {
		d.errorf("metadata.name", "%s: %s:%d", said, l.files[key], first.line)
		return
	}
	l.names[key], l.files[key] = place{line: d.lineOf("metadata.name")}, d.file
}

// kinds maps each kind to what reads and keeps its documents.
func (l *loader) kinds() map[string]func(d *document, m Metadata, spec func(any)) {
	return map[string]func(*document, Metadata, func(any)){
		"Target": func(d *document, m Metadata, spec func(any)) {
			v := &Target{Metadata: m}
			spec(&v.Spec)
			d.checkTarget(&v.Spec)
			l.targets = append(l.targets, located[Target]{v, d})
		},
		"Workload": func(d *document, m Metadata, spec func(any)) {
			v := &Workload{Metadata: m}
			spec(&v.Spec)
			d.checkWorkload(&v.Spec)
			l.workloads = append(l.workloads, located[Workload]{v, d})
		},
		"IdentityProvider": func(d *document, m Metadata, spec func(any)) {
			v := &IdentityProvider{Metadata: m}
			spec(&v.Spec)
			d.checkProvider(v)
			l.providers = append(l.providers, located[IdentityProvider]{v, d})
		},
		"Policy": func(d *document, m Metadata, spec func(any)) {
			v := &Policy{Metadata: m}
			spec(&v.Spec)
			d.checkPolicy(&v.Spec)
			l.policies = append(l.policies, located[Policy]{v, d})
		},
		"Mask": func(d *document, m Metadata, spec func(any)) {
			v := &Mask{Metadata: m}
			spec(&v.Spec)
			d.checkMask(&v.Spec)
			l.masks = append(l.masks, located[Mask]{v, d})
		},
		"Node": func(d *document, m Metadata, spec func(any)) {
			v := &Node{Metadata: m}
			spec(&v.Spec)
			d.checkNode(&v.Spec)
			l.nodes = append(l.nodes, located[Node]{v, d})
		},
		"Sink": func(d *document, m Metadata, spec func(any)) {
			v := &Sink{Metadata: m}
			spec(&v.Spec)
			d.checkSink(&v.Spec)
			l.sinks = append(l.sinks, located[Sink]{v, d})
		},
	}
}

// finish checks what documents say of each other and makes the set.
func (l *loader) finish(from string) (*Set, error) {
	if l.count == 0 && len(l.errs) == 0 {
		return nil, fmt.Errorf("%w in %s: it needs *.yaml files with apiVersion %s", ErrNoDocuments, quote(from), APIVersion)
	}
	l.checkReferences()
	set, err := l.set()
	if err != nil {
		return nil, err
	}
	if len(l.errs) > 0 {
		return nil, l.errs.sorted()
	}
	return set, nil
}
