-- Cached results by key, who computes which key now, and results by run.

-- name: cached_records
-- `keys` is a JSON array. One row for all, the keys in one text and their records in another: each row that a thread
-- fetches from SQLite may have to wait for the other threads.
SELECT group_concat(r.key, ' '), group_concat(hex(r.record), ' ')
FROM json_each(:keys) AS wanted JOIN cache_records r ON r.key = wanted.value
WHERE r.expires IS NULL OR r.expires > :now;

-- name: cached_record
-- One record, expired or not.
SELECT task, record, created, expires, task_run_id FROM cache_records WHERE key = :key;

-- name: put_cache_records
INSERT INTO cache_records (key, task, record, created, expires, task_run_id)
VALUES :rows(key, task, record, created, expires, task_run_id)
ON CONFLICT (key) DO UPDATE SET
    task = excluded.task, record = excluded.record, created = excluded.created, expires = excluded.expires,
    task_run_id = excluded.task_run_id;

-- name: take_cache_locks
-- Those that nobody holds; those that the process itself holds go to another of its runs.
INSERT INTO cache_locks (key, holder, process_id) VALUES :rows(key, holder, process_id)
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder WHERE cache_locks.process_id = excluded.process_id;

-- name: cache_lock_holders
SELECT l.key, l.process_id, p.state, p.host, p.pid, p.pid_started, p.lease_until
FROM cache_locks l LEFT JOIN processes p ON p.id = l.process_id
WHERE l.key IN (SELECT value FROM json_each(:keys));

-- name: take_over_cache_lock
-- Of a process that has ended.
UPDATE cache_locks SET holder = :holder, process_id = :process_id WHERE key = :key AND process_id = :gone
RETURNING key;

-- name: release_cache_locks
-- `holders` is a JSON array.
DELETE FROM cache_locks
WHERE process_id = :process_id AND key IN (SELECT value FROM json_each(:keys))
    AND holder IN (SELECT value FROM json_each(:holders));

-- name: task_run_result
SELECT r.name, r.state, r.state_name, r.message, r.ended, t.record
FROM task_runs r LEFT JOIN task_run_results t ON t.series = r.series AND t.number = r.number
WHERE r.series = :series AND r.number = :number;

-- name: cached_record_until
-- What was in the cache when a run took it from there, unless another has taken its place since.
SELECT record FROM cache_records WHERE key = :key AND created <= :ended;

-- name: series_at_or_before
-- Where a run belongs whose id has this random part.
SELECT key, base, task, submitted FROM series WHERE base <= :base ORDER BY base DESC LIMIT 1;

-- name: flow_run_result
SELECT name, state, state_name, message, result FROM flow_runs WHERE id = :id;

-- name: put_rolled_back_runs
-- Runs that had completed, and whose transaction was rolled back.
INSERT INTO task_runs (series, number, created, state, state_name, message, run_count)
VALUES :rows(series, number, created, state, state_name, message, run_count)
ON CONFLICT (series, number) DO UPDATE SET state_name = excluded.state_name, message = excluded.message;

-- name: put_found_runs
-- Task runs that took their result from the cache: they never began, so there is no earlier row of them.
INSERT OR IGNORE INTO task_runs (series, number, created, ended, message, inputs, state, state_name, run_count)
VALUES :rows(series, number, created, ended, message, inputs, 'COMPLETED', 'Cached', 0);
