package main

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// secretKind makes secrets of one kind, and texts that hold them.
type secretKind struct {
	kind string
	make func() (text, secret string)
}

// whole is for secrets that are a text by themselves.
func whole(secret func() string) func() (string, string) {
	return func() (string, string) {
		s := secret()
		return s, s
	}
}

// secrets are all kinds, in the forms that people and programs write them. A few
// forms of each are hard on purpose.
func (g generator) secrets() []secretKind {
	return []secretKind{
		{kind: "payment-card", make: whole(g.card)},
		{kind: "iban", make: whole(g.iban)},
		{kind: "email", make: whole(g.email)},
		{kind: "phone", make: whole(g.phone)},
		{kind: "us-ssn", make: whole(g.ssn)},
		{kind: "jwt", make: whole(g.jwt)},
		{kind: "private-key", make: whole(g.privateKey)},
		{kind: "cloud-key", make: g.cloudKey},
		{kind: "url-password", make: g.urlPassword},
	}
}

// withCheckDigit appends the digit that makes a number pass the Luhn check: of
// the digits from the right every second one is doubled, beginning with the
// one before the check digit.
func withCheckDigit(s string) string {
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 0 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return s + strconv.Itoa((10-sum%10)%10)
}

func (g generator) card() string {
	type scheme struct {
		prefix string
		length int
	}
	s := pick(g,
		scheme{"4", 16}, scheme{"4", 16}, scheme{"4", 16}, scheme{"4", 13}, scheme{"4", 19},
		scheme{strconv.Itoa(51 + g.IntN(5)), 16}, scheme{strconv.Itoa(51 + g.IntN(5)), 16}, scheme{strconv.Itoa(2221 + g.IntN(500)), 16},
		scheme{"34", 15}, scheme{"37", 15}, scheme{"37", 15},
		scheme{"36", 14}, scheme{strconv.Itoa(300 + g.IntN(6)), 14},
		scheme{"6011", 16}, scheme{strconv.Itoa(644 + g.IntN(6)), 16}, scheme{"65", 16},
		scheme{strconv.Itoa(3528 + g.IntN(62)), 16}, scheme{"62", 16 + g.IntN(4)},
		scheme{pick(g, "5018", "5020", "5038", "6304", "6759", "6761", "6762", "6763"), 16}, scheme{strconv.Itoa(2200 + g.IntN(5)), 16},
	)
	number := withCheckDigit(s.prefix + g.digits(s.length-1-len(s.prefix)))
	sizes := []int{4}
	switch s.length {
	case 15:
		sizes = []int{4, 6, 5}
	case 14:
		sizes = []int{4, 6, 4}
	case 13:
		sizes = []int{4, 3}
	}
	switch n := g.IntN(100); {
	case n < 50:
		return number
	case n < 75:
		return grouped(number, " ", sizes...)
	case n < 96:
		return grouped(number, "-", sizes...)
	}
	return grouped(number, pick(g, ".", "/", "  "), sizes...)
}

// ibanForms are countries and their account numbers: n digit, a capital, c either.
var ibanForms = []string{
	"DE18n", "DE18n", "GB4a14n", "FR10n11c2n", "NL4a10n", "ES20n", "IT1a10n12c", "CH5n12c", "AT16n", "BE12n", "NO11n", "PL24n", "SE20n", "DK14n",
	"FI14n", "IE4a14n", "PT21n", "LU3n13c", "CZ20n", "HU24n", "RO4a16c", "BG4a6n8c", "GR7n16c", "MT4a5n18c", "CY8n16c", "HR17n", "SK20n", "SI15n",
	"LT16n", "LV4a13c", "EE16n", "TR5n1n16c", "SA2n18c", "AE19n", "IL19n", "BR23n1a1c", "UA6n19c", "QA4a21c", "KW4a22c",
}

// ibanCheck are the check digits: 98 less the remainder by 97 of the account,
// the country and 00 read as one number, letters as 10 to 35.
func ibanCheck(country, account string) string {
	var number strings.Builder
	for _, c := range account + country + "00" {
		if c >= 'A' {
			fmt.Fprint(&number, int(c-'A')+10)
		} else {
			number.WriteRune(c)
		}
	}
	n, _ := new(big.Int).SetString(number.String(), 10)
	return fmt.Sprintf("%02d", 98-n.Mod(n, big.NewInt(97)).Int64())
}

func (g generator) account(form string) string {
	var account strings.Builder
	n := 0
	for _, c := range form {
		if c >= '0' && c <= '9' {
			n = 10*n + int(c-'0')
			continue
		}
		account.WriteString(g.of(map[rune]string{'n': decimals, 'a': capitals, 'c': decimals + decimals + capitals}[c], n))
		n = 0
	}
	return account.String()
}

