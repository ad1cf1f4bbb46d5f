package policy

import "reflect"

// The policy language names more than this release enforces. What isn't
// enforced is refused by name, so that nobody relies on a rule that does
// nothing.

const notSupported = " is not supported by this release"

// unsupported returns what to tell about a field of the language that isn't
// enforced yet.
func unsupported(in reflect.Type, field string) (hint string, ok bool) {
	for _, f := range unsupportedFields() {
		if f.in == in && f.name == field {
			return f.name + notSupported + "; " + f.instead, true
		}
	}
	return "", false
}

type unsupportedField struct {
	in            reflect.Type
	name, instead string
}

func unsupportedFields() []unsupportedField {
	const (
		onlyRole   = "the only credential is postgresRole"
		onlyPlain  = "use redact, null, keepFirst or keepLast"
		noApproval = "rules allow or deny"
	)
	return []unsupportedField{
		{reflect.TypeFor[Rule](), "approval", noApproval},
		{reflect.TypeFor[Transform](), "hmac", onlyPlain},
		{reflect.TypeFor[CredentialSpec](), "sshCert", onlyRole},
		{reflect.TypeFor[CredentialSpec](), "kubeToken", onlyRole},
		{reflect.TypeFor[CredentialSpec](), "clientCert", onlyRole},
		{reflect.TypeFor[CredentialSpec](), "static", onlyRole},
		{reflect.TypeFor[CredentialSpec](), "vault", onlyRole},
	}
}

// unsupportedVariables are those of the expression language that belong to
// protocols which this release doesn't speak.
func unsupportedVariable(name string) bool {
	switch name {
	case "command", "file", "request":
		return true
	}
	return false
}
