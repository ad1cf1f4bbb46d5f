package main

import (
	"fmt"
	"strconv"
	"strings"
)

// lookalike makes texts of one kind without a secret.
type lookalike struct {
	kind string
	make func() string
}

// lookalikes are what a detector may take for a secret, and isn't one.
func (g generator) lookalikes() []lookalike {
	return []lookalike{
		// like cards
		{kind: "card with a wrong check digit", make: func() string {
			c := withCheckDigit(pick(g, "4", "51", "37", "6011", "62") + g.digits(13))
			return c[:len(c)-1] + strconv.Itoa((int(c[len(c)-1]-'0')+1+g.IntN(9))%10)
		}},
		{kind: "order number that passes Luhn", make: func() string { return withCheckDigit(pick(g, "1", "7", "9", "0", "32", "88") + g.digits(13)) }},
		{kind: "order number", make: func() string {
			return pick(g, "ORD-", "#", "INV ", "") + strconv.Itoa(1+g.IntN(9)) + g.digits(7+g.IntN(5))
		}},
		{kind: "IMEI", make: func() string { return withCheckDigit("35" + g.digits(12)) }},
		{kind: "GTIN", make: func() string { return pick(g, "40", "50", "97") + g.digits(11) }},
		{kind: "Unix time", make: func() string { return "17" + g.digits(8) + pick(g, "", g.digits(3), g.digits(6), g.digits(9)) }},
		{kind: "snowflake id", make: func() string { return "1" + g.digits(18) }},
		{kind: "tracking number", make: func() string {
			return pick(g, "1Z"+g.of(capitals+decimals, 6)+g.digits(10), "JD01"+g.digits(14), "RB"+g.digits(9)+"DE")
		}},
		// like IBANs
		{kind: "IBAN with wrong check digits", make: func() string {
			form := ibanForms[g.IntN(len(ibanForms))]
			account := g.account(form[2:])
			right, _ := strconv.Atoi(ibanCheck(form[:2], account))
			iban := form[:2] + fmt.Sprintf("%02d", 2+(right-2+1+g.IntN(95))%97) + account
			return pick(g, iban, grouped(iban, " ", 4))
		}},
		{kind: "IBAN of no country", make: func() string {
			country, account := pick(g, "ZZ", "XX", "US", "QQ", "AB"), g.digits(18)
			return country + ibanCheck(country, account) + account
		}},
		{kind: "ISIN", make: func() string {
			return pick(g, "US", "DE", "GB", "FR") + "00" + g.of(capitals+decimals, 7) + g.digits(1)
		}},
		{kind: "VAT number", make: func() string {
			return pick(g, "DE"+g.digits(9), "FR"+g.digits(11), "NL"+g.digits(9)+"B01", "GB"+g.digits(9))
		}},
		// like phones and SSNs
		{kind: "date and time", make: func() string {
			y, m, d, h, mi, s := 1950+g.IntN(90), 1+g.IntN(12), 1+g.IntN(28), g.IntN(24), g.IntN(60), g.IntN(60)
			return pick(g, fmt.Sprintf("%04d-%02d-%02d %02d:%02d:%02d", y, m, d, h, mi, s), fmt.Sprintf("%02d.%02d.%04d", d, m, y), fmt.Sprintf("%02d/%02d/%04d %02d:%02d", m, d, y, h, mi),
				fmt.Sprintf("%02d.%02d.%04d %02d:%02d:%02d", d, m, y, h, mi, s), fmt.Sprintf("%04d%02d%02d%02d%02d%02d", y, m, d, h, mi, s), fmt.Sprintf("%02d-%02d-%04d", d, m, y), fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d+02:00", y, m, d, h, mi, s))
		}},
		{kind: "version", make: func() string {
			return pick(g, fmt.Sprintf("v%d.%d.%d", g.IntN(20), g.IntN(40), g.IntN(200)), fmt.Sprintf("%d.%d.%d-rc%d+build.%s", g.IntN(9), g.IntN(9), g.IntN(9), g.IntN(9), g.digits(8)), fmt.Sprintf("0.%d.%s", g.IntN(99), g.digits(8)), fmt.Sprintf("10.0.%s.%s", g.digits(5), g.digits(4)))
		}},
		{kind: "IP address", make: func() string {
			return pick(g, fmt.Sprintf("%d.%d.%d.%d", g.IntN(256), g.IntN(256), g.IntN(256), g.IntN(256)), fmt.Sprintf("%03d.%03d.%03d.%03d", g.IntN(256), g.IntN(256), g.IntN(256), g.IntN(256)), "2001:db8:"+g.of(hexes, 4)+"::"+g.of(hexes, 4), fmt.Sprintf("10.%d.0.0/16", g.IntN(256)))
		}},
		{kind: "phone-like id", make: func() string {
			return pick(g, "A"+g.digits(3)+"-"+g.digits(7), "TCK-0"+g.digits(3)+"-"+g.digits(6), g.digits(4)+"-"+g.digits(4)+"-"+g.digits(4), "1"+g.digits(2)+"-"+g.digits(3)+"-"+g.digits(4), "978-"+g.digits(1)+"-"+g.digits(3)+"-"+g.digits(5)+"-"+g.digits(1), "0"+g.digits(4)+"-"+g.digits(4), g.digits(3)+"-1"+g.digits(2)+"-"+g.digits(4), g.digits(2)+"-"+g.digits(7))
		}},
		{kind: "coordinates", make: func() string {
			return pick(g, fmt.Sprintf("%d.%s, %d.%s", g.IntN(90), g.digits(4), g.IntN(180), g.digits(4)), fmt.Sprintf("+%d.%s+%03d.%s/", g.IntN(90), g.digits(4), g.IntN(180), g.digits(3)), fmt.Sprintf("-%d.%s", g.IntN(90), g.digits(6)))
		}},
		{kind: "amount", make: func() string {
			return pick(g, fmt.Sprintf("$%d,%03d.%02d", g.IntN(1000), g.IntN(1000), g.IntN(100)), fmt.Sprintf("%d %03d %03d,%02d EUR", 1+g.IntN(99), g.IntN(1000), g.IntN(1000), g.IntN(100)), "+"+g.digits(2)+"."+g.digits(6), "0."+g.digits(10))
		}},
		{kind: "SSN that can't be", make: func() string {
			return pick(g, "000-"+g.digits(2)+"-"+g.digits(4), "666-"+g.digits(2)+"-"+g.digits(4), "9"+g.digits(2)+"-"+g.digits(2)+"-"+g.digits(4), g.digits(3)+"-00-"+g.digits(4), g.digits(3)+"-"+g.digits(2)+"-0000", g.digits(3)+"-"+g.digits(2)+"-"+g.digits(5), g.digits(4)+"-"+g.digits(2)+"-"+g.digits(4), "1"+g.digits(1)+"-"+g.digits(7))
		}},
		{kind: "numbers in a row", make: func() string {
			var list []string
			for range 4 + g.IntN(6) {
				list = append(list, strconv.Itoa(g.IntN(1000)))
			}
			return strings.Join(list, pick(g, " ", ", ", "\t"))
		}},
		// like addresses and URLs
		{kind: "not an address", make: func() string {
			return pick(g, "@"+g.word(), g.word()+"@"+g.word(), "pkg@"+fmt.Sprintf("%d.%d.%d", g.IntN(9), g.IntN(9), g.IntN(9)), g.word()+" @ "+g.word()+".com", "icon@2x.png", "sha256@"+g.of(hexes, 16), "user@", "@Override", "5 pcs @ 3.50")
		}},
		{kind: "URL without a password", make: func() string {
			return "https://" + pick(g, g.domain()+":8443/"+g.word()+"?t="+g.digits(2)+":"+g.digits(2), "user@"+g.word()+"/"+g.word(), g.domain()+"/a:b/"+g.word(), "[2001:db8::1]:8080/", g.domain()+"/@"+g.word()+":x", "user:***@"+g.word(), "user:${PASSWORD}@"+g.word())
		}},
		// like keys
		{kind: "UUID", make: g.uuid},
		{kind: "hash", make: func() string { return g.of(hexes, pick(g, 32, 40, 64)) }},
		{kind: "base64", make: func() string { return g.of(base64s, 40+g.IntN(40)) + pick(g, "", "=", "==") }},
		{kind: "dotted tokens", make: func() string {
			return pick(g, "eyJ"+g.of(alnums, 20), "eyJ."+g.of(alnums, 8)+".x", g.of(letters, 12)+"."+g.of(letters, 12)+"."+g.of(letters, 12), "com."+g.word()+"."+g.word())
		}},
		{kind: "certificate", make: func() string {
			label := pick(g, "CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST", "PGP MESSAGE")
			return "-----BEGIN " + label + "-----\n" + grouped(g.of(base64s, 300), "\n", 64) + "\n-----END " + label + "-----"
		}},
		{kind: "key-like name", make: func() string {
			return pick(g, "AKIA"+g.of(smalls, 8), "ghp_"+g.word(), "xoxb-test", "sk_live_key", "glpat-"+g.word(), "AIza"+g.word(), "my_secret_access_key_name", "AccountKey=<key>", "hf_"+g.word(), "npm_config_"+g.word(), "sk-"+g.word()+"-"+g.digits(2))
		}},
		{kind: "words", make: func() string { return g.sentence(8) }},
	}
}

func (g generator) uuid() string {
	return strings.Join([]string{g.of(hexes, 8), g.of(hexes, 4), "4" + g.of(hexes, 3), g.of("89ab", 1) + g.of(hexes, 3), g.of(hexes, 12)}, "-")
}
