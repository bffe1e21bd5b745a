-- Who is at work, and who has died.

-- name: register_process
INSERT INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)
VALUES (:id, :host, :pid, :pid_started, 'alive', 0, :seen, :lease_until)
ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, lease_until = excluded.lease_until, beat = processes.beat + 1
WHERE processes.state <> 'lost'
RETURNING key, written;

-- name: note_process
-- One whose facts come in by others, for it may have ended.
INSERT OR IGNORE INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)
VALUES (:id, :host, :pid, :pid_started, 'alive', 0, :seen, :lease_until);

-- name: renew_lease
-- A sign of life; answers with nothing if the process was declared lost.
UPDATE processes SET beat = beat + 1, seen = :seen, lease_until = :lease_until
WHERE id = :id AND state = 'alive'
RETURNING beat;

-- name: process_state
-- It stays so until the transaction that asks has ended.
SELECT state FROM processes WHERE id = :id FOR UPDATE;

-- name: mark_written
-- Before a batch is written: answers with nothing if it was already, or must not be.
UPDATE processes SET written = :number, ends = CASE WHEN :ends > ends THEN :ends ELSE ends END
WHERE id = :id AND written < :number AND state <> 'lost' RETURNING key;

-- name: mark_taken_over
-- The same for a batch that comes from a spool, whatever has become of the process.
UPDATE processes SET written = :number, ends = CASE WHEN :ends > ends THEN :ends ELSE ends END
WHERE id = :id AND written < :number RETURNING key, state;

-- name: of_others_now
-- Those of these flow runs that another process has taken over, or that wait until one does.
SELECT id, process_id FROM flow_runs
WHERE id IN (SELECT value FROM json_each(:ids)) AND (process_id <> :process_id OR process_id IS NULL);

-- name: series_of_others_now
-- Those of these series whose flow run another process has taken over.
SELECT s.key FROM series s JOIN flow_runs f ON f.id = s.flow_run_id
WHERE s.key IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys)) AND f.process_id <> :process_id;

-- name: end_process
UPDATE processes SET state = 'ended', seen = :seen WHERE id = :id AND state = 'alive';

-- name: processes_alive
SELECT id, host, pid, pid_started, beat, seen, lease_until FROM processes WHERE state = 'alive';

-- name: declare_lost
-- Only if it gave no sign of life since it was looked at.
UPDATE processes SET state = 'lost' WHERE id = :id AND beat = :beat AND state = 'alive' RETURNING id;
