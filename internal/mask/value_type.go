package mask

// family is what values of a type look like, as far as that matters for
// covering them.
type family uint8

const (
	opaque    family = iota // may hold text; only NULL can stand for it
	plain                   // can hold nothing that a detector finds; only NULL can stand for it
	character               // "char", one byte
	text                    // characters; any text fits
	xml                     // characters, of which some are markup
	jsonText
	jsonb // JSON text, in binary behind a version byte
	bytea
	boolean
	int2
	int4
	int8
	numeric
	float4
	float8
	money
	date
	timeOfDay
	timestamp
	timestampTZ
	uuid
	inet
	cidr
	array
)

// dataType is a type of PostgreSQL. elem is that of an array's elements.
type dataType struct {
	family family
	elem   uint32
}

// typeOf goes by the OID (catalog pg_type, pg_type.dat). OIDs of users' types,
// enums, composite types and what extensions bring differ from database to
// database: they are opaque. A domain is announced as the type that it is over.
func typeOf(oid uint32) dataType {
	if elem := elementOf(oid); elem != 0 {
		return dataType{array, elem}
	}
	return dataType{family: familyOf(oid)}
}

func familyOf(oid uint32) family {
	switch oid {
	case 25, 1043, 1042, 19, 705, 1790, 2275: // text, varchar, bpchar, name, unknown, refcursor, cstring
		return text
	case 142:
		return xml
	case 18:
		return character
	case 114:
		return jsonText
	case 3802:
		return jsonb
	case 17:
		return bytea
	case 16:
		return boolean
	case 21:
		return int2
	case 23:
		return int4
	case 20:
		return int8
	case 1700:
		return numeric
	case 700:
		return float4
	case 701:
		return float8
	case 790:
		return money
	case 1082:
		return date
	case 1083:
		return timeOfDay
	case 1114:
		return timestamp
	case 1184:
		return timestampTZ
	case 2950:
		return uuid
	case 869:
		return inet
	case 650:
		return cidr
	case 26, 27, 28, 29, 5069, 3220, // oid, tid, xid, cid, xid8, pg_lsn
		24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, // reg…
		829, 774, 1186, 1266, 1560, 1562, // macaddr, macaddr8, interval, timetz, bit, varbit
		600, 601, 602, 603, 604, 628, 718, // geometry
		3904, 3906, 3908, 3910, 3912, 4451, 4532, 4533, 4534, 4535, // ranges, but of int8
		2278: // void
		return plain
	}
	return opaque
}

// elementOf is the type of a built-in array's elements, 0 for anything else.
func elementOf(oid uint32) uint32 {
	switch oid {
	case 1000:
		return 16 // bool
	case 1001:
		return 17 // bytea
	case 1002:
		return 18 // "char"
	case 1003:
		return 19 // name
	case 1016:
		return 20 // int8
	case 1005:
		return 21 // int2
	case 1007:
		return 23 // int4
	case 1009:
		return 25 // text
	case 1014:
		return 1042 // bpchar
	case 1015:
		return 1043 // varchar
	case 143:
		return 142 // xml
	case 199:
		return 114 // json
	case 3807:
		return 3802 // jsonb
	case 1263:
		return 2275 // cstring
	case 2201:
		return 1790 // refcursor
	case 1231:
		return 1700 // numeric
	case 1021:
		return 700 // float4
	case 1022:
		return 701 // float8
	case 791:
		return 790 // money
	case 1182:
		return 1082 // date
	case 1183:
		return 1083 // time
	case 1115:
		return 1114 // timestamp
	case 1185:
		return 1184 // timestamptz
	case 1187:
		return 1186 // interval
	case 1270:
		return 1266 // timetz
	case 2951:
		return 2950 // uuid
	case 1041:
		return 869 // inet
	case 651:
		return 650 // cidr
	case 1040:
		return 829 // macaddr
	case 775:
		return 774 // macaddr8
	case 1561:
		return 1560 // bit
	case 1563:
		return 1562 // varbit
	case 1028:
		return 26 // oid
	case 1010:
		return 27 // tid
	case 1011:
		return 28 // xid
	case 1012:
		return 29 // cid
	case 271:
		return 5069 // xid8
	case 3221:
		return 3220 // pg_lsn
	case 1017, 1018, 1019, 1020, 1027, 629, 719:
		return 600 // geometry
	}
	return 0
}

// secretive tells whether a detector may find something in values of a type.
func (t dataType) secretive() bool {
	f := t.family
	if f == array {
		f = familyOf(t.elem)
	}
	switch f {
	case opaque, text, xml, jsonText, jsonb, bytea, int8, numeric:
		return true
	}
	return false
}
