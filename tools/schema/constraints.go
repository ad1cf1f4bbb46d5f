package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"chaperone.dev/chaperone/pkg/policy"
)

// Patterns of what package policy reads more closely.
const (
	namePattern    = `^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`
	filePattern    = `^/`
	hostPattern    = `^(\[[0-9A-Fa-f:.]+(/[0-9]{1,3})?\]|[^\[\]\s:*]+):[0-9]{1,5}$`
	subjectPattern = `^(\*|.+@[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?)$`
	columnPattern  = `^[^.\s]+\.[^.\s]+\.[^.\s]+$`
	keyPattern     = `^[A-Za-z0-9+/]{43}=$`
	maxItems       = 1000
)

// enums are the fields that hold one of some words.
func enums() map[string][]any {
	return map[string][]any{
		"TargetSpec.protocol":      {policy.ProtocolPostgres, policy.ProtocolSSH, policy.ProtocolKubernetes},
		"TLSSpec.mode":             {policy.TLSVerifyFull, policy.TLSDisable},
		"PolicySpec.enforce":       {policy.EnforceOn, policy.EnforceShadow},
		"Rule.then":                {policy.Allow, policy.Approve, policy.Deny},
		"ApprovalSpec.mode":        {policy.ModeHold, policy.ModeRetry},
		"ApprovalSpec.per":         {policy.PerSession, policy.PerCommand},
		"SessionSpec.record":       {policy.RecordDurable, policy.RecordStrict},
		"MaskSpec.untraceable":     {policy.UntraceableDeny, policy.UntraceableApprove},
		"MaskSpec.predicates":      {policy.PredicatesAllow, policy.PredicatesEquality, policy.PredicatesApprove, policy.PredicatesDeny},
		"TransformObject.truncate": {policy.TruncateYear, policy.TruncateMonth},
		"EgressSpec.default":       {policy.EgressAllow, policy.EgressDeny},
		"NodeSpec.belt":            {policy.BeltPlanners, policy.BeltNode},
		"WebhookSpec.format":       {policy.WebhookJSON, policy.WebhookSlack},
	}
}

// patterns are the fields, and the items of lists, that follow one.
func patterns() map[string]string {
	return map[string]string{
		"Metadata.name":                    namePattern,
		"Rule.name":                        namePattern,
		"NodeSpec.cluster":                 namePattern,
		"IdentitySpec.issuer":              namePattern,
		"LoginSpec.issuer":                 namePattern,
		"TargetSpec.hosts":                 hostPattern,
		"EgressSpec.allow":                 hostPattern,
		"PrincipalSelect.subjects":         subjectPattern,
		"ColumnMask.match":                 columnPattern,
		"AuthoritySpec.keys":               keyPattern,
		"IdentityProviderSpec.issuer":      `^https?://[^\s?#@]+$`,
		"SinkSpec.url":                     `^https?://[^\s/?#@]+/?$`,
		"SinkSpec.listen":                  `:[0-9]{1,5}$`,
		"NATSSpec.url":                     `^\s*(nats|tls|ws|wss)://[^@\s]+$`,
		"KubeTokenSpec.serviceAccount":     `^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`,
		"SSHCertSpec.principals":           `^[^,\s]+$`,
		"TransformObject.hmac":             namePattern,
		"TransformObject.formatPreserving": namePattern,
		"WebhookSpec.name":                 namePattern,
		"SecretSource.file":                filePattern,
		"NodeSpec.pinDir":                  filePattern,
		"NodeSpec.runDir":                  filePattern,
		"NodeKubernetesSpec.kubeconfig":    filePattern,
	}
}

// ranges are numbers with bounds.
func ranges() map[string][2]int {
	return map[string][2]int{
		"PostgresRoleSpec.connectionLimit": {1, 10000},
		"NodeSpec.listenPort":              {1, 65535},
		"LimitsSpec.sessions":              {1, 1_000_000},
		"LimitsSpec.sessionsPerJob":        {1, 1_000_000},
		"LimitsSpec.approvals":             {1, 100_000},
		"LimitsSpec.approvalsPerJob":       {1, 100_000},
		"ApprovalSpec.count":               {1, 10},
	}
}

