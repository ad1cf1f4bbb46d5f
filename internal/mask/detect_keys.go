package mask

import "bytes"

// keyKind is a kind of cloud provider's or forge's key: a prefix and at least
// min, at most max characters of a class. max 0 is no bound. The prefix can be
// told by its character at, of those that lead to a key (leads), and the one
// before that. As many characters of the class as lead says stand before it,
// the last of them a digit.
type keyKind struct {
	prefix   string
	at       int
	class    func(byte) bool
	min, max int
	lead     int
}

func upperDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' }

func azureSecret(c byte) bool { return base64url(c) || c == '.' || c == '~' }

var keyKinds = [...]keyKind{
	{prefix: "AKIA", at: 2, class: upperDigit, min: 16, max: 16}, // AWS access key ids
	{prefix: "ASIA", at: 2, class: upperDigit, min: 16, max: 16},
	{prefix: "AIza", at: 1, class: base64url, min: 35, max: 35},          // Google API key
	{prefix: "GOCSPX-", at: 6, class: base64url, min: 28, max: 28},       // Google OAuth client secret
	{prefix: "Q~", at: 1, class: azureSecret, min: 31, max: 34, lead: 4}, // Azure AD client secret
	{prefix: "ghp_", at: 3, class: alnum, min: 36},                       // GitHub tokens
	{prefix: "gho_", at: 3, class: alnum, min: 36},
	{prefix: "ghu_", at: 3, class: alnum, min: 36},
	{prefix: "ghs_", at: 3, class: alnum, min: 36},
	{prefix: "ghr_", at: 3, class: alnum, min: 36},
	{prefix: "github_pat_", at: 10, class: base64url, min: 22},
	{prefix: "glpat-", at: 5, class: base64url, min: 20}, // GitLab
	{prefix: "xoxa-", at: 4, class: base64url, min: 10},  // Slack tokens
	{prefix: "xoxb-", at: 4, class: base64url, min: 10},
	{prefix: "xoxe-", at: 4, class: base64url, min: 10},
	{prefix: "xoxo-", at: 4, class: base64url, min: 10},
	{prefix: "xoxp-", at: 4, class: base64url, min: 10},
	{prefix: "xoxr-", at: 4, class: base64url, min: 10},
	{prefix: "xoxs-", at: 4, class: base64url, min: 10},
	{prefix: "sk_live_", at: 7, class: alnum, min: 16}, // Stripe
	{prefix: "rk_live_", at: 7, class: alnum, min: 16},
	{prefix: "sk_test_", at: 7, class: alnum, min: 16},
	{prefix: "rk_test_", at: 7, class: alnum, min: 16},
	{prefix: "whsec_", at: 5, class: alnum, min: 24},
	{prefix: "sk-ant-", at: 6, class: base64url, min: 24},                                                  // Anthropic
	{prefix: "sk-proj-", at: 7, class: base64url, min: 24},                                                 // OpenAI
	{prefix: "SG.", at: 1, class: func(c byte) bool { return base64url(c) || c == '.' }, min: 60, max: 68}, // SendGrid
	{prefix: "npm_", at: 3, class: alnum, min: 36, max: 36},
	{prefix: "pypi-AgE", at: 4, class: base64url, min: 50},
	{prefix: "dop_v1_", at: 3, class: hexDigit, min: 64, max: 64}, // DigitalOcean
	{prefix: "shpat_", at: 5, class: hexDigit, min: 32, max: 32},  // Shopify
	{prefix: "hf_", at: 2, class: alnum, min: 34, max: 40},        // Hugging Face
	{prefix: "lin_api_", at: 3, class: alnum, min: 40, max: 40},   // Linear
}

// namedKey is a key that only its name in a setting tells: AccountKey=….
type namedKey struct {
	name     string // in small letters
	at       int    // of a character that leads to it
	min, max int
}

