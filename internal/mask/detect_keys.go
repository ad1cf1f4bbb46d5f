package mask

import "bytes"

// keyKind is a kind of cloud provider's or forge's key: a prefix and at least
// min, at most max characters of a class. max 0 is no bound. The prefix can be
// told by its character at: an "I", "_" or "-".
type keyKind struct {
	prefix   string
	at       int
	class    func(byte) bool
	min, max int
}

func upperDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' }

var keyKinds = [...]keyKind{
	{"AKIA", 2, upperDigit, 16, 16}, // AWS access key ids
	{"ASIA", 2, upperDigit, 16, 16},
	{"AIza", 1, base64url, 35, 35}, // Google API key
	{"ghp_", 3, alnum, 36, 0},      // GitHub tokens
	{"gho_", 3, alnum, 36, 0},
	{"ghu_", 3, alnum, 36, 0},
	{"ghs_", 3, alnum, 36, 0},
	{"ghr_", 3, alnum, 36, 0},
	{"github_pat_", 10, base64url, 22, 0},
	{"glpat-", 5, base64url, 20, 0}, // GitLab
	{"xoxa-", 4, base64url, 10, 0},  // Slack tokens
	{"xoxb-", 4, base64url, 10, 0},
	{"xoxe-", 4, base64url, 10, 0},
	{"xoxo-", 4, base64url, 10, 0},
	{"xoxp-", 4, base64url, 10, 0},
	{"xoxr-", 4, base64url, 10, 0},
	{"xoxs-", 4, base64url, 10, 0},
	{"sk_live_", 7, alnum, 16, 0}, // Stripe
	{"rk_live_", 7, alnum, 16, 0},
}

// findCloudKey goes from one character that a prefix can be told by to the next.
func findCloudKey(b []byte, from int) (int, int, bool) {
	for i := from; i < len(b); i++ {
		if marks[b[i]]&(markDash|markUnder|markI) == 0 {
			continue
		}
		if b[i] != 'I' && (i == 0 || b[i-1] < 'a' || b[i-1] > 'z') {
			continue // all the others have a small letter before it
		}
		for k := range keyKinds {
			kind := &keyKinds[k]
			start := i - kind.at
			if kind.prefix[kind.at] != b[i] || start < from || !bytes.HasPrefix(b[start:], []byte(kind.prefix)) {
				continue
			}
			if start > 0 && alnum(b[start-1]) {
				continue
			}
			begin := start + len(kind.prefix)
			end := span(b, begin, kind.class)
			if n := end - begin; n < kind.min || kind.max > 0 && n > kind.max {
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