func (g generator) iban() string {
	form := ibanForms[g.IntN(len(ibanForms))]
	account := g.account(form[2:])
	iban := form[:2] + ibanCheck(form[:2], account) + account
	switch n := g.IntN(100); {
	case n < 50:
		return iban
	case n < 92:
		return grouped(iban, " ", 4)
	case n < 96:
		return grouped(iban, "-", 4)
	case n < 98:
		return strings.ToLower(iban)
	}
	return grouped(iban, " ", 4, 8)
}

var names = strings.Fields("anna ben carla dieter elif fatima george hana ivan julia kofi lena maria nils olga pedro quentin rosa sven tara uwe vera wang xenia yusuf zoe müller o'brien")

func (g generator) domain() string {
	return pick(g, g.word(), g.word()+"-"+g.word(), "mail."+g.word(), g.word()+g.digits(2)) + "." + pick(g, "com", "org", "de", "co.uk", "example", "io", "museum", "xn--p1ai")
}

func (g generator) email() string {
	name := names[g.IntN(len(names))]
	local := pick(g, name, name+"."+g.word(), name+"+"+g.word(), name+g.digits(2), name[:1]+"_"+g.word(), strings.ToUpper(name))
	if g.IntN(100) < 2 {
		return `"` + name + " " + g.word() + `"@` + g.domain() // a quoted local part
	}
	return local + "@" + g.domain()
}

// nanp is an area and an exchange of North America.
func (g generator) nanp() (area, exchange string) {
	for {
		area, exchange = strconv.Itoa(201+g.IntN(789)), strconv.Itoa(200+g.IntN(800))
		if area[1] != '9' && area[1:] != "11" && exchange[1:] != "11" {
			return area, exchange
		}
	}
}

func (g generator) phone() string {
	area, exchange := g.nanp()
	line := g.digits(4)
	some := strconv.Itoa(1 + g.IntN(9))
	switch n := g.IntN(100); {
	case n < 15: // E.164
		return "+" + pick(g, "49"+some+g.digits(9), "44"+some+g.digits(9), "33"+some+g.digits(8), "1"+area+exchange+line, "91"+some+g.digits(9), "353"+some+g.digits(8), "86"+some+g.digits(10))
	case n < 35: // international, grouped
		return pick(g,
			"+49 "+some+g.digits(2)+" "+g.digits(7), "+49 ("+some+g.digits(2)+") "+g.digits(6), "+44 20 "+g.digits(4)+" "+g.digits(4), "+33 "+some+" "+grouped(g.digits(8), " ", 2),
			"+1 "+area+"-"+exchange+"-"+line, "+1 ("+area+") "+exchange+"-"+line, "+1-"+area+"-"+exchange+"-"+line, "+41 (0)44 "+g.digits(3)+" "+g.digits(2)+" "+g.digits(2), "+81-3-"+g.digits(4)+"-"+g.digits(4),
			"+49/"+some+g.digits(2)+"/"+g.digits(6), "+45 "+grouped(some+g.digits(7), " ", 2))
	case n < 42:
		return pick(g, "0049 "+some+g.digits(2)+" "+g.digits(7), "0044-20-"+g.digits(4)+"-"+g.digits(4), "0033 "+some+" "+grouped(g.digits(8), " ", 2))
	case n < 65: // North America
		return pick(g, "("+area+") "+exchange+"-"+line, area+"-"+exchange+"-"+line, area+"."+exchange+"."+line, area+" "+exchange+" "+line, "1-"+area+"-"+exchange+"-"+line, "("+area+")"+exchange+"-"+line)
	case n < 95: // national, with the 0
		return pick(g, "0"+some+g.digits(2)+" "+g.digits(6), "0"+some+g.digits(2)+"/"+g.digits(7), "(0"+some+g.digits(2)+") "+g.digits(6), "0"+some+g.digits(2)+"-"+g.digits(7),
			"0"+some+" "+grouped(g.digits(8), " ", 2), "0"+some+"."+grouped(g.digits(8), ".", 2), "020 "+g.digits(4)+" "+g.digits(4), "07"+g.digits(3)+" "+g.digits(6), "0"+some+g.digits(2)+" "+g.digits(3)+" "+g.digits(2)+" "+g.digits(2), "0"+some+"-"+g.digits(4)+"-"+g.digits(4))
	}
	return pick(g, area+exchange+line, "0"+some+g.digits(9)) // in one piece
}

