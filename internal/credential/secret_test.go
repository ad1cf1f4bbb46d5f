package credential_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"

	"chaperone.dev/chaperone/internal/credential"
)

type document struct{ S credential.Secret }

func TestSecretShowsItselfToNobodyButItsUser(t *testing.T) {
	const value = "correct-horse"
	s := credential.NewSecret(value)
	type inside struct {
		Public  credential.Secret
		private credential.Secret
		p       *credential.Secret
		list    []credential.Secret
		m       map[string]credential.Secret
	}
	all := inside{s, s, &s, []credential.Secret{s}, map[string]credential.Secret{"k": s}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T", "%10s"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", all)
	}
	fmt.Fprintln(&out, s, all, fmt.Errorf("failed with %v", s))
	for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal, xml.Marshal} {
		text, err := encode(document{s})
		if err != nil {
			t.Error(err)
		}
		out.Write(text)
	}
	log := slog.New(slog.NewTextHandler(&out, nil))
	log.Info("m", "s", s, "all", all)
	z := zerolog.New(&out)
	z.Info().Interface("s", s).Interface("all", all).Stringer("t", s).Any("a", &s).Msg("m")

	if strings.Contains(out.String(), value) || strings.Contains(out.String(), fmt.Sprintf("%x", value)) {
		t.Errorf("the secret is shown:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "[secret]") {
		t.Error("nothing says that there is a secret")
	}
	if s.Reveal() != value {
		t.Errorf("Reveal gives %q", s.Reveal())
	}
	if (credential.Secret{}).Reveal() != "" {
		t.Error("the zero value isn't empty")
	}
}
