package mask

import "bytes"

// keyKind is a kind of cloud provider's or forge's key: a prefix and at least
// min, at most max characters of a class. max 0 is no bound.
type keyKind struct {
	prefix   string
	class    func(byte) bool
	min, max int
}

func upperDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' }

var keyKinds = [...]keyKind{
	{"AKIA", upperDigit, 16, 16}, // AWS access key ids
	{"ASIA", upperDigit, 16, 16},
	{"AIza", base64url, 35, 35}, // Google API key
	{"ghp_", alnum, 36, 0},      // GitHub tokens
	{"gho_", alnum, 36, 0},
	{"ghu_", alnum, 36, 0},
	{"ghs_", alnum, 36, 0},
	{"ghr_", alnum, 36, 0},
	{"github_pat_", base64url, 22, 0},
	{"glpat-", base64url, 20, 0}, // GitLab
	{"xoxa-", base64url, 10, 0},  // Slack tokens
	{"xoxb-", base64url, 10, 0},
	{"xoxe-", base64url, 10, 0},
	{"xoxo-", base64url, 10, 0},
	{"xoxp-", base64url, 10, 0},
	{"xoxr-", base64url, 10, 0},
	{"xoxs-", base64url, 10, 0},
	{"sk_live_", alnum, 16, 0}, // Stripe
	{"rk_live_", alnum, 16, 0},
}

// findCloudKey goes from one character that a prefix ends with to the next.
func findCloudKey(b []byte, from int) (int, int, bool) {
	for i := from; i < len(b); i++ {
		switch b[i] {
		case 'A':
			if i == 0 || b[i-1] != 'I' {
				continue
			}
		case 'a':
			if i == 0 || b[i-1] != 'z' {
				continue
			}
		case '_', '-':
		default:
			continue
		}
		for k := range keyKinds {
			kind := &keyKinds[k]
			start := i + 1 - len(kind.prefix)
			if start < from || kind.prefix[len(kind.prefix)-1] != b[i] || string(b[start:i+1]) != kind.prefix {
				continue
			}
			if start > 0 && alnum(b[start-1]) {
				continue
			}
			end := span(b, i+1, kind.class)
			if n := end - (i + 1); n < kind.min || kind.max > 0 && n > kind.max {
				continue
			}
			return start, end, true
		}
	}
	return 0, 0, false
}

// local tells whether a character may be in the part of an address before "@".
func local(c byte) bool {
	return alnum(c) || c >= 0x80 || bytes.IndexByte([]byte("!#$%&'*+/=?^_`{|}~.-"), c) >= 0
}

func domain(c byte) bool { return alnum(c) || c >= 0x80 || c == '-' || c == '.' }

// findEmail looks for addresses without quoting: local@label.label, with a last
// label of two characters at least that isn't a number.
func findEmail(b []byte, from int) (int, int, bool) {
	for at := from; ; at++ {
		i := bytes.IndexByte(b[at:], '@')
		if i < 0 {
			return 0, 0, false
		}
		at += i
		start := at
		for start > from && local(b[start-1]) {
			start--
		}
		end := span(b, at+1, domain)
		for end > at+1 && (b[end-1] == '.' || b[end-1] == '-') {
			end--
		}
		if start == at || end == at+1 || b[at+1] == '.' || b[at+1] == '-' {
			continue
		}
		dot := bytes.LastIndexByte(b[at+1:end], '.')
		if dot <= 0 {
			continue
		}
		last := b[at+1+dot+1 : end]
		if len(last) < 2 || last[0] >= '0' && last[0] <= '9' {
			continue
		}
		return start, end, true
	}
}
