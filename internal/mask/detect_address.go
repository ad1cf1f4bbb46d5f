package mask

import (
	"bytes"
	"slices"
)

// local tells whether a character may be in the part of an address before "@".
func local(c byte) bool {
	return alnum(c) || c >= 0x80 || bytes.IndexByte([]byte("!#$%&'*+/=?^_`{|}~.-"), c) >= 0
}

func domain(c byte) bool { return alnum(c) || c >= 0x80 || c == '-' || c == '.' }

// findEmail looks for addresses without quoting: local@label.label, with a last
// label of two characters at least that isn't a number nor the ending of a
// picture, as in logo@2x.png.
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
		start = behindEscape(b, behindName(b, start, at), at)
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
		if len(last) < 2 || digit(last[0]) || slices.Contains(pictures[:], string(last)) {
			continue
		}
		return start, end, true
	}
}

// behindName is start, or what is behind a name and "=": of a setting, or of a
// query's parameter. "=" may be in an address, but hardly ever is.
func behindName(b []byte, start, end int) int {
	i := bytes.IndexByte(b[start:end], '=')
	if i < 0 || span(b, start, func(c byte) bool { return base64url(c) || c == '/' || c == '?' || c == '&' }) != start+i {
		return start
	}
	return start + i + 1
}

var pictures = [...]string{"png", "jpg", "jpeg", "gif", "webp", "svg"}

// behindEscape is start, or what is behind the rest of an escape such as \n or
// \u00e4 that start is in: without its rest a text would be no JSON any more.
func behindEscape(b []byte, start, end int) int {
	if start == 0 || b[start-1] != '\\' || start == end {
		return start
	}
	if b[start] == 'u' && end-start >= 5 {
		return start + 5
	}
	return start + 1
}

// findURLPassword looks for the password in scheme://user:password@host. A / in
// it ought to be escaped, but isn't always: it is taken for a part of the
// password unless what is before it could be a port.
func findURLPassword(b []byte, from int) (int, int, bool) {
	for at := from; ; {
		i := bytes.Index(b[at:], []byte("://"))
		if i < 0 {
			return 0, 0, false
		}
		scheme := at + i
		at = scheme + len("://")
		if scheme == 0 || !alnum(b[scheme-1]) {
			continue
		}
		end := span(b, at, authority)
		last := bytes.LastIndexByte(b[at:end], '@')
		colon := bytes.IndexByte(b[at:end], ':')
		if last < 0 && colon >= 0 && end < len(b) && b[end] == '/' && span(b, at+colon+1, digit) < end {
			near := b[:min(len(b), end+maxPassword)]
			last = bytes.IndexByte(b[at:span(near, at, func(c byte) bool { return c == '/' || authority(c) })], '@')
		}
		if colon < 0 || last < 0 || colon+1 >= last || at+last+1 == len(b) || !hostBegin(b[at+last+1]) {
			continue
		}
		start := at + colon + 1
		if end = at + last; start < from || placeholder(b[start:end]) {
			continue
		}
		return start, end, true
	}
}

// maxPassword is how far behind a / the end of a password is looked for.
const maxPassword = 256

// authority tells whether a character may be in user:password@host:port.
func authority(c byte) bool {
	return c > ' ' && c != '/' && c != '?' && c != '#' && c != '"' && c != '<' && c != '>' && c != '`'
}

func hostBegin(c byte) bool {
	return alnum(c) || c >= 0x80 || c == '[' || c == '$' || c == '{' || c == '%'
}

// placeholder tells whether something stands for a password already.
func placeholder(v []byte) bool {
	if bytes.Equal(v, []byte(urlPassword.replacement())) || len(bytes.Trim(v, "*")) == 0 || len(bytes.Trim(v, "xX")) == 0 {
		return true
	}
	return bytes.HasPrefix(v, []byte("${")) && bytes.HasSuffix(v, []byte("}")) || bytes.HasPrefix(v, []byte("{{")) && bytes.HasSuffix(v, []byte("}}"))
}
