package policy

import "time"

// The form of a file of cases: the facts as documents spell them.

// caseFile is a file of cases.
type caseFile struct {
	caseSetting `yaml:",inline"`
	Cases       []testCase `yaml:"cases"`
}

// caseSetting is what a file may set for all of its cases.
type caseSetting struct {
	As       *caseAs       `yaml:"as"`
	Target   string        `yaml:"target"`
	Workload *caseWorkload `yaml:"workload"`
	Session  *caseSession  `yaml:"session"`
	Now      string        `yaml:"now"`
}

type caseAs struct {
	Subject string         `yaml:"subject"`
	Issuer  string         `yaml:"issuer"`
	Groups  []string       `yaml:"groups"`
	Claims  map[string]any `yaml:"claims"`
}

type caseWorkload struct {
	Name           string            `yaml:"name"`
	Node           string            `yaml:"node"`
	Executable     string            `yaml:"executable"`
	UID            int64             `yaml:"uid"`
	Unit           string            `yaml:"unit"`
	Namespace      string            `yaml:"namespace"`
	ServiceAccount string            `yaml:"serviceAccount"`
	Image          string            `yaml:"image"`
	Labels         map[string]string `yaml:"labels"`
}

type caseSession struct {
	Age      Duration `yaml:"age"`
	Rows     int64    `yaml:"rows"`
	Commands int64    `yaml:"commands"`
}

type caseStatement struct {
	Text      string   `yaml:"text"`
	Kind      string   `yaml:"kind"`
	Kinds     []string `yaml:"kinds"`
	ReadOnly  bool     `yaml:"readOnly"`
	DDL       bool     `yaml:"ddl"`
	Tables    []string `yaml:"tables"`
	Relations []string `yaml:"relations"`
	Columns   []string `yaml:"columns"`
	Functions []string `yaml:"functions"`
	HasWhere  bool     `yaml:"hasWhere"`
	Multi     bool     `yaml:"multi"`
}

type caseCommand struct {
	Text        string   `yaml:"text"`
	Argv        []string `yaml:"argv"`
	Program     string   `yaml:"program"`
	Programs    []string `yaml:"programs"`
	Interactive bool     `yaml:"interactive"`
	Subsystem   string   `yaml:"subsystem"`
	Forward     string   `yaml:"forward"`
}

type caseFileOp struct {
	Op   string `yaml:"op"`
	Path string `yaml:"path"`
	Size int64  `yaml:"size"`
}

type caseRequest struct {
	Verb            string `yaml:"verb"`
	Group           string `yaml:"group"`
	Version         string `yaml:"version"`
	Resource        string `yaml:"resource"`
	Subresource     string `yaml:"subresource"`
	Namespace       string `yaml:"namespace"`
	Name            string `yaml:"name"`
	NonResourcePath string `yaml:"nonResourcePath"`
}

// caseAsked is what a case asks: one of its fields, or none.
type caseAsked struct {
	SQL       string         `yaml:"sql"`
	Statement *caseStatement `yaml:"statement"`
	Command   *caseCommand   `yaml:"command"`
	File      *caseFileOp    `yaml:"file"`
	Request   *caseRequest   `yaml:"request"`
}

// asked are the facts that the case states, without those of its SQL.
func (a *caseAsked) asked() Asked {
	return Asked{(*Statement)(a.Statement), (*Command)(a.Command), (*File)(a.File), (*Request)(a.Request)}
}

type testCase struct {
	caseSetting `yaml:",inline"`
	caseAsked   `yaml:",inline"`
	Name        string   `yaml:"name"`
	Expect      Action   `yaml:"expect"`
	Rule        string   `yaml:"rule"`
	Shadow      []string `yaml:"shadow"`

	file string
	line int
	now  time.Time
}
