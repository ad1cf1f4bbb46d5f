package pgsql

import "slices"

// SideEffect tells whether name is a function of PostgreSQL's own that isn't
// harmless (see [Builtin]) and can be called with one argument. Those can be
// called without a call in the text: ('/etc/passwd'::text).pg_read_file is
// pg_read_file('/etc/passwd').
func SideEffect(name string) bool {
	_, ok := slices.BinarySearch(sideEffects[:], name)
	return ok
}

// sideEffects are, sorted, those functions of releases 15 to 18.
var sideEffects = [...]string{
	"amvalidate", "binary_upgrade_logical_slot_has_caught_up",
	"binary_upgrade_set_next_array_pg_type_oid", "binary_upgrade_set_next_attribute_versions",
	"binary_upgrade_set_next_heap_pg_class_oid", "binary_upgrade_set_next_heap_relfilenode",
	"binary_upgrade_set_next_index_pg_class_oid", "binary_upgrade_set_next_index_relfilenode",
	"binary_upgrade_set_next_multirange_array_pg_type_oid",
	"binary_upgrade_set_next_multirange_pg_type_oid", "binary_upgrade_set_next_pg_authid_oid",
	"binary_upgrade_set_next_pg_enum_oid", "binary_upgrade_set_next_pg_tablespace_oid",
	"binary_upgrade_set_next_pg_type_oid", "binary_upgrade_set_next_toast_pg_class_oid",
	"binary_upgrade_set_next_toast_relfilenode", "binary_upgrade_set_record_init_privs",
	"brin_summarize_new_values", "gin_clean_pending_list", "lo_close", "lo_creat", "lo_create",
	"lo_get", "lo_import", "lo_tell", "lo_tell64", "lo_unlink", "nextval", "pg_advisory_lock",
	"pg_advisory_lock_shared", "pg_advisory_unlock", "pg_advisory_unlock_shared",
	"pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_backup_start", "pg_backup_stop",
	"pg_cancel_backend", "pg_create_physical_replication_slot", "pg_create_restore_point",
	"pg_current_logfile", "pg_database_collation_actual_version", "pg_drop_replication_slot",
	"pg_get_multixact_members", "pg_get_sequence_data", "pg_import_system_collations",
	"pg_log_backend_memory_contexts", "pg_ls_dir", "pg_ls_replslotdir", "pg_ls_tmpdir", "pg_promote",
	"pg_read_binary_file", "pg_read_file", "pg_replication_origin_create",
	"pg_replication_origin_drop", "pg_replication_origin_session_progress",
	"pg_replication_origin_session_setup", "pg_restore_attribute_stats", "pg_restore_relation_stats",
	"pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_stat_file", "pg_stat_get_backend_io",
	"pg_stat_get_backend_wal", "pg_stat_get_xact_blocks_fetched", "pg_stat_get_xact_blocks_hit",
	"pg_stat_get_xact_function_calls", "pg_stat_get_xact_function_self_time",
	"pg_stat_get_xact_function_total_time", "pg_stat_get_xact_numscans",
	"pg_stat_get_xact_tuples_deleted", "pg_stat_get_xact_tuples_fetched",
	"pg_stat_get_xact_tuples_hot_updated", "pg_stat_get_xact_tuples_inserted",
	"pg_stat_get_xact_tuples_newpage_updated", "pg_stat_get_xact_tuples_returned",
	"pg_stat_get_xact_tuples_updated", "pg_stat_reset_backend_stats", "pg_stat_reset_replication_slot",
	"pg_stat_reset_shared", "pg_stat_reset_single_function_counters",
	"pg_stat_reset_single_table_counters", "pg_stat_reset_slru", "pg_stat_reset_subscription_stats",
	"pg_terminate_backend", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
	"pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared", "pg_xact_commit_timestamp_origin",
	"plpgsql_validator", "setseed", "ts_stat",
}