func (g generator) ssn() string {
	area := 1 + g.IntN(899)
	if area == 666 {
		area = 665
	}
	group, serial := 1+g.IntN(99), 1+g.IntN(9999)
	switch n := g.IntN(100); {
	case n < 85:
		return fmt.Sprintf("%03d-%02d-%04d", area, group, serial)
	case n < 96:
		return fmt.Sprintf("%03d %02d %04d", area, group, serial)
	}
	return fmt.Sprintf("%03d%02d%04d", area, group, serial)
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func (g generator) jwt() string {
	header := pick(g, `{"alg":"HS256","typ":"JWT"}`, `{"alg":"RS256","kid":"`+g.of(hexes, 16)+`"}`, `{"typ":"JWT","alg":"ES256"}`, `{"alg":"none"}`)
	if g.IntN(100) < 3 {
		header = `{ "alg": "HS256" }` // does not begin as all others do
	}
	token := encode(header) + "." + encode(fmt.Sprintf(`{"sub":"%s","iat":17%s,"name":"%s"}`, g.digits(6), g.digits(8), g.word())) + "."
	if !strings.Contains(header, "none") {
		token += g.of(urlSafe, 43)
	}
	return token
}

func (g generator) privateKey() string {
	label := pick(g, "", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA ")
	line := pick(g, "\n", "\n", "\n", "\r\n", " ")
	body := grouped(g.of(base64s, 200+g.IntN(1200)), line, 64)
	text := "-----BEGIN " + label + "PRIVATE KEY-----" + line + body + line
	if g.IntN(100) < 4 {
		return body + line + "-----END " + label + "PRIVATE KEY-----" // its begin was cut off
	}
	return text + "-----END " + label + "PRIVATE KEY-----"
}

func (g generator) cloudKey() (text, secret string) {
	if g.IntN(20) == 0 {
		return g.namedKey()
	}
	key := pick(g,
		func() string { return "AKIA" + g.of(capitals+"234567", 16) },
		func() string { return "ASIA" + g.of(capitals+"234567", 16) },
		func() string { return "AIza" + g.of(urlSafe, 35) },
		func() string { return "GOCSPX-" + g.of(urlSafe, 28) },
		func() string { return g.of(alnums, 3) + g.digits(1) + "Q~" + g.of(alnums+"_-.~", 34) },
		func() string { return "ghp_" + g.of(alnums, 36) },
		func() string { return "ghs_" + g.of(alnums, 36) },
		func() string { return "github_pat_" + g.of(alnums, 22) + "_" + g.of(alnums, 59) },
		func() string { return "glpat-" + g.of(urlSafe, 20) },
		func() string { return "xoxb-" + g.digits(12) + "-" + g.digits(13) + "-" + g.of(alnums, 24) },
		func() string {
			return "xoxp-" + g.digits(12) + "-" + g.digits(12) + "-" + g.digits(12) + "-" + g.of(hexes, 32)
		},
		func() string { return pick(g, "sk_live_", "rk_live_", "sk_test_") + g.of(alnums, 24) },
		func() string { return "whsec_" + g.of(alnums, 32) },
		func() string { return "SG." + g.of(urlSafe, 22) + "." + g.of(urlSafe, 43) },
		func() string { return "npm_" + g.of(alnums, 36) },
		func() string { return "sk-ant-api03-" + g.of(urlSafe, 93) + "AA" },
		func() string { return "sk-proj-" + g.of(urlSafe, 74) },
		func() string { return "dop_v1_" + g.of(hexes, 64) },
		func() string { return "hf_" + g.of(letters, 34) },
	)()
	return key, key
}

// namedKey is a key that nothing but its name tells.
func (g generator) namedKey() (text, secret string) {
	if secret = g.of(base64s, 40); g.IntN(3) == 0 {
		secret = g.of(base64s, 86) + "=="
		return "DefaultEndpointsProtocol=https;AccountName=" + g.word() + ";AccountKey=" + secret, secret
	}
	return pick(g, "aws_secret_access_key = ", "AWS_SECRET_ACCESS_KEY=", "SecretAccessKey: ", "aws secret ") + secret, secret
}

func (g generator) password() string {
	return g.of(letters, 1) + g.of(alnums+"!$%^&*()_=+~.,-", 7+g.IntN(14)) + pick(g, "", "", "", "@"+g.of(alnums, 3))
}

func (g generator) urlPassword() (text, secret string) {
	password := g.password()
	if g.IntN(100) < 3 {
		password = g.of(alnums, 5) + "/" + g.of(alnums, 5) // should have been escaped
	}
	return pick(g, "postgres", "postgresql", "mysql", "mongodb+srv", "amqp", "redis", "https", "ftp", "smtp") + "://" + pick(g, names[g.IntN(20)], g.word(), "") + ":" + password + "@" +
		pick(g, "db."+g.domain(), "10."+g.digits(2)+".0.1", "localhost", "[::1]") + pick(g, "", ":5432", ":6379", "/"+g.word(), ":5432/"+g.word()+"?sslmode=require"), password
}