// constrain adds to the definitions what types and comments don't say.
func constrain(defs jsonschema.Definitions) error {
	for _, def := range defs {
		constrainAll(def)
	}
	type change func(p *jsonschema.Schema)
	changes := map[string]change{
		"MaskSpec.detect": func(p *jsonschema.Schema) {
			p.Items = &jsonschema.Schema{Enum: []any{"payment-card", "iban", "email", "phone", "us-ssn", "private-key", "jwt", "cloud-key", "url-password"}}
		},
		"Rule.message": func(p *jsonschema.Schema) {
			most := uint64(500)
			p.MaxLength = &most
		},
		"TransformObject.fixed": func(p *jsonschema.Schema) {
			most := uint64(1024)
			p.MaxLength = &most
		},
	}
	for at, words := range enums() {
		changes[at] = func(p *jsonschema.Schema) { p.Type, p.MinLength, p.Enum = "", nil, words }
	}
	for at, pattern := range patterns() {
		changes[at] = func(p *jsonschema.Schema) {
			if p.Items != nil {
				p.Items.Pattern = pattern
			} else {
				p.Pattern, p.MinLength = pattern, nil
			}
		}
	}
	for at, bounds := range ranges() {
		changes[at] = func(p *jsonschema.Schema) { p.Minimum, p.Maximum = number(bounds[0]), number(bounds[1]) }
	}
	for at, change := range changes {
		p, err := property(defs, at)
		if err != nil {
			return err
		}
		change(p)
	}
	return together(defs)
}

// property finds "Definition.field".
func property(defs jsonschema.Definitions, at string) (*jsonschema.Schema, error) {
	name, field, _ := strings.Cut(at, ".")
	def, ok := defs[name]
	if !ok || def.Properties == nil {
		return nil, fmt.Errorf("%s: there is no such definition", at)
	}
	p, ok := def.Properties.Get(field)
	if !ok {
		return nil, fmt.Errorf("%s: there is no such field", at)
	}
	return p, nil
}

// constrainAll adds what holds for every definition: no list has empty or repeated
// items, what is required is not empty, and files are named by absolute paths.
func constrainAll(def *jsonschema.Schema) {
	if def.Properties == nil {
		return
	}
	for p := def.Properties.Oldest(); p != nil; p = p.Next() {
		required := slices.Contains(def.Required, p.Key)
		switch p.Value.Type {
		case "array":
			most := uint64(maxItems)
			p.Value.MaxItems = &most
			if p.Value.Items.Type == "string" {
				p.Value.UniqueItems = true
				p.Value.Items.Pattern = `\S`
			}
			if required {
				p.Value.MinItems = one()
			}
		case "string":
			if required {
				p.Value.MinLength = one()
			}
			if strings.HasSuffix(p.Key, "File") {
				p.Value.Pattern, p.Value.MinLength = filePattern, nil
			}
		case "integer":
			if p.Value.Minimum == "" {
				p.Value.Minimum = "0"
			}
		}
	}
}

func number(n int) json.Number { return json.Number(strconv.Itoa(n)) }

