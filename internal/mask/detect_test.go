package mask

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestDetectorNames(t *testing.T) {
	want := []string{"cloud-key", "email", "jwt", "payment-card", "private-key"}
	if got := Detectors(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestText(t *testing.T) {
	r := detectAll(t)
	hidden := map[string]string{
		"4111111111111111":                                      "[payment-card]",
		"4111-1111-1111-1111":                                   "[payment-card]",
		"x4111 1111 1111 1111x":                                 "x[payment-card]x",
		"378282246310005":                                       "[payment-card]",
		"7 4111 1111 1111 1111 8":                               "7 [payment-card] 8",
		"5555555555554444,378282246310005;6011111111111117":     "[payment-card],[payment-card];[payment-card]",
		"3782 822463 10005, 3056 930902 5904, 4222-222-222-222": "[payment-card], [payment-card], [payment-card]",
		"4222222222222 30569309025904":                          "[payment-card] [payment-card]",
		"4111 1111 1111 1111 5555 5555 5555 4444":               "[payment-card] [payment-card]",
		`Key (email)=(a.b@c.example) already exists.`:           `Key (email)=([email]) already exists.`,
		"<a@b.co>,b@c.de":                                       "<[email]>,[email]",
		"münz@straße.example":                                   "[email]",
		"a@b.co.":                                               "[email].",
		pem:                                                     "[private-key]",
		"-----BEGIN PRIVATE KEY-----\nMIIE":                     "[private-key]",
		"-----BEGIN OPENSSH PRIVATE KEY-----x-----END OPENSSH PRIVATE KEY-----":           "[private-key]",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP PRIVATE KEY BLOCK-----\n": "[private-key]\n",
		token:                                     "[jwt]",
		"t=" + token + "&x":                       "t=[jwt]&x",
		"eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.":    "[jwt]",
		"AKIAIOSFODNN7EXAMPLE":                    "[cloud-key]",
		"AIza" + strings.Repeat("a", 35):          "[cloud-key]",
		"ghp_" + strings.Repeat("a1", 18):         "[cloud-key]",
		"github_pat_" + strings.Repeat("a_1", 10): "[cloud-key]",
		"xoxb-1234567890-abcdef":                  "[cloud-key]",
		"glpat-" + strings.Repeat("x", 20):        "[cloud-key]",
		"sk_live_" + strings.Repeat("x", 24):      "[cloud-key]",
	}
	for in, want := range hidden {
		if got := r.Text(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if got := string(r.Bytes([]byte(in))); got != want {
			t.Errorf("Bytes(%q): %q, want %q", in, got, want)
		}
	}
	for _, clean := range []string{
		"", "hello", "4111111111111112", "1234567890123456", "41111111111111110000", "4111  1111 1111 1111", "4111-1111 1111-1111", "4 111111111111111", "3 900000000006 17", "0000000000000000",
		"411111111111111", "1700000000000", "2024-01-01 10:00:00.123456", "550e8400-e29b-41d4-a716-446655440000",
		"@", "a@", "@b.co", "a@b", "a@1.2", "a@.co", "x @ y.z", "a@b.1c", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
		"eyJ.eyJ.x", "xeyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x", "AKIA123", "AKIAIOSFODNN7EXAMPLEX", "XAKIAIOSFODNN7EXAMPLE",
		"ghp_short", "xox-", "SELECT a.b FROM t",
	} {
		if got := r.Text(clean); got != clean {
			t.Errorf("%q became %q", clean, got)
		}
	}
}

// Any text: no panic, what is replaced is gone, and JSON stays JSON.
func FuzzDetect(f *testing.F) {
	for _, s := range []string{card, pem, token, "a@b.co", "AKIAIOSFODNN7EXAMPLE", `{"a": 4111111111111111, "b": ["a@b.co", "\"4111111111111111"]}`,
		"4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4", "@@@@a@b.co", "-----BEGIN PRIVATE KEY-----END ", "eyJeyJ.eyJ.eyJ"} {
		f.Add(s)
	}
	r := detectAll(f)
	f.Fuzz(func(t *testing.T, s string) {
		once := r.Text(s)
		if twice := r.Text(once); twice != once {
			t.Errorf("%q → %q → %q", s, once, twice)
		}
		var counts [detectorCount]uint64
		out := r.detectors.replace([]byte(s), true, &counts)
		if json.Valid([]byte(s)) && !json.Valid(out) {
			t.Errorf("%q is no JSON any more: %q", s, out)
		}
		for d := range detectorCount {
			start, end, ok := d.find([]byte(s), 0)
			if ok && (start < 0 || end > len(s) || start >= end) {
				t.Errorf("%s finds %d:%d in %q", detectorNames[d], start, end, s)
			}
			if ok && !detectorSet(1<<d).possible([]byte(s)).has(d) {
				t.Errorf("the first pass misses %s in %q", detectorNames[d], s)
			}
		}
	})
}

// Every prefix is found by the quick look at one of its characters.
func TestPrefixMarks(t *testing.T) {
	for _, k := range keyKinds {
		if marks[k.prefix[k.at]]&(markDash|markUnder|markI) == 0 {
			t.Errorf("%s would never be found", k.prefix)
		}
	}
}
