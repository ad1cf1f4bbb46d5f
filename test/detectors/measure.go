package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"chaperone.dev/chaperone/internal/mask"
	"chaperone.dev/chaperone/pkg/policy"
)

// result is how one detector did.
type result struct {
	detector           string
	found, missed      int // of the secrets that it must find
	wrong              int // finds in what is no secret, or not the whole of one
	missedAs, wrongAs  []string
	precision, recalls float64
}

func (r *result) rate() {
	r.precision = float64(r.found) / float64(max(1, r.found+r.wrong))
	r.recalls = float64(r.found) / float64(max(1, r.found+r.missed))
}

func rulesFor(detectors ...string) (*mask.Rules, error) {
	return mask.Compile([]policy.Mask{{
		Metadata: policy.Metadata{Name: "measured"},
		Spec:     policy.MaskSpec{Targets: []string{"*"}, Detect: detectors},
	}}, "db", policy.Principal{})
}

// measure lets each detector look at all rows by itself. A find counts if
// exactly the secret was replaced, and nothing else.
func measure(rows []row) ([]result, error) {
	var results []result
	for _, name := range mask.Detectors() {
		rules, err := rulesFor(name)
		if err != nil {
			return nil, err
		}
		r := result{detector: name}
		for _, row := range rows {
			out := rules.Text(row.text)
			if row.kind == name {
				if out == strings.Replace(row.text, row.secret, "["+name+"]", 1) {
					r.found++
					continue
				}
				r.missed++
				r.missedAs = append(r.missedAs, row.text)
			}
			if out != row.text && !related(name, row.kind) {
				r.wrong++
				r.wrongAs = append(r.wrongAs, row.text+" ("+row.kind+row.from+")")
			}
		}
		r.rate()
		results = append(results, r)
	}
	return results, nil
}

// related: user:password@host looks like an address, and is one in part.
func related(detector, kind string) bool { return detector == "email" && kind == "url-password" }

// together lets all detectors look at all rows, and counts the secrets that are
// seen then, and the rows without one that are changed.
func together(rows []row) (seen, secrets, changed, clean int, err error) {
	rules, err := rulesFor(mask.Detectors()...)
	if err != nil {
		return 0, 0, 0, 0, err
	}
	for _, row := range rows {
		out := rules.Text(row.text)
		switch {
		case row.secret == "":
			if clean++; out != row.text {
				changed++
			}
		default:
			if secrets++; strings.Contains(out, row.secret) {
				seen++
			}
		}
	}
	return seen, secrets, changed, clean, nil
}

func report(w io.Writer, rows []row, results []result) error {
	seen, secrets, changed, clean, err := together(rows)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "| detector | precision | recall | found | missed | wrong |\n|---|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(w, "| `%s` | %.1f %% | %.1f %% | %d | %d | %d |\n", r.detector, 100*r.precision, 100*r.recalls, r.found, r.missed, r.wrong)
	}
	_, err = fmt.Fprintf(w, "\nAll together: of %d secrets %d are seen (%.1f %%), of %d rows without one %d are changed (%.1f %%).\n",
		secrets, seen, 100*float64(seen)/float64(secrets), clean, changed, 100*float64(changed)/float64(clean))
	return err
}

// examples prints some of what went wrong.
func examples(w io.Writer, results []result, most int) {
	if most <= 0 {
		return
	}
	for _, r := range results {
		for _, list := range []struct {
			what string
			rows []string
		}{{"missed", r.missedAs}, {"wrong", r.wrongAs}} {
			slices.Sort(list.rows)
			step := max(1, len(list.rows)/max(1, most))
			for i := 0; i < len(list.rows); i += step {
				fmt.Fprintf(w, "%s %s: %.200q\n", r.detector, list.what, list.rows[i])
			}
		}
	}
}