// together adds which fields need, or exclude, which others.
func together(defs jsonschema.Definitions) error {
	for _, name := range []string{"SecretSource", "CredentialSpec", "WorkloadSelect"} {
		def, ok := defs[name]
		if !ok {
			return fmt.Errorf("%s: there is no such definition", name)
		}
		exactlyOne(def)
	}
	for _, at := range []string{"PolicySpec.principals", "ApprovalSpec.from", "EscalationSpec.to"} {
		p, err := property(defs, at)
		if err != nil {
			return err
		}
		p.AnyOf = someOf("groups", "subjects")
	}
	defs["MaskSpec"].AnyOf = someOf("columns", "detect")

	not := jsonschema.FalseSchema
	rule := defs["Rule"]
	rule.AllOf = append(rule.AllOf,
		&jsonschema.Schema{If: is("then", policy.Approve), Then: &jsonschema.Schema{Required: []string{"approval"}}, Else: with("approval", not)},
		&jsonschema.Schema{If: is("then", policy.Allow), Then: with("message", not)})
	defs["MaskSpec"].AllOf = []*jsonschema.Schema{
		{
			If:   &jsonschema.Schema{AnyOf: []*jsonschema.Schema{is("untraceable", policy.UntraceableApprove), is("predicates", policy.PredicatesApprove)}},
			Then: &jsonschema.Schema{Required: []string{"approval"}}, Else: with("approval", not),
		}}
	defs["TargetSpec"].AllOf = []*jsonschema.Schema{
		{If: is("protocol", policy.ProtocolSSH), Then: with("tls", not), Else: with("hostKeys", not)}}
	for _, of := range [][]string{
		{policy.ProtocolPostgres, "postgresRole", "postgresCert", "postgresSecret"},
		{policy.ProtocolSSH, "sshCert"}, {policy.ProtocolKubernetes, "kubeToken"},
	} {
		credential := &jsonschema.Schema{}
		for _, kind := range of[1:] {
			credential.AnyOf = append(credential.AnyOf, &jsonschema.Schema{Required: []string{kind}})
		}
		defs["TargetSpec"].AllOf = append(defs["TargetSpec"].AllOf,
			&jsonschema.Schema{If: is("protocol", of[0]), Then: with("credential", credential)})
	}
	tlsOff := with("tls", &jsonschema.Schema{Required: []string{"mode"}, Properties: with("mode", &jsonschema.Schema{Enum: []any{policy.TLSDisable}}).Properties})
	tlsOff.Required = []string{"tls"}
	defs["TargetSpec"].AllOf = append(defs["TargetSpec"].AllOf,
		&jsonschema.Schema{If: tlsOff, Then: with("credential", with("postgresCert", not))})
	defs["TLSSpec"].AllOf = []*jsonschema.Schema{
		{If: is("mode", policy.TLSDisable), Then: with("caFile", not)},
		{If: is("mode", policy.TLSDisable), Then: with("serverName", not)}}
	defs["NodeSpec"].AllOf = []*jsonschema.Schema{
		{If: is("belt", policy.BeltNode), Else: with("exempt", empty())}}
	defs["EgressSpec"].AllOf = []*jsonschema.Schema{
		{If: is("default", policy.EgressAllow), Then: with("allow", empty())}}
	defs["NATSSpec"].Required = []string{"url"}
	defs["NATSSpec"].Not = &jsonschema.Schema{Required: []string{"credsFile", "nkeyFile"}}
	defs["IdentitySpec"].Not = &jsonschema.Schema{Required: []string{"tokenFile", "clientCredentials"}}
	return nil
}

// exactlyOne wants one of an object's fields.
func exactlyOne(def *jsonschema.Schema) {
	if def.Properties.Len() == 1 {
		def.Required = []string{def.Properties.Oldest().Key}
		return
	}
	for p := def.Properties.Oldest(); p != nil; p = p.Next() {
		def.OneOf = append(def.OneOf, &jsonschema.Schema{Required: []string{p.Key}})
	}
}

// someOf wants at least one of the lists, with something in it.
func someOf(lists ...string) []*jsonschema.Schema {
	var all []*jsonschema.Schema
	for _, list := range lists {
		s := with(list, &jsonschema.Schema{MinItems: one()})
		s.Required = []string{list}
		all = append(all, s)
	}
	return all
}

func with(field string, s *jsonschema.Schema) *jsonschema.Schema {
	object := &jsonschema.Schema{Properties: jsonschema.NewProperties()}
	object.Properties.Set(field, s)
	return object
}

func empty() *jsonschema.Schema {
	none := uint64(0)
	return &jsonschema.Schema{MaxItems: &none}
}
