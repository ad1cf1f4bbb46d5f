package mask

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestDetectorNames(t *testing.T) {
	want := []string{"cloud-key", "email", "iban", "jwt", "payment-card", "phone", "private-key", "url-password", "us-ssn"}
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
	for in, want := range moreHidden() {
		hidden[in] = want
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
		// phone: identifiers, dates, decimals, addresses, lists
		"A0731-1234567", "ORD-0731-123456", "01.02.2024 10:22:31", "03 05 2024", "2024-05-03 10:22", "010.020.030.040", "192.168.100.200", "0123.456789",
		"01069-1234", "0002-1433-80", "212-555-01234", "1212-555-0123", "112-555-0123", "212-155-0123", "911-555-0123", "12 212 555 0123", "212 555 0123 4567",
		"+52.520008", "+48.8577+002.295/", "+123", "+999123456789", "+1 212 555 012", "+1234567890123456", "x+49 731 1234567", "00493112345678", "0000 1234 5678", "07311234567",
		// us-ssn
		"000-12-3456", "666-12-3456", "912-12-3456", "123-00-4567", "123-45-0000", "123-45 6789", "123-45-67890", "1123-45-6789", "A-123-45-6789", "12 123 45 6789",
		// iban: check digits, length, country
		"DE89370400440532013001", "DE8937040044053201300", "XX89370400440532013000", "ADE89370400440532013000", "DE89 3704 0044 0532 0130 01", "de89-3704-0044-0532-0130-00", "GB82-WEST1-2345698765432",
		// url-password
		"https://host:8080/a@b", "ssh://git@host/x", "https://user:@host/", "https://user:***@host/", "https://user:${PW}@host", "http://[::1]:80/", "postgres://u:[url-password]@h/db",
		"logo@2x.png", "SG.short.key", "AccountKey=short", "Q~",
	} {
		if got := r.Text(clean); got != clean {
			t.Errorf("%q became %q", clean, got)
		}
	}
}

func moreHidden() map[string]string {
	long := strings.Repeat("Ab1", 40)
	return map[string]string{
		"call +49 731 1234567.": "call [phone].", "+1 (212) 555-0123": "[phone]", "+41 (0)44 668 18 00": "[phone]", "tel:+442079460958": "tel:[phone]",
		"+49.7311234567": "[phone]", "0049 731 1234567": "[phone]", "001-212-555-0123": "[phone]",
		"(212) 555-0123": "[phone]", "212-555-0123": "[phone]", "212.555.0123,": "[phone],", "1-212-555-0123": "[phone]", "(0731) 12 34 56": "[phone]",
		"0731 1234567": "[phone]", "030/1234567": "[phone]", "01 23 45 67 89": "[phone]", "01.23.45.67.89": "[phone]", "020-7946-0958": "[phone]", "090-1234-5678": "[phone]",
		"a\\n212-555-0123": "a\\n[phone]", "+49 731 1234567 2024-05-03": "[phone] 2024-05-03",
		"SSN 123-45-6789": "SSN [us-ssn]", "(123 45 6789)": "([us-ssn])", "123-45-6789.": "[us-ssn].", `"\u00e4\n123-45-6789"`: `"\u00e4\n[us-ssn]"`,
		"DE89370400440532013000": "[iban]", "to DE89 3704 0044 0532 0130 00, now": "to [iban], now", "GB82-WEST-1234-5698-7654-32": "[iban]",
		"NO9386011117947": "[iban]", "MT84MALT011000012345MTLCAST001S": "[iban]", "GB82 WEST 1234 5698 7654 32 1234": "[iban] 1234",
		"postgres://bob:s3cr@t!@db.example.com:5432/x": "postgres://bob:[url-password]@db.example.com:5432/x", "redis://:pw@10.0.0.1": "redis://:[url-password]@10.0.0.1",
		`{"u": "amqp://u:p@h"}`:    `{"u": "amqp://u:[url-password]@h"}`,
		"DE89 37040044 0532013000": "[iban]", "de89370400440532013000": "[iban]", "6214 7025 5325 8916 6": "[payment-card]",
		"mail=a.b@c.de": "mail=[email]", "/x?to=a@b.co&y": "/x?to=[email]&y", "amqp://u:a/b1@h": "amqp://u:[url-password]@h",
		"GOCSPX-" + strings.Repeat("a", 28): "[cloud-key]", "abc8Q~" + strings.Repeat("x", 34): "[cloud-key]", "sk-ant-api03-" + strings.Repeat("x", 30): "[cloud-key]",
		"SG." + strings.Repeat("a", 22) + "." + strings.Repeat("b", 43): "[cloud-key]", "whsec_" + strings.Repeat("x", 32): "[cloud-key]",
		"AccountKey=" + long[:86] + "==;End": "AccountKey=[cloud-key];End", `"SecretAccessKey": "` + long[:40] + `"`: `"SecretAccessKey": "[cloud-key]"`,
		"AWS_SECRET_ACCESS_KEY=" + long[:40]: "AWS_SECRET_ACCESS_KEY=[cloud-key]", `x\nAKIAIOSFODNN7EXAMPLE`: `x\n[cloud-key]`, `x\na@b.co`: `x\n[email]`,
	}
}

