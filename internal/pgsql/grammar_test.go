package pgsql

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// inGrammar has each statement of the grammar, by the name of its node, with
// what it is known for.
var inGrammar = map[string][]struct {
	text, kind    string
	readOnly, ddl bool
}{
	"SelectStmt": {
		{"SELECT 1", "SELECT", true, false},
		{"VALUES (1)", "SELECT", true, false},
		{"SELECT a FROM t FOR NO KEY UPDATE", "SELECT", false, false},
		{"SELECT a FROM t FOR KEY SHARE SKIP LOCKED", "SELECT", false, false},
		{"SELECT a INTO TEMP n FROM t", "SELECT INTO", false, true},
		{"SELECT a FROM (WITH d AS (UPDATE t SET a = 1 RETURNING a) SELECT a FROM d) s", "UPDATE", false, false},
		{"SELECT 1 UNION (SELECT a FROM t FOR UPDATE)", "SELECT", false, false},
		{"SELECT (SELECT mine())", "SELECT", false, false},
		{"SELECT 1 LIMIT mine()", "SELECT", false, false},
		{"SELECT sum(a) OVER (ORDER BY mine(a)) FROM t", "SELECT", false, false},
		{"SELECT JSON_VALUE(mine(), '$.a')", "SELECT", false, false},
		{"SELECT * FROM JSON_TABLE('[]', '$[*]' COLUMNS (a int PATH '$.a'))", "SELECT", true, false},
		{"SELECT * FROM XMLTABLE('/a' PASSING mine() COLUMNS b text)", "SELECT", false, false},
	},
	"InsertStmt": {{"INSERT INTO t SELECT 1", "INSERT", false, false}, {"INSERT INTO t DEFAULT VALUES RETURNING a", "INSERT", false, false}},
	"UpdateStmt": {{"UPDATE t SET a = 1", "UPDATE", false, false}},
	"DeleteStmt": {{"DELETE FROM t", "DELETE", false, false}, {"DELETE FROM t WHERE CURRENT OF c", "DELETE", false, false}},
	"MergeStmt":  {{"MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING", "MERGE", false, false}},
	"CopyStmt": {
		{"COPY t TO STDOUT", "COPY", true, false},
		{"COPY t FROM STDIN", "COPY", false, false},
		{"COPY t TO '/tmp/x'", "COPY", false, false},
		{"COPY t FROM '/tmp/x'", "COPY", false, false},
		{"COPY t TO PROGRAM 'sh'", "COPY", false, false},
		{"COPY t FROM PROGRAM 'sh'", "COPY", false, false},
		{"COPY (SELECT nextval('s')) TO STDOUT", "COPY", false, false},
	},
	"ExplainStmt": {
		{"EXPLAIN UPDATE t SET a = 1", "EXPLAIN", true, false},
		{"EXPLAIN (ANALYZE off) UPDATE t SET a = 1", "EXPLAIN", true, false},
		{"EXPLAIN (ANALYZE 0) UPDATE t SET a = 1", "EXPLAIN", true, false},
		{"EXPLAIN EXECUTE p", "EXPLAIN", true, false},
		{"EXPLAIN (ANALYZE) UPDATE t SET a = 1", "UPDATE", false, false},
		{"EXPLAIN (VERBOSE, ANALYZE 'x') SELECT 1", "EXPLAIN", true, false},
		{"EXPLAIN ANALYZE SELECT a FROM t FOR UPDATE", "EXPLAIN", false, false},
		{"EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR", false, false},
	},
	"PrepareStmt":    {{"PREPARE p (int) AS SELECT $1", "PREPARE", true, false}, {"PREPARE p AS DELETE FROM t", "PREPARE", false, false}},
	"ExecuteStmt":    {{"EXECUTE p(1)", "EXECUTE", false, false}},
	"DeallocateStmt": {{"DEALLOCATE p", "DEALLOCATE", true, false}},
	"DeclareCursorStmt": {
		{"DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT a FROM t", "DECLARE CURSOR", true, false},
		{"DECLARE c CURSOR FOR SELECT a FROM t FOR UPDATE", "DECLARE CURSOR", false, false},
		{"DECLARE c CURSOR FOR SELECT mine()", "DECLARE CURSOR", false, false},
	},
	"FetchStmt":       {{"FETCH ALL c", "FETCH", true, false}, {"MOVE c", "MOVE", true, false}},
	"ClosePortalStmt": {{"CLOSE ALL", "CLOSE CURSOR", true, false}},
	"DoStmt":          {{"DO 'x'", "DO", false, false}},
	"CallStmt":        {{"CALL p()", "CALL", false, false}},
	"TransactionStmt": {
		{"BEGIN READ WRITE", "BEGIN", true, false},
		{"START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION", true, false},
		{"END AND CHAIN", "COMMIT", true, false},
		{"ABORT", "ROLLBACK", true, false},
		{"SAVEPOINT s", "SAVEPOINT", true, false},
		{"RELEASE SAVEPOINT s", "RELEASE", true, false},
		{"PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION", false, false},
		{"COMMIT PREPARED 'x'", "COMMIT PREPARED", false, false},
		{"ROLLBACK PREPARED 'x'", "ROLLBACK PREPARED", false, false},
	},
	"VariableSetStmt": {
		{"SET work_mem = '1GB'", "SET", true, false},
		{"SET LOCAL ROLE r", "SET", false, false},
		{"SET SESSION AUTHORIZATION r", "SET", false, false},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET", true, false},
		{"RESET ROLE", "RESET", true, false},
	},
	"VariableShowStmt":   {{"SHOW ALL", "SHOW", true, false}},
	"ConstraintsSetStmt": {{"SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS", true, false}},
	"DiscardStmt": {
		{"DISCARD PLANS", "DISCARD", true, false},
		{"DISCARD SEQUENCES", "DISCARD", true, false},
		{"DISCARD TEMP", "DISCARD", false, false},
		{"DISCARD ALL", "DISCARD", false, false},
	},
	"ListenStmt":         {{"LISTEN c", "LISTEN", true, false}},
	"UnlistenStmt":       {{"UNLISTEN *", "UNLISTEN", true, false}},
	"NotifyStmt":         {{"NOTIFY c", "NOTIFY", false, false}},
	"LockStmt":           {{"LOCK t", "LOCK TABLE", false, false}},
	"TruncateStmt":       {{"TRUNCATE t", "TRUNCATE TABLE", false, false}},
	"VacuumStmt":         {{"VACUUM", "VACUUM", false, false}, {"ANALYZE", "ANALYZE", false, false}},
	"ClusterStmt":        {{"CLUSTER t", "CLUSTER", false, true}},
	"ReindexStmt":        {{"REINDEX TABLE t", "REINDEX", false, false}},
	"CheckPointStmt":     {{"CHECKPOINT", "CHECKPOINT", false, false}},
	"LoadStmt":           {{"LOAD 'x'", "LOAD", false, false}},
	"RefreshMatViewStmt": {{"REFRESH MATERIALIZED VIEW v", "REFRESH MATERIALIZED VIEW", false, true}},
	"AlterSystemStmt":    {{"ALTER SYSTEM SET a = 1", "ALTER SYSTEM", false, true}},

	"CreateStmt":                 {{"CREATE TABLE t (a int DEFAULT mine())", "CREATE TABLE", false, true}},
	"CreateTableAsStmt":          {{"CREATE TABLE n AS SELECT 1", "CREATE TABLE AS", false, true}, {"CREATE TABLE n AS EXECUTE p", "CREATE TABLE AS", false, true}},
	"ViewStmt":                   {{"CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE VIEW", false, true}},
	"IndexStmt":                  {{"CREATE INDEX ON t (a)", "CREATE INDEX", false, true}},
	"CreateSchemaStmt":           {{"CREATE SCHEMA s CREATE TABLE t (a int)", "CREATE SCHEMA", false, true}},
	"CreateSeqStmt":              {{"CREATE SEQUENCE s", "CREATE SEQUENCE", false, true}},
	"AlterSeqStmt":               {{"ALTER SEQUENCE s RESTART", "ALTER SEQUENCE", false, true}},
	"CreateFunctionStmt":         {{"CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1", "CREATE FUNCTION", false, true}, {"CREATE PROCEDURE f() LANGUAGE sql AS ''", "CREATE PROCEDURE", false, true}},
	"AlterFunctionStmt":          {{"ALTER FUNCTION f() STABLE", "ALTER FUNCTION", false, true}, {"ALTER PROCEDURE f() SECURITY DEFINER", "ALTER PROCEDURE", false, true}},
	"CreateTrigStmt":             {{"CREATE TRIGGER x AFTER DELETE ON t EXECUTE FUNCTION f()", "CREATE TRIGGER", false, true}},
	"RuleStmt":                   {{"CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM u", "CREATE RULE", false, true}},
	"CreateExtensionStmt":        {{"CREATE EXTENSION dblink", "CREATE EXTENSION", false, true}},
	"AlterExtensionStmt":         {{"ALTER EXTENSION e UPDATE", "ALTER EXTENSION", false, true}},
	"AlterExtensionContentsStmt": {{"ALTER EXTENSION e ADD TABLE t", "ALTER EXTENSION", false, true}},
	"AlterTableStmt": {
		{"ALTER TABLE t ADD a int", "ALTER TABLE", false, true},
		{"ALTER INDEX i SET (fillfactor = 50)", "ALTER INDEX", false, true},
		{"ALTER MATERIALIZED VIEW v SET WITHOUT CLUSTER", "ALTER MATERIALIZED VIEW", false, true},
		{"ALTER TABLE t ENABLE ROW LEVEL SECURITY", "ALTER TABLE", false, true},
	},
	"AlterTableMoveAllStmt":        {{"ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", "ALTER TABLE", false, true}},
	"RenameStmt":                   {{"ALTER TABLE t RENAME TO u", "ALTER TABLE", false, true}},
	"AlterObjectDependsStmt":       {{"ALTER FUNCTION f() DEPENDS ON EXTENSION e", "ALTER FUNCTION", false, true}},
	"AlterObjectSchemaStmt":        {{"ALTER TABLE t SET SCHEMA s", "ALTER TABLE", false, true}},
	"AlterOwnerStmt":               {{"ALTER SCHEMA s OWNER TO r", "ALTER SCHEMA", false, true}},
	"DropStmt":                     {{"DROP VIEW v", "DROP VIEW", false, true}, {"DROP EXTENSION e", "DROP EXTENSION", false, true}},
	"CommentStmt":                  {{"COMMENT ON TABLE t IS 'x'", "COMMENT", false, true}},
	"SecLabelStmt":                 {{"SECURITY LABEL ON TABLE t IS 'x'", "SECURITY LABEL", false, true}},
	"GrantStmt":                    {{"GRANT ALL ON t TO r", "GRANT", false, true}, {"REVOKE ALL ON t FROM r", "REVOKE", false, true}},
	"GrantRoleStmt":                {{"GRANT a TO b", "GRANT ROLE", false, true}},
	"AlterDefaultPrivilegesStmt":   {{"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r", "ALTER DEFAULT PRIVILEGES", false, true}},
	"CreatePolicyStmt":             {{"CREATE POLICY p ON t USING (true)", "CREATE POLICY", false, true}},
	"AlterPolicyStmt":              {{"ALTER POLICY p ON t USING (false)", "ALTER POLICY", false, true}},
	"CreateRoleStmt":               {{"CREATE USER r", "CREATE ROLE", false, true}},
	"AlterRoleStmt":                {{"ALTER ROLE r SUPERUSER", "ALTER ROLE", false, true}},
	"AlterRoleSetStmt":             {{"ALTER ROLE r SET a = 1", "ALTER ROLE", false, true}},
	"DropRoleStmt":                 {{"DROP ROLE r", "DROP ROLE", false, true}},
	"DropOwnedStmt":                {{"DROP OWNED BY r", "DROP OWNED", false, true}},
	"ReassignOwnedStmt":            {{"REASSIGN OWNED BY a TO b", "REASSIGN OWNED", false, true}},
	"CreatedbStmt":                 {{"CREATE DATABASE d", "CREATE DATABASE", false, true}},
	"AlterDatabaseStmt":            {{"ALTER DATABASE d ALLOW_CONNECTIONS false", "ALTER DATABASE", false, true}},
	"AlterDatabaseSetStmt":         {{"ALTER DATABASE d SET a = 1", "ALTER DATABASE", false, true}},
	"AlterDatabaseRefreshCollStmt": {{"ALTER DATABASE d REFRESH COLLATION VERSION", "ALTER DATABASE", false, true}},
	"DropdbStmt":                   {{"DROP DATABASE d", "DROP DATABASE", false, true}},
	"CreateTableSpaceStmt":         {{"CREATE TABLESPACE s LOCATION '/x'", "CREATE TABLESPACE", false, true}},
	"AlterTableSpaceOptionsStmt":   {{"ALTER TABLESPACE s SET (a = 1)", "ALTER TABLESPACE", false, true}},
	"DropTableSpaceStmt":           {{"DROP TABLESPACE s", "DROP TABLESPACE", false, true}},
	"CreateFdwStmt":                {{"CREATE FOREIGN DATA WRAPPER w", "CREATE FOREIGN DATA WRAPPER", false, true}},
	"AlterFdwStmt":                 {{"ALTER FOREIGN DATA WRAPPER w NO HANDLER", "ALTER FOREIGN DATA WRAPPER", false, true}},
	"CreateForeignServerStmt":      {{"CREATE SERVER s FOREIGN DATA WRAPPER w", "CREATE SERVER", false, true}},
	"AlterForeignServerStmt":       {{"ALTER SERVER s VERSION '1'", "ALTER SERVER", false, true}},
	"CreateForeignTableStmt":       {{"CREATE FOREIGN TABLE t (a int) SERVER s", "CREATE FOREIGN TABLE", false, true}},
	"CreateUserMappingStmt":        {{"CREATE USER MAPPING FOR r SERVER s", "CREATE USER MAPPING", false, true}},
	"AlterUserMappingStmt":         {{"ALTER USER MAPPING FOR r SERVER s OPTIONS (SET a 'b')", "ALTER USER MAPPING", false, true}},
	"DropUserMappingStmt":          {{"DROP USER MAPPING FOR r SERVER s", "DROP USER MAPPING", false, true}},
	"ImportForeignSchemaStmt":      {{"IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b", "IMPORT FOREIGN SCHEMA", false, true}},
	"CreateAmStmt":                 {{"CREATE ACCESS METHOD a TYPE INDEX HANDLER h", "CREATE ACCESS METHOD", false, true}},
	"CreateEventTrigStmt":          {{"CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()", "CREATE EVENT TRIGGER", false, true}},
	"AlterEventTrigStmt":           {{"ALTER EVENT TRIGGER e DISABLE", "ALTER EVENT TRIGGER", false, true}},
	"CreatePLangStmt":              {{"CREATE LANGUAGE l HANDLER h", "CREATE LANGUAGE", false, true}},
	"DefineStmt": {
		{"CREATE AGGREGATE a (int) (sfunc = f, stype = int)", "CREATE AGGREGATE", false, true},
		{"CREATE OPERATOR ## (leftarg = int, function = f)", "CREATE OPERATOR", false, true},
		{"CREATE COLLATION c FROM \"C\"", "CREATE COLLATION", false, true},
	},
	"AlterOperatorStmt":        {{"ALTER OPERATOR + (int, int) SET (RESTRICT = NONE)", "ALTER OPERATOR", false, true}},
	"AlterTypeStmt":            {{"ALTER TYPE y SET (STORAGE = plain)", "ALTER TYPE", false, true}},
	"AlterCollationStmt":       {{"ALTER COLLATION c REFRESH VERSION", "ALTER COLLATION", false, true}},
	"CreateDomainStmt":         {{"CREATE DOMAIN d AS int", "CREATE DOMAIN", false, true}},
	"AlterDomainStmt":          {{"ALTER DOMAIN d DROP DEFAULT", "ALTER DOMAIN", false, true}},
	"CompositeTypeStmt":        {{"CREATE TYPE y AS (a int)", "CREATE TYPE", false, true}},
	"CreateEnumStmt":           {{"CREATE TYPE y AS ENUM ()", "CREATE TYPE", false, true}},
	"AlterEnumStmt":            {{"ALTER TYPE y ADD VALUE 'b'", "ALTER TYPE", false, true}},
	"CreateRangeStmt":          {{"CREATE TYPE y AS RANGE (subtype = int)", "CREATE TYPE", false, true}},
	"CreateOpClassStmt":        {{"CREATE OPERATOR CLASS c FOR TYPE int USING btree AS OPERATOR 1 <", "CREATE OPERATOR CLASS", false, true}},
	"CreateOpFamilyStmt":       {{"CREATE OPERATOR FAMILY f USING btree", "CREATE OPERATOR FAMILY", false, true}},
	"AlterOpFamilyStmt":        {{"ALTER OPERATOR FAMILY f USING btree DROP FUNCTION 1 (int, int)", "ALTER OPERATOR FAMILY", false, true}},
	"CreateStatsStmt":          {{"CREATE STATISTICS s ON a, b FROM t", "CREATE STATISTICS", false, true}},
	"AlterStatsStmt":           {{"ALTER STATISTICS s SET STATISTICS 5", "ALTER STATISTICS", false, true}},
	"CreateConversionStmt":     {{"CREATE CONVERSION c FOR 'UTF8' TO 'LATIN1' FROM f", "CREATE CONVERSION", false, true}},
	"CreateCastStmt":           {{"CREATE CAST (a AS b) WITHOUT FUNCTION", "CREATE CAST", false, true}},
	"CreateTransformStmt":      {{"CREATE TRANSFORM FOR y LANGUAGE l (FROM SQL WITH FUNCTION f(internal))", "CREATE TRANSFORM", false, true}},
	"AlterTSDictionaryStmt":    {{"ALTER TEXT SEARCH DICTIONARY d (a = b)", "ALTER TEXT SEARCH DICTIONARY", false, true}},
	"AlterTSConfigurationStmt": {{"ALTER TEXT SEARCH CONFIGURATION c DROP MAPPING FOR x", "ALTER TEXT SEARCH CONFIGURATION", false, true}},
	"CreatePublicationStmt":    {{"CREATE PUBLICATION p FOR ALL TABLES", "CREATE PUBLICATION", false, true}},
	"AlterPublicationStmt":     {{"ALTER PUBLICATION p ADD TABLE t", "ALTER PUBLICATION", false, true}},
	"CreateSubscriptionStmt":   {{"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "CREATE SUBSCRIPTION", false, true}},
	"AlterSubscriptionStmt":    {{"ALTER SUBSCRIPTION s DISABLE", "ALTER SUBSCRIPTION", false, true}},
	"DropSubscriptionStmt":     {{"DROP SUBSCRIPTION s", "DROP SUBSCRIPTION", false, true}},
}

// parts are the nodes that are named like statements and are none that a text
// can consist of.
var parts = map[string]string{
	"RawStmt": "wraps each statement", "SetOperationStmt": "of analysed trees", "ReturnStmt": "of function bodies",
	"PLAssignStmt": "of PL/pgSQL", "ReplicaIdentityStmt": "of ALTER TABLE",
}

// A statement that a newer grammar brings must be looked at before it counts
// as what it seems to be.
func TestEveryStatementOfTheGrammar(t *testing.T) {
	fields := (&pg_query.Node{}).ProtoReflect().Descriptor().Oneofs().ByName("node").Fields()
	statements := map[string]bool{}
	for i := range fields.Len() {
		if name := string(fields.Get(i).Message().Name()); strings.HasSuffix(name, "Stmt") {
			statements[name] = true
			if inGrammar[name] == nil && parts[name] == "" {
				t.Errorf("the grammar has %s, and nothing here says what it does", name)
			}
		}
	}
	p := NewParser(Options{})
	for name, tests := range inGrammar {
		if !statements[name] {
			t.Errorf("the grammar has no %s", name)
		}
		for _, tt := range tests {
			s := parseOne(t, p, tt.text)
			if got := messageName(s.Tree); got != name {
				t.Errorf("%s is a %s, not a %s", tt.text, got, name)
			}
			if f := s.Facts(tt.text); f.Kind != tt.kind || f.ReadOnly != tt.readOnly || f.DDL != tt.ddl || f.Kinds[0] != f.Kind {
				t.Errorf("%s: kinds %q, readOnly %v, ddl %v; want %q, %v, %v", tt.text, f.Kinds, f.ReadOnly, f.DDL, tt.kind, tt.readOnly, tt.ddl)
			}
		}
	}
}
