package pgsql

import (
	"regexp"
	"slices"
	"strings"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// checkSetting refuses SET of what decides how the server reads SQL. With
// standard_conforming_strings off, or in an encoding in which a byte of a
// character can look like a quote, the server would find other statements in a
// text than this package does.
func checkSetting(s *pg_query.VariableSetStmt) error {
	if s.Kind != pg_query.VariableSetKind_VAR_SET_VALUE && s.Kind != pg_query.VariableSetKind_VAR_SET_CURRENT {
		return nil // DEFAULT and RESET lead back to what the session began with
	}
	return checkReading(strings.ToLower(s.Name), constant(s.Args))
}

// checkSetConfig does the same for set_config(name, value, local).
func checkSetConfig(f *pg_query.FuncCall) error {
	name := strings.ToLower(constant(f.Args))
	if name == "" {
		return &RefusedError{
			Message: "set_config with a computed name of a setting is not let through",
			Hint:    "Write the setting's name as a constant.",
		}
	}
	value := ""
	if len(f.Args) > 1 {
		value = constant(f.Args[1:])
	}
	return checkReading(name, value)
}

// restriction is a statement of pg_dump: it sets what only newer servers have, and
// so takes the setting's name from the row that those have.
var restriction = regexp.MustCompile(`^SELECT (pg_catalog\.)?set_config\(name, '(view, foreign-table|view|foreign-table)', false\) ` +
	`FROM (pg_catalog\.)?pg_settings WHERE name = 'restrict_nonsystem_relation_kind'$`)

// treeVersion is that of the grammar's parse trees.
const treeVersion = 170007

// restrictsRelations tells whether the statement is that one, to the word. Even if
// another table hides behind pg_settings, its values are none that a setting which
// decides how SQL is read, or a role, could have.
func restrictsRelations(tree *pg_query.Node) bool {
	targets := tree.GetSelectStmt().GetTargetList()
	if len(targets) != 1 {
		return false
	}
	call := targets[0].GetResTarget().GetVal().GetFuncCall()
	if len(call.GetArgs()) != 3 || call.Args[0].GetColumnRef() == nil {
		return false
	}
	text, err := pg_query.Deparse(&pg_query.ParseResult{Version: treeVersion, Stmts: []*pg_query.RawStmt{{Stmt: tree}}})
	return err == nil && restriction.MatchString(text)
}

func checkReading(name, value string) error {
	value = strings.ToLower(value)
	switch name {
	case "standard_conforming_strings":
		if slices.Contains([]string{"on", "true", "1", "yes"}, value) {
			return nil
		}
	case "client_encoding", "names":
		if v := strings.NewReplacer("-", "", "_", "").Replace(value); v == "utf8" || v == "unicode" {
			return nil
		}
	case "backslash_quote":
		if value == "safe_encoding" || value == "off" {
			return nil
		}
	default:
		return nil
	}
	return &RefusedError{
		Message: "setting " + name + " to that value changes how the server reads SQL, so it is not let through",
		Hint:    "Leave standard_conforming_strings on, client_encoding at UTF8 and backslash_quote at safe_encoding.",
	}
}

// updatesSettings refuses UPDATE pg_settings, which is SET by another name.
func updatesSettings(u *pg_query.UpdateStmt) error { return checkSettingsTable(u.Relation) }

func mergesSettings(m *pg_query.MergeStmt) error { return checkSettingsTable(m.Relation) }

func checkSettingsTable(r *pg_query.RangeVar) error {
	if r.GetRelname() != "pg_settings" {
		return nil
	}
	return &RefusedError{Message: "changing pg_settings is not let through", Hint: "Use SET."}
}

// constant is the text of the first of args, or "" if it is no constant.
func constant(args []*pg_query.Node) string {
	if len(args) == 0 {
		return ""
	}
	n := args[0]
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().Arg
	}
	switch v := n.GetAConst().GetVal().(type) {
	case *pg_query.A_Const_Sval:
		return v.Sval.GetSval()
	case *pg_query.A_Const_Boolval:
		if v.Boolval.GetBoolval() {
			return "true"
		}
		return "false"
	case *pg_query.A_Const_Ival:
		if v.Ival.GetIval() == 1 {
			return "1"
		}
	}
	return ""
}

// readOnlySetting tells whether a SET or RESET touches nothing but the way in
// which the session reads and shows data.
func readOnlySetting(s *pg_query.VariableSetStmt) bool {
	switch s.Kind {
	case pg_query.VariableSetKind_VAR_RESET, pg_query.VariableSetKind_VAR_RESET_ALL:
		return true // back to what the session began with
	case pg_query.VariableSetKind_VAR_SET_MULTI:
		return true // SET TRANSACTION, SET SESSION CHARACTERISTICS
	}
	return ordinarySetting(s.Name)
}

// ordinarySetting tells whether a setting concerns only the session's own
// reading, its planner and its patience. What gives rights (role,
// session_authorization), loads code, switches checks off, or is read by
// row-level security (any dotted name) isn't among them.
func ordinarySetting(name string) bool {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "enable_") || strings.HasPrefix(name, "geqo") || strings.HasPrefix(name, "jit") {
		return !strings.Contains(name, ".") && name != "jit_provider"
	}
	switch name {
	case "application_name", "client_encoding", "client_min_messages", "datestyle", "intervalstyle", "timezone",
		"timezone_abbreviations", "extra_float_digits", "bytea_output", "xmlbinary", "xmloption", "lc_monetary",
		"lc_numeric", "lc_time", "search_path", "default_text_search_config", "standard_conforming_strings",
		"escape_string_warning", "backslash_quote", "quote_all_identifiers", "array_nulls", "transform_null_equals",
		"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
		"transaction_timeout", "deadlock_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval",
		"tcp_keepalives_count", "tcp_user_timeout", "client_connection_check_interval",
		"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
		"transaction_isolation", "transaction_read_only", "transaction_deferrable", "row_security",
		"work_mem", "hash_mem_multiplier", "maintenance_work_mem", "temp_buffers", "effective_cache_size",
		"effective_io_concurrency", "random_page_cost", "seq_page_cost", "cpu_tuple_cost", "cpu_index_tuple_cost",
		"cpu_operator_cost", "parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size",
		"min_parallel_index_scan_size", "max_parallel_workers", "max_parallel_workers_per_gather",
		"max_parallel_maintenance_workers", "parallel_leader_participation", "debug_parallel_query",
		"force_parallel_mode", "plan_cache_mode", "constraint_exclusion", "cursor_tuple_fraction",
		"default_statistics_target", "from_collapse_limit", "join_collapse_limit", "gin_fuzzy_search_limit",
		"synchronize_seqscans", "recursive_worktable_factor":
		return true
	}
	return false
}