// Any text: no panic, what is replaced is gone, and JSON stays JSON.
func FuzzDetect(f *testing.F) {
	for _, s := range []string{card, pem, token, "a@b.co", "AKIAIOSFODNN7EXAMPLE", `{"a": 4111111111111111, "b": ["a@b.co", "\"4111111111111111"]}`,
		"4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4 4", "@@@@a@b.co", "-----BEGIN PRIVATE KEY-----END ", "eyJeyJ.eyJ.eyJ",
		"+1 (212) 555-0123 1-212-555-0123", "x 0731 12 34 56/0049 731 1234567, 123-45-6789", "DE89 3704 0044 0532 0130 00 no9386011117947", `{"u": "a://b:c/d@e", "v": "\n4111-1111-1111-1111\u0020a@b.co"}`,
		"SecretAccessKey: \"" + strings.Repeat("Ab1+", 10), "abc8Q~" + strings.Repeat("x", 34), strings.Repeat("9f86d081", 7) + " 01 23 45 67 89 212.555.0123 6214 7025 5325 8916 6"} {
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
			if ok && (!detectorSet(1<<d).possible([]byte(s)).has(d) || !r.detectors.possible([]byte(s)).has(d)) {
				t.Errorf("the first pass misses %s in %q", detectorNames[d], s)
			}
		}
	})
}

// A key in lines that are strings of their own, and one that has no end.
func TestPrivateKeysInJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": ["-----BEGIN PRIVATE KEY-----", "MIIE", "x\"", "-----END PRIVATE KEY-----"], "b": "c"}`: `{"a": ["[private-key]", "[private-key]", "[private-key]", "[private-key]"], "b": "c"}`,
		`{"a": "-----BEGIN PRIVATE KEY-----\nMIIE", "b": "c"}`:                                         `{"a": "[private-key]", "b": "c"}`,
		`{"a": "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", "b": "c"}`:            `{"a": "[private-key]\n", "b": "c"}`,
	} {
		var counts [detectorCount]uint64
		if got := string(detectAll(t).detectors.replace([]byte(in), true, &counts)); got != want || counts[privateKey] == 0 {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

// Finds beside each other, in each other and cut in pieces: the quick look misses
// none, what is left has nothing in it, and JSON stays JSON.
func TestGluedTexts(t *testing.T) {
	r := detectAll(t)
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"4111 1111 1111 1111", "4111", "6214 7025 5325 8916 6", "DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "no93", "+49 731 1234567", "+1 (212) 555-0123", "212-555-0123", "(0731)", "01 23 45 67 89",
		"0049-731-1234567", "123-45-6789", "123 45 6789", "000", "a@b.co", "x=c@d.de", token, "eyJ", pem, "-----BEGIN PRIVATE KEY-----", "AKIAIOSFODNN7EXAMPLE", "xoxb-1234567890-abcdef", "AccountKey=", strings.Repeat("aB1/", 22) + "==",
		"Q~" + strings.Repeat("x", 34), "abc8", "postgres://u:p@h/db", "redis://:a/b@h", "[phone]", "[url-password]", "1", "12", "5", "abc", "é", "://", "@", `"`, `\`, "\n", "\t"}
	glue := []string{"", "", " ", " ", "-", ".", "/", ":", ",", "(", ")", "+", "\n", `\n`, "=", "_"}
	for range 30_000 {
		var text strings.Builder
		for range 1 + random.IntN(6) {
			text.WriteString(pieces[random.IntN(len(pieces))])
			text.WriteString(glue[random.IntN(len(glue))])
		}
		s := text.String()
		once := r.Text(s)
		if twice := r.Text(once); twice != once {
			t.Errorf("%q → %q → %q", s, once, twice)
		}
		possible := r.detectors.possible([]byte(s))
		for d := range detectorCount {
			if _, _, ok := d.find([]byte(s), 0); ok && (!possible.has(d) || !detectorSet(1<<d).possible([]byte(s)).has(d)) {
				t.Errorf("the first pass misses %s in %q", detectorNames[d], s)
			}
		}
		quoted, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var counts [detectorCount]uint64
		if out := r.detectors.replace(quoted, true, &counts); !json.Valid(out) {
			t.Errorf("%s became %s", quoted, out)
		}
	}
}

// Every prefix is found by the quick look at one of its characters.
func TestPrefixMarks(t *testing.T) {
	for _, k := range keyKinds {
		text := []byte(strings.Repeat("8", k.lead) + k.prefix + strings.Repeat("a", k.min))
		if !detectorSet(1<<cloudKey).possible(text).has(cloudKey) || marks[k.prefix[k.at]]&leads == 0 {
			t.Errorf("%s would never be found", k.prefix)
		}
	}
}
