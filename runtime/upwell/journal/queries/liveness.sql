-- Who has died, and what becomes of what it had under way.

-- name: lock_jobs_of_process
-- Of the runs that it had under way.
SELECT j.flow_run_id FROM jobs j
WHERE j.flow_run_id IN (SELECT id FROM flow_runs WHERE process_id = :process_id AND ended IS NULL)
ORDER BY j.flow_run_id FOR UPDATE;

-- name: crash_flow_runs
-- Of a process that has died: those that cannot go on. What was being cancelled, or was to be, is cancelled now.
UPDATE flow_runs SET
    state = CASE WHEN state = 'CANCELLING' OR EXISTS (
        SELECT 1 FROM cancel_requests c WHERE c.flow_run_id IN (flow_runs.id, flow_runs.root_flow_run_id))
        THEN 'CANCELLED' ELSE 'CRASHED' END,
    state_name = NULL, ended = :now, crashes = crashes + 1,
    message = coalesce((SELECT 'Cancelled by ' || c.actor || coalesce(': ' || c.reason, '') || '. '
                        FROM cancel_requests c WHERE c.flow_run_id = flow_runs.id), '') || CAST(:message AS TEXT)
WHERE process_id = :process_id AND ended IS NULL
  AND (durable = 0 AND (idempotency_key IS NULL OR deployment_id IS NOT NULL) OR state = 'CANCELLING' OR EXISTS (
        SELECT 1 FROM cancel_requests c WHERE c.flow_run_id IN (flow_runs.id, flow_runs.root_flow_run_id)))
RETURNING id, state, state_name, message;

-- name: give_up_durable_flow_runs
-- Of a process that has died: those that crash whenever they are resumed.
UPDATE flow_runs SET
    state = 'CRASHED', state_name = NULL, ended = :now, crashes = crashes + 1,
    message = CAST(:message AS TEXT) || ' It has crashed ' || CAST(crashes + 1 AS TEXT) || ' times, and is not resumed '
        || 'by itself any more (UPWELL_DURABLE_MAX_CRASHES).'
WHERE process_id = :process_id AND ended IS NULL AND due IS NULL AND crashes + 1 >= :most_crashes
RETURNING id, state, state_name, message;

-- name: await_resume
-- Of a process that has died: those that go on where they stopped. They are nobody's until somebody takes them.
-- One that only waited for the time of its next attempt has not crashed.
UPDATE flow_runs SET
    state = 'SCHEDULED', state_name = 'AwaitingResume', process_id = NULL,
    crashes = crashes + CASE WHEN due IS NULL THEN 1 ELSE 0 END,
    message = CAST(:message AS TEXT) || ' upwell.resume(''' || id || '''), or `upwell flow-run resume ' || id
        || '`, goes on where it stopped.'
WHERE process_id = :process_id AND ended IS NULL
RETURNING id, state, state_name, message;

-- name: crash_task_runs
-- The series of one process are numbered in a row; another process may go on with some of them. The other conditions are
-- for the index of what is not completed.
UPDATE task_runs SET state = 'CRASHED', state_name = NULL, message = :message, ended = :now
WHERE state <> 'COMPLETED' AND state IN ('RUNNING', 'PENDING', 'SCHEDULED', 'PAUSED', 'CANCELLING') AND ended IS NULL
  AND series >= :first AND series < :after
  AND series NOT IN (SELECT s.key FROM series s JOIN flow_runs f ON f.id = s.flow_run_id
                     WHERE s.key >= :first AND s.key < :after AND f.process_id <> :process_id);

-- name: crash_task_runs_of_series
-- Those that became known after their process had been found dead, in series that a process before has begun.
UPDATE task_runs SET state = 'CRASHED', state_name = NULL, message = :message, ended = :now
WHERE state <> 'COMPLETED' AND state IN ('RUNNING', 'PENDING', 'SCHEDULED', 'PAUSED', 'CANCELLING') AND ended IS NULL
  AND series IN (SELECT CAST(value AS INTEGER) FROM json_each(:keys));

-- name: crash_task_runs_of_flow_runs
-- Those in series that a process before has begun. ids: of the flow runs that the one which has died had under way.
UPDATE task_runs SET state = 'CRASHED', state_name = NULL, message = :message, ended = :now
WHERE state <> 'COMPLETED' AND state IN ('RUNNING', 'PENDING', 'SCHEDULED', 'PAUSED', 'CANCELLING') AND ended IS NULL
  AND series IN (SELECT key FROM series WHERE flow_run_id IN (SELECT value FROM json_each(:ids)));

-- name: jobs_wait_again
-- Those of runs that are to be gone on with: it is never too late for them.
UPDATE jobs SET state = 'waiting', worker_id = NULL, claimed = NULL, latest = NULL
WHERE state IN ('claimed', 'begun') AND flow_run_id IN (SELECT value FROM json_each(:ids))
  AND EXISTS (SELECT 1 FROM flow_runs f
              WHERE f.id = jobs.flow_run_id AND f.ended IS NULL AND f.state_name = 'AwaitingResume');

-- name: jobs_end
UPDATE jobs SET state = 'ended' WHERE flow_run_id IN (SELECT value FROM json_each(:ids))
  AND EXISTS (SELECT 1 FROM flow_runs f WHERE f.id = jobs.flow_run_id AND f.ended IS NOT NULL);

-- name: declare_lost_as_said
UPDATE processes SET state = 'lost' WHERE id = :id AND state = 'alive';

-- name: drop_leases_of_process
DELETE FROM leases WHERE process_id = :process_id;

-- name: drop_cache_locks_of_process
DELETE FROM cache_locks WHERE process_id = :process_id;

-- name: process_key
SELECT key FROM processes WHERE id = :id;

-- name: processes_that_left_runs
-- They are not at work any more, and have runs that never ended.
SELECT DISTINCT p.id, p.key, p.host, p.pid, p.state FROM flow_runs f JOIN processes p ON p.id = f.process_id
WHERE f.ended IS NULL AND f.process_id IS NOT NULL AND p.state <> 'alive';

-- name: lock_left_process
SELECT state FROM processes WHERE id = :id AND state <> 'alive' FOR UPDATE;
