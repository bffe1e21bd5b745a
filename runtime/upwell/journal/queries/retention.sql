-- What is removed when it is old: a few rows at a time, so that nobody waits for long.

-- name: take_chore
-- Answers with nothing while another process has it.
INSERT INTO chores (name, process_id, until) VALUES (:name, :process_id, :until)
ON CONFLICT (name) DO UPDATE SET process_id = excluded.process_id, until = excluded.until
WHERE chores.until < :now OR chores.process_id = excluded.process_id
RETURNING process_id;

-- name: chore_until
SELECT until FROM chores WHERE name = :name;

-- name: put_chore
INSERT INTO chores (name, process_id, until) VALUES (:name, :process_id, :until)
ON CONFLICT (name) DO UPDATE SET process_id = excluded.process_id, until = excluded.until;

-- name: give_up_chore
DELETE FROM chores WHERE name = :name AND process_id = :process_id;

-- name: task_runs_submitted
-- How many there are in so many series after this one, and the last of those series.
SELECT sum(submitted), max(key) FROM (
    SELECT key, submitted FROM series WHERE key > :after ORDER BY key LIMIT :most) AS part;

-- name: created_of_task_run_at
SELECT created FROM task_runs ORDER BY created LIMIT 1 OFFSET :place;

-- name: created_of_flow_run_at
SELECT created FROM flow_runs ORDER BY created LIMIT 1 OFFSET :place;

-- name: old_flow_runs
-- Finished ones at the top of their tree, whose children go with them.
SELECT id, created FROM flow_runs
WHERE (created, id) > (:created, :id) AND created < :before AND ended IS NOT NULL
  AND NOT (durable = 1 AND state = 'CRASHED')
  AND NOT EXISTS (SELECT 1 FROM flow_runs AS above WHERE above.id = flow_runs.parent_flow_run_id)
ORDER BY created, id LIMIT :most;

-- name: flow_runs_under
-- The children of a flow run, and whether they must be kept: unfinished, or to be resumed.
SELECT id, ended IS NULL OR (durable = 1 AND state = 'CRASHED') FROM flow_runs WHERE parent_flow_run_id = :id;

-- name: series_to_remove
SELECT key, submitted FROM series WHERE flow_run_id = :flow_run_id;

-- name: series_outside
-- Of tasks that ran outside of flows.
SELECT key FROM series WHERE flow_run_id IS NULL AND key > :after ORDER BY key LIMIT :most;

-- name: numbers_of_series
SELECT number, created FROM task_runs WHERE series = :series AND number >= :first ORDER BY number LIMIT :most;

-- name: remove_task_runs
DELETE FROM task_runs WHERE series = :series AND number BETWEEN :first AND :last;

-- name: remove_task_run_states
DELETE FROM task_run_states WHERE series = :series AND number BETWEEN :first AND :last;

-- name: remove_edges
DELETE FROM edges WHERE series = :series AND number BETWEEN :first AND :last;

-- name: remove_task_run_results
DELETE FROM task_run_results WHERE series = :series AND number BETWEEN :first AND :last;

-- name: remove_series
DELETE FROM series WHERE key = :key;

-- name: remove_empty_series
-- Of tasks outside of flows, by processes that make no more runs of them.
DELETE FROM series WHERE key = :key AND process_id NOT IN (SELECT id FROM processes WHERE state = 'alive')
  AND NOT EXISTS (SELECT 1 FROM task_runs WHERE task_runs.series = series.key);

-- name: remove_durable_calls
DELETE FROM durable_calls WHERE flow_run_id = :flow_run_id;

-- name: remove_logs_of_flow_run
DELETE FROM logs WHERE key IN (SELECT key FROM logs WHERE flow_run_id = :flow_run_id ORDER BY key LIMIT :most)
RETURNING key;

-- name: log_at
SELECT key, at FROM logs WHERE key > :after ORDER BY key LIMIT 1 OFFSET :place;

