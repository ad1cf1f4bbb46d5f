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
	const known = "the credentials are postgresRole, postgresCert, postgresSecret, sshCert and kubeToken"
	return []unsupportedField{
		{reflect.TypeFor[CredentialSpec](), "clientCert", "use postgresCert"},
		{reflect.TypeFor[CredentialSpec](), "static", "use postgresSecret"},
		{reflect.TypeFor[CredentialSpec](), "vault", known},
	}
}
