-- Durable flow runs: begun, claimed, and what they have finished.

-- name: flow_run_of_key
SELECT id FROM flow_runs WHERE flow = :flow AND idempotency_key = :key;

-- name: flow_run_to_resume
-- The oldest run of this very call, by the digest that its arguments begin with, whose process has died; none that a durable flow run around it goes on with.
SELECT f.id FROM flow_runs f LEFT JOIN flow_runs p ON p.id = f.parent_flow_run_id
WHERE f.flow = :flow AND f.state = 'SCHEDULED' AND f.state_name = 'AwaitingResume' AND f.entrypoint = :entrypoint
  AND substr(f.arguments, 1, 16) = :arguments AND f.durable = 1 AND f.idempotency_key IS NULL
  AND f.deployment_id IS NULL
  AND (p.id IS NULL OR p.durable = 0 OR p.ended IS NOT NULL)
ORDER BY f.created, f.id LIMIT 1;

-- name: flow_run_as_it_is
SELECT f.state, f.state_name, f.message, f.result, f.ended, f.name, f.created, f.process_id, p.host, p.pid
FROM flow_runs f LEFT JOIN processes p ON p.id = f.process_id WHERE f.id = :id;

-- name: claim_flow_run
-- By one process only: whoever comes second finds another state.
UPDATE flow_runs SET state = 'PENDING', state_name = NULL, message = 'Resumed.', process_id = :process_id
WHERE id = :id AND state = 'SCHEDULED' AND state_name = 'AwaitingResume'
RETURNING name, created, run_count, crashes, source_hash, due;

-- name: flow_run_claimed
-- The same, of one that was claimed by a process that did not hear of it.
SELECT name, created, run_count, crashes, source_hash, due FROM flow_runs WHERE id = :id;

-- name: flow_run_to_call_again
-- What a run was called with, to call its flow again.
SELECT flow, entrypoint, arguments FROM flow_runs WHERE id = :id;

-- name: durable_series
SELECT key, base, task, created, submitted, source FROM series WHERE flow_run_id = :id ORDER BY key;

-- name: begun_runs
SELECT t.series, t.number FROM series s JOIN task_runs t ON t.series = s.key
WHERE s.flow_run_id = :id AND t.state <> 'COMPLETED';

-- name: finished_runs
-- Ordered by `s.key`, not by `r.series`, which is the same: so SQLite sees that they come in this order anyway.
-- Times in seconds, for here that is done in a tenth of the time that it would take later.
SELECT r.series, r.number, r.durable_key, r.record,
       CAST(COALESCE(t.started, 0) AS REAL) / 1e6, CAST(t.ended AS REAL) / 1e6, t.created, t.parent
FROM series s
JOIN task_run_results r ON r.series = s.key
JOIN task_runs t ON t.series = r.series AND t.number = r.number
WHERE s.flow_run_id = :id AND t.state = 'COMPLETED' AND r.durable_key IS NOT NULL
ORDER BY s.key, r.number;

-- name: waiting_runs
-- Those that waited for their next attempt. mark: what their records begin with.
SELECT r.durable_key, r.record FROM series s
JOIN task_run_results r ON r.series = s.key
LEFT JOIN task_runs t ON t.series = r.series AND t.number = r.number
WHERE s.flow_run_id = :id AND substr(r.record, 1, 1) = :mark AND r.durable_key IS NOT NULL
  AND (t.state IS NULL OR t.state = 'CRASHED')
ORDER BY t.run_count DESC, r.series, r.number;

-- name: large_maps
SELECT digest, series, first_number, runs FROM durable_calls WHERE flow_run_id = :id ORDER BY series, first_number;

-- name: children
-- Subflow runs: those that ended, but were not cancelled, and those that can go on.
SELECT id, flow, substr(arguments, 1, 16), parent_task_run_id, state, ended, source_hash, result IS NOT NULL FROM flow_runs
WHERE parent_flow_run_id = :id AND arguments IS NOT NULL AND durable = 1
  AND (state IN ('COMPLETED', 'FAILED', 'CRASHED') OR (state = 'SCHEDULED' AND state_name = 'AwaitingResume'))
ORDER BY created, id;

-- name: task_run_started
SELECT started FROM task_runs WHERE series = :series AND number = :number;

-- name: runs_to_resume
-- In the order in which they began; none that a durable flow run around it goes on with, or a worker.
SELECT f.id, f.flow FROM flow_runs f LEFT JOIN flow_runs p ON p.id = f.parent_flow_run_id
WHERE f.state = 'SCHEDULED' AND f.state_name = 'AwaitingResume' AND f.arguments IS NOT NULL AND f.deployment_id IS NULL
  AND (p.id IS NULL OR p.durable = 0 OR p.ended IS NOT NULL)
ORDER BY f.created, f.id;

-- name: ends_in_tables
-- Up to which number those that a process has noted at once are where everything is.
SELECT ends FROM processes WHERE id = :id;

-- name: put_ends_in_tables
UPDATE processes SET ends = :ends WHERE id = :id;

-- name: safe_ends_of
-- What earlier versions have noted.
SELECT facts FROM safe_ends WHERE key >= :first AND key < :after ORDER BY key;

-- name: forget_safe_ends
DELETE FROM safe_ends WHERE key >= :first AND key < :after;