-- name: remove_logs_outside
-- Those of no flow run, and of such as came in when it was gone.
DELETE FROM logs WHERE key > :after AND key <= :last AND at < :before
  AND NOT EXISTS (SELECT 1 FROM flow_runs WHERE flow_runs.id = logs.flow_run_id);

-- name: remove_flow_run
DELETE FROM flow_runs WHERE id = :id;

-- name: remove_flow_run_states
DELETE FROM flow_run_states WHERE flow_run_id = :id;

-- name: remove_expired_cache_records
DELETE FROM cache_records WHERE key IN (
    SELECT key FROM cache_records WHERE expires IS NOT NULL AND expires < :before ORDER BY expires LIMIT :most)
RETURNING key;

-- name: remove_ended_processes
-- Those of which nothing is left. The keys of the series of a process begin with its own: `key << 28`.
DELETE FROM processes WHERE key IN (
    SELECT key FROM processes WHERE state <> 'alive' AND seen < :before
      AND NOT EXISTS (SELECT 1 FROM flow_runs WHERE flow_runs.process_id = processes.id AND flow_runs.ended IS NULL)
      AND NOT EXISTS (SELECT 1 FROM series WHERE series.key >= processes.key * 268435456
                      AND series.key < (processes.key + 1) * 268435456)
    ORDER BY key LIMIT :most)
RETURNING key;

-- name: remove_old_cache_records
-- Those that never expire, and are as old as runs may be.
DELETE FROM cache_records WHERE key IN (
    SELECT key FROM cache_records WHERE expires IS NULL AND created < :before ORDER BY created LIMIT :most)
RETURNING key;

-- name: remove_old_audit_records
DELETE FROM audit_records WHERE key IN (SELECT key FROM audit_records WHERE at < :before ORDER BY at LIMIT :most)
RETURNING key;

-- name: remove_old_sessions
DELETE FROM sessions WHERE digest IN (SELECT digest FROM sessions WHERE expires < :before LIMIT :most)
RETURNING digest;

-- name: remove_locks_of_nobody
-- Of processes that are known no more.
DELETE FROM cache_locks WHERE key IN (
    SELECT key FROM cache_locks WHERE process_id NOT IN (SELECT id FROM processes) LIMIT :most)
RETURNING key;

-- name: remove_safe_ends_of_nobody
DELETE FROM safe_ends WHERE key IN (
    SELECT key FROM safe_ends WHERE key / 268435456 NOT IN (SELECT key FROM processes) LIMIT :most)
RETURNING key;

-- name: processes_not_lost
SELECT key FROM processes WHERE state <> 'lost';

-- name: remove_leases_of_nobody
DELETE FROM leases WHERE id IN (
    SELECT id FROM leases WHERE process_id NOT IN (SELECT id FROM processes) LIMIT :most)
RETURNING id;

-- name: records_of_task_runs_after
-- A page of all stored results; without those that are too long to name a file.
SELECT series, number, CASE WHEN length(record) < 16384 THEN record END FROM task_run_results
WHERE (series, number) > (:series, :number) ORDER BY series, number LIMIT :most;

-- name: records_of_flow_runs_after
SELECT id, CASE WHEN length(result) < 16384 THEN result END FROM flow_runs WHERE id > :id ORDER BY id LIMIT :most;

-- name: records_in_cache_after
SELECT key, CASE WHEN length(record) < 16384 THEN record END FROM cache_records WHERE key > :key ORDER BY key LIMIT :most;

-- name: remove_old_events
DELETE FROM events WHERE key IN (SELECT key FROM events WHERE at < :before ORDER BY at LIMIT :most) RETURNING key;

-- name: remove_old_artifacts
-- Of flow runs that are gone, and of none.
DELETE FROM artifacts WHERE id IN (
    SELECT id FROM artifacts WHERE updated < :before
      AND NOT EXISTS (SELECT 1 FROM flow_runs WHERE flow_runs.id = artifacts.flow_run_id) ORDER BY updated LIMIT :most)
RETURNING id;
