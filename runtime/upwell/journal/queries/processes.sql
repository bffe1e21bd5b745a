-- Who is at work, and who has died.

-- name: register_process
INSERT INTO processes (id, host, pid, pid_started, state, beat, seen, lease_until)
VALUES (:id, :host, :pid, :pid_started, 'alive', 0, :seen, :lease_until)
ON CONFLICT (id) DO UPDATE SET seen = excluded.seen
RETURNING key, state;

-- name: renew_lease
-- A sign of life; answers with nothing if the process was declared lost.
UPDATE processes SET beat = beat + 1, seen = :seen, lease_until = :lease_until
WHERE id = :id AND state = 'alive'
RETURNING beat;

-- name: process_state
SELECT state FROM processes WHERE id = :id;

-- name: end_process
UPDATE processes SET state = 'ended', seen = :seen WHERE id = :id AND state = 'alive';

-- name: processes_alive
SELECT id, host, pid, pid_started, beat, seen, lease_until FROM processes WHERE state = 'alive';

-- name: declare_lost
-- Only if it gave no sign of life since it was looked at.
UPDATE processes SET state = 'lost' WHERE id = :id AND beat = :beat AND state = 'alive' RETURNING id;
