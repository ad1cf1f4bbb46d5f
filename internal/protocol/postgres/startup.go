package postgres

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"chaperone.dev/chaperone/pkg/event"
)

// Startup is what a client said in its startup packet. Nothing of it proves
// anything.
type Startup struct {
	User     string
	Database string            // the user's name when the client gave none
	Params   map[string]string // the run-time parameters, "options" among them
	Minor    uint16            // the minor protocol version that is spoken: 0 or 2
	TLS      bool
	// ServerName is the host name in the TLS handshake (RFC 6066); empty
	// without TLS and when the client connects to an address.
	ServerName string
}

// Setting is one run-time parameter that a client asks for.
type Setting struct{ Name, Value string }

// Settings are the run-time parameters that the startup packet sets, in the
// order in which the server applies them, those within "options" taken apart.
// Names are in lower case. They are settings like those of SQL's SET, and can
// as well name "role" or "search_path": they are to be judged before they go
// upstream. An error is a *Refusal: an option that is no setting.
func (s Startup) Settings() ([]Setting, error) {
	settings, err := splitOptions(s.Params["options"])
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Params)) {
		if name != "options" {
			settings = append(settings, Setting{strings.ToLower(name), s.Params[name]})
		}
	}
	return settings, nil
}

// splitOptions reads the value of "options" as the server does: words between
// white space, with backslash escapes (pg_split_opts), each "-c name=value" or
// "--name=value".
func splitOptions(options string) ([]Setting, error) {
	var settings []Setting
	words := optionWords(options)
	for i := 0; i < len(words); i++ {
		word := words[i]
		setting, ok := strings.CutPrefix(word, "--")
		if !ok {
			if setting, ok = strings.CutPrefix(word, "-c"); ok && setting == "" && i+1 < len(words) {
				i++
				setting = words[i]
			}
		}
		name, value, assigns := strings.Cut(setting, "=")
		if !ok || !assigns || name == "" {
			return nil, &Refusal{
				Reason: event.ReasonProtocol, SQLState: "0A000",
				Message: fmt.Sprintf("command-line option %q can't be passed on", word),
				Hint:    `Only settings can be: "-c name=value" or "--name=value".`,
			}
		}
		name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
		settings = append(settings, Setting{name, value})
	}
	return settings, nil
}

func optionWords(options string) []string {
	var words []string
	var word []byte
	inWord := false
	for i := 0; i < len(options); i++ {
		c := options[i]
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
			if inWord {
				words = append(words, string(word))
			}
			word, inWord = word[:0], false
			continue
		case c == '\\' && i+1 < len(options):
			i++
			c = options[i]
		case c == '\\':
			continue
		}
		word, inWord = append(word, c), true
	}
	if inWord {
		words = append(words, string(word))
	}
	return words
}

// maxStartupPacket bounds the packets before the first message, as
// PostgreSQL's MAX_STARTUP_PACKET_LENGTH does.
const maxStartupPacket = 10000

// startupPacket is a startup packet as it was read.
type startupPacket struct {
	major, minor uint16
	params       map[string]string
	extensions   []string // names of protocol options ("_pq_.…") that it asks for
}

// readStartup reads the packet after its length. An error is a *Refusal.
func readStartup(packet []byte) (startupPacket, error) {
	b := body{rest: packet}
	version := b.uint32()
	p := startupPacket{major: uint16(version >> 16), minor: uint16(version), params: make(map[string]string)}
	if p.major != protocolMajor {
		return p, &Refusal{
			Reason: event.ReasonProtocol, SQLState: "0A000",
			Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports %d.0 to %d.%d",
				p.major, p.minor, protocolMajor, protocolMajor, protocolMinor),
		}
	}
	for {
		name := string(b.cstring())
		if name == "" {
			break
		}
		value := string(b.cstring())
		if strings.HasPrefix(name, "_pq_.") {
			p.extensions = append(p.extensions, name)
			continue
		}
		p.params[name] = value
	}
	if !b.whole() {
		return p, protocolError("invalid startup packet layout: expected terminator as last byte", nil)
	}
	return p, nil
}

// startup judges what the packet asks for. An error is a *Refusal.
func (p startupPacket) startup() (Startup, error) {
	s := Startup{Params: p.params, User: p.params["user"], Database: p.params["database"]}
	if p.minor >= 2 {
		s.Minor = 2
	}
	if s.User == "" {
		return s, &Refusal{
			Reason: event.ReasonProtocol, SQLState: "28000",
			Message: "no PostgreSQL user name specified in startup packet",
		}
	}
	if s.Database == "" {
		s.Database = s.User
	}
	replication := strings.ToLower(p.params["replication"])
	switch replication {
	case "", "0", "f", "false", "n", "no", "off":
	default:
		return s, &Refusal{
			Reason: event.ReasonProtocol, SQLState: "0A000",
			Message: "replication connections are not let through",
			Detail:  "A replication stream holds every row of every table, and no statement to decide on or column to mask.",
			Hint: "Read what is needed with SELECT or COPY, on a connection without the replication parameter. " +
				"Run backups, standbys and subscriptions outside of planner jobs.",
		}
	}
	delete(p.params, "user")
	delete(p.params, "database")
	delete(p.params, "replication")
	return s, nil
}

// appendNegotiation appends the answer to a packet that asks for a newer minor
// version or for protocol options, of which there are none here. Like
// PostgreSQL, it tells the version with its major part.
func appendNegotiation(dst []byte, p startupPacket) []byte {
	if p.minor <= protocolMinor && len(p.extensions) == 0 {
		return dst
	}
	version := uint32(protocolMajor)<<16 | uint32(min(p.minor, protocolMinor))
	dst, start := beginMessage(dst, msgNegotiateProtocolVersion)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(p.extensions)))
	for _, name := range p.extensions {
		dst = appendCString(dst, name)
	}
	return endMessage(dst, start)
}
