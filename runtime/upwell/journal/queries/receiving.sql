-- What a server asks before it writes what other processes send: whose is it?

-- name: process_owner
-- It stays so until the transaction that asks has ended.
SELECT owner, key FROM processes WHERE id = :id FOR UPDATE;

-- name: note_owned_process
INSERT OR IGNORE INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until, owner)
VALUES (:id, :host, :pid, :pid_started, 'alive', 0, :seen, :lease_until, :owner);

-- name: flow_runs_of_others
-- Of these flow runs, those that the process may not write, and whether it once worked on them: another's, or nobody's.
-- Of those that are nobody's because their process was declared dead, that process may still say how they ended.
SELECT f.id, EXISTS (SELECT 1 FROM series s WHERE s.flow_run_id = f.id AND s.process_id = :process_id)
FROM flow_runs f
WHERE f.id IN (SELECT value FROM json_each(:ids))
  AND (f.process_id IS NULL AND NOT (:is_late = 1 AND coalesce(f.state_name, '') = 'AwaitingResume')
       OR f.process_id <> :process_id);

-- name: series_gone_on_with
-- Of these series of other processes, those that the process goes on with.
SELECT s.key FROM series s JOIN flow_runs f ON f.id = s.flow_run_id
WHERE s.key IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys))
  AND (f.process_id = :process_id
       OR f.process_id IS NULL AND :is_late = 1 AND coalesce(f.state_name, '') = 'AwaitingResume');

-- name: series_near
-- The series whose runs' ids come next before and after those of each of these.
SELECT w.value, (SELECT s.base FROM series s WHERE s.base < w.value ORDER BY s.base DESC LIMIT 1),
       (SELECT s.base FROM series s WHERE s.base > w.value ORDER BY s.base LIMIT 1)
FROM json_each(:bases) AS w;

-- name: series_of_parts
-- To which series the task runs of these ids may belong, by the ids' random part, and who may write of it.
SELECT w.value, s.base, s.submitted, s.process_id, f.process_id
FROM json_each(:parts) AS w
JOIN series s ON s.base = (SELECT n.base FROM series n WHERE n.base <= w.value ORDER BY n.base DESC LIMIT 1)
LEFT JOIN flow_runs f ON f.id = s.flow_run_id;

-- name: own_leases
-- Of these wishes for slots, those of this process.
SELECT id FROM leases WHERE process_id = :process_id AND id IN (SELECT value FROM json_each(:ids));