var namedKeys = [...]namedKey{
	{"accountkey", 7, 86, 88}, // Azure storage and Cosmos DB
	{"sharedaccesskey", 12, 43, 44},
	{"secretaccesskey", 12, 40, 40}, // AWS
	{"secret_access_key", 6, 40, 40},
}

// leads are the marks of the characters that keys are told by: - _ I K G ~.
const leads = markDash | markUnder | markI | markRare

// findCloudKey goes from one character that a key can be told by to the next.
func findCloudKey(b []byte, from int) (start, end int, ok bool) {
	for i := max(from, 1); i < len(b); i++ {
		if marks[b[i]]&leads == 0 || !leadsTo[b[i-1]] {
			continue
		}
		if start, end = keyAt(b, i); end > 0 && start >= from {
			return start, end, true
		}
	}
	return 0, 0, false
}

// leadsTo are the characters that stand before those of leads.
var leadsTo = func() (m [256]bool) {
	for _, k := range keyKinds {
		m[k.prefix[k.at-1]] = true
	}
	for _, c := range "tTsS" { // of namedKeys
		m[c] = true
	}
	return m
}()

// dashed tells whether a dash stands where one of a key's prefix could.
func dashed(b []byte) bool {
	for i := 1; i < len(b); i++ {
		next := bytes.IndexByte(b[i:], '-')
		if next < 0 {
			return false
		}
		if i += next; leadsTo[b[i-1]] {
			return true
		}
	}
	return false
}

// keyAt returns the key that b[i], one of leads, tells of.
func keyAt(b []byte, i int) (start, end int) {
	for k := range keyKinds {
		kind := &keyKinds[k]
		if kind.prefix[kind.at] == b[i] && kind.prefix[kind.at-1] == b[i-1] {
			if start, end := kind.find(b, i-kind.at); end > 0 {
				return start, end
			}
		}
	}
	if b[i] == '_' || b[i] == 'K' {
		for _, named := range namedKeys {
			if start, end := named.find(b, i-named.at); end > 0 {
				return start, end
			}
		}
	}
	return 0, 0
}

func (k *keyKind) find(b []byte, prefix int) (start, end int) {
	start = prefix - k.lead
	if start < 0 || !bytes.HasPrefix(b[prefix:], []byte(k.prefix)) || within(b, start) || k.lead > 0 && span(b[:prefix], start, k.class) != prefix {
		return 0, 0
	}
	if k.lead > 0 && !digit(b[prefix-1]) {
		return 0, 0
	}
	if k.lead > 0 && start > 0 && b[start-1] == '\\' {
		start++ // the rest of an escape
	}
	begin := prefix + len(k.prefix)
	most := len(b)
	if k.max > 0 {
		most = min(most, begin+k.max+2) // one too many, and the end of a sentence
	}
	end = span(b[:most], begin, k.class)
	for end > begin && b[end-1] == '.' { // of the sentence
		end--
	}
	if n := end - begin; n < k.min || k.max > 0 && n > k.max {
		return 0, 0
	}
	return start, end
}

// find finds the value of a setting in the name of which b[name] is the first
// character: behind =, : or =>, with or without blanks and quotes.
func (k *namedKey) find(b []byte, name int) (start, end int) {
	value := name + len(k.name)
	if name < 0 || value > len(b) || !bytes.EqualFold(b[name:value], []byte(k.name)) {
		return 0, 0
	}
	start = span(b, value, func(c byte) bool {
		return c == ' ' || c == '"' || c == '\'' || c == '=' || c == ':' || c == '>' || c == '\\'
	})
	if start == value || start-value > 8 || !bytes.ContainsAny(b[value:start], "=:") {
		return 0, 0
	}
	end = span(b, start, func(c byte) bool { return alnum(c) || c == '+' || c == '/' })
	for end < len(b) && b[end] == '=' {
		end++
	}
	if n := end - start; n < k.min || n > k.max {
		return 0, 0
	}
	return start, end
}
