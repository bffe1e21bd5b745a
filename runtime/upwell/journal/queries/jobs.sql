-- Jobs: claimed by exactly one worker at a time, begun by exactly one process, and what comes in between.
-- Whoever locks rows of several tables does so in this order, so that nobody waits in a circle: processes, work_pools,
-- work_queues, deployments, schedules, jobs, flow_runs.

-- name: is_any_job_due
-- A look before anything is locked.
SELECT 1 FROM jobs j LEFT JOIN deployments d ON d.id = j.deployment_id
WHERE j.state = 'waiting' AND j.due <= :now AND (j.latest IS NULL OR j.latest >= :now)
  AND (d.paused IS NULL OR d.paused = 0)
  AND (j.work_pool = :pool OR j.deployment_id IN (SELECT value FROM json_each(:deployments)))
LIMIT 1;

-- name: lock_pool
SELECT paused, concurrency FROM work_pools WHERE name = :name FOR UPDATE;

-- name: lock_queues
SELECT name, priority, paused, concurrency FROM work_queues WHERE pool = :pool ORDER BY name FOR UPDATE;

-- name: lock_limited_deployments
-- Those that may have only so many runs under way, and have some that are due.
SELECT d.id, d.concurrency, d.when_full FROM deployments d
WHERE d.concurrency IS NOT NULL AND d.paused = 0
  AND (d.work_pool = :pool OR d.id IN (SELECT value FROM json_each(:deployments)))
  AND EXISTS (SELECT 1 FROM jobs j WHERE j.deployment_id = d.id AND j.state = 'waiting' AND j.due <= :now)
ORDER BY d.id FOR UPDATE OF d;

-- name: lock_limited_deployment
SELECT d.id, d.concurrency, d.when_full FROM deployments d WHERE d.id = :id AND d.concurrency IS NOT NULL FOR UPDATE OF d;

-- name: under_way_by_deployment
-- As long as their runs have not ended. (Said so that no index of what has not ended is used: there is a better one.)
SELECT j.deployment_id, count(*) FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id
WHERE j.state IN ('claimed', 'begun') AND coalesce(f.ended, 0) = 0
  AND j.deployment_id IN (SELECT value FROM json_each(:ids))
GROUP BY j.deployment_id;

-- name: under_way_by_queue
SELECT j.work_queue, count(*) FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id
WHERE j.state IN ('claimed', 'begun') AND coalesce(f.ended, 0) = 0 AND j.work_pool = :pool
GROUP BY j.work_queue;

-- name: jobs_due
-- The next ones that a worker may have. closed: deployments of which no more may begin now.
SELECT j.flow_run_id, j.deployment_id, j.work_queue, d.concurrency, j.work_pool
FROM jobs j
LEFT JOIN deployments d ON d.id = j.deployment_id
LEFT JOIN work_queues q ON q.pool = j.work_pool AND q.name = j.work_queue
WHERE j.state = 'waiting' AND j.due <= :now AND (j.latest IS NULL OR j.latest >= :now)
  AND (d.paused IS NULL OR d.paused = 0)
  AND j.deployment_id NOT IN (SELECT value FROM json_each(:closed))
  AND j.flow_run_id NOT IN (SELECT value FROM json_each(:taken))
  AND (j.work_pool = :pool AND j.work_queue IN (SELECT value FROM json_each(:queues))
       OR j.deployment_id IN (SELECT value FROM json_each(:deployments)))
ORDER BY coalesce(q.priority, 0), j.priority, j.due, j.flow_run_id
LIMIT :most FOR UPDATE OF j SKIP LOCKED;

-- name: jobs_expected
-- Those that will be due until then, and that nothing keeps from it as far as can be seen now.
SELECT j.flow_run_id FROM jobs j LEFT JOIN deployments d ON d.id = j.deployment_id
WHERE j.state = 'waiting' AND j.due > :now AND j.due <= :until
  AND (d.paused IS NULL OR d.paused = 0)
  AND (j.work_pool = :pool AND (:queues = '[]' OR j.work_queue IN (SELECT value FROM json_each(:queues)))
       OR j.deployment_id IN (SELECT value FROM json_each(:deployments)))
ORDER BY j.due, j.flow_run_id LIMIT :most;

-- name: runs_at_work
-- Those of these that somebody is at work on, or that have ended: they were resumed by hand.
SELECT id FROM flow_runs WHERE id IN (SELECT value FROM json_each(:ids))
  AND (coalesce(ended, 0) <> 0 OR coalesce(process_id, '') <> '');

-- name: claim_jobs
-- Those that `jobs_due` has locked.
UPDATE jobs SET state = 'claimed', worker_id = :worker_id, claimed = :now, claims = claims + 1
WHERE flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: jobs_claimed
SELECT j.flow_run_id, f.name, f.flow, j.deployment_id, d.name, coalesce(d.entrypoint, f.entrypoint, ''), j.parameters,
       f.tags, j.due, f.created, j.job_variables, j.worker_id, j.claims, f.state_name, j.fork_of, j.fork_before,
       d.version
FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id LEFT JOIN deployments d ON d.id = j.deployment_id
WHERE j.flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: claimed_by
SELECT flow_run_id FROM jobs WHERE worker_id = :worker_id AND state = 'claimed' ORDER BY claimed, flow_run_id;

-- name: job
SELECT state, worker_id, claims, deployment_id, schedule_slug, work_pool FROM jobs WHERE flow_run_id = :id FOR UPDATE;

-- name: set_job
UPDATE jobs SET state = :state WHERE flow_run_id = :id;

-- name: put_job_back
UPDATE jobs SET state = 'waiting', worker_id = NULL, claimed = NULL WHERE flow_run_id = :id;

-- name: let_job_wait_again
-- As one that had begun: it is never too late for it.
UPDATE jobs SET state = 'waiting', worker_id = NULL, claimed = NULL, latest = NULL WHERE flow_run_id = :id;

-- name: flow_run_of_job
SELECT state, state_name, message, ended, process_id, flow, name, due FROM flow_runs WHERE id = :id FOR UPDATE;

-- name: process_of_job
SELECT process_id FROM flow_runs WHERE id = :id;

-- name: note_of_job
-- Why it waits again.
UPDATE flow_runs SET message = :message WHERE id = :id AND state = 'SCHEDULED' AND ended IS NULL;

-- name: flow_run_begins
-- One that was made ahead of its time stands from now on, wherever runs are listed or counted, at that time.
UPDATE flow_runs SET process_id = :process_id, due = NULL,
    created = CASE WHEN started IS NULL AND due > created THEN due ELSE created END,
    durable = CASE WHEN CAST(:durable AS INTEGER) = 1 THEN 1 ELSE durable END
WHERE id = :id AND ended IS NULL;

-- name: end_flow_run
-- One that nobody is at work on. If it was made ahead of its time, see `flow_run_begins`.
UPDATE flow_runs SET state = :state, state_name = :state_name, message = :message, ended = :now, process_id = NULL,
    created = CASE WHEN started IS NULL AND due > created THEN CASE WHEN due < :now THEN due ELSE :now END ELSE created END
WHERE id = :id AND ended IS NULL;

-- name: put_cancel_request
-- Who asks again may have it sooner, but not later.
INSERT INTO cancel_requests (flow_run_id, requested, actor, reason, grace_micros)
VALUES (:id, :now, :actor, :reason, :grace)
ON CONFLICT (flow_run_id) DO UPDATE SET grace_micros = CASE
    WHEN excluded.requested + excluded.grace_micros < cancel_requests.requested + cancel_requests.grace_micros
    THEN excluded.requested + excluded.grace_micros - cancel_requests.requested ELSE cancel_requests.grace_micros END;

-- name: cancel_request
SELECT requested, actor, reason, grace_micros FROM cancel_requests WHERE flow_run_id = :id;

-- name: cancel_requests
SELECT c.flow_run_id, c.requested, c.actor, c.reason, c.grace_micros
FROM cancel_requests c JOIN flow_runs f ON f.id = c.flow_run_id WHERE coalesce(f.ended, 0) = 0 ORDER BY c.flow_run_id;

-- name: cancel_requests_of_flow_runs
SELECT c.flow_run_id, c.requested, c.actor, c.reason, c.grace_micros
FROM cancel_requests c JOIN flow_runs f ON f.id = c.flow_run_id
WHERE coalesce(f.ended, 0) = 0 AND c.flow_run_id IN (SELECT value FROM json_each(:ids)) ORDER BY c.flow_run_id;

-- name: cancel_requests_of_process
SELECT c.flow_run_id, c.requested, c.actor, c.reason, c.grace_micros
FROM cancel_requests c JOIN flow_runs f ON f.id = c.flow_run_id
WHERE coalesce(f.ended, 0) = 0 AND f.process_id = :process_id ORDER BY c.flow_run_id;

-- name: remove_cancel_request
DELETE FROM cancel_requests WHERE flow_run_id = :flow_run_id;

-- name: remove_job
DELETE FROM jobs WHERE flow_run_id = :flow_run_id;

-- name: job_to_run_again
SELECT j.deployment_id, j.parameters, j.job_variables, j.priority, j.work_queue, f.tags, f.ended, f.name, f.durable
FROM flow_runs f LEFT JOIN jobs j ON j.flow_run_id = f.id WHERE f.id = :id;

-- name: job_is_fork
UPDATE jobs SET fork_of = :fork_of, fork_before = :before WHERE flow_run_id = :id;

-- name: ticks_waiting
-- Of one schedule: those that should have begun, the latest first.
SELECT flow_run_id FROM jobs
WHERE deployment_id = :deployment_id AND schedule_slug = :slug AND state = 'waiting' AND due <= :now
ORDER BY due DESC, flow_run_id FOR UPDATE;

-- name: asked_for_pool
UPDATE work_pools SET asked = :now WHERE name = :name;

-- name: asked_for_deployments
UPDATE deployments SET asked = :now WHERE id IN (SELECT value FROM json_each(:ids));

-- name: jobs_too_late
-- Nobody began them by then.
SELECT flow_run_id, due, latest FROM jobs WHERE state = 'waiting' AND latest IS NOT NULL AND latest < :now
ORDER BY flow_run_id LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: jobs_late
SELECT flow_run_id FROM jobs WHERE state = 'waiting' AND late = 0 AND expected < :before
ORDER BY flow_run_id LIMIT :most FOR UPDATE SKIP LOCKED;

-- name: jobs_are_late
UPDATE jobs SET late = 1 WHERE flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: states_of_flow_runs
SELECT id, state, state_name FROM flow_runs WHERE id IN (SELECT value FROM json_each(:ids));

-- name: flow_runs_are_late
UPDATE flow_runs SET state_name = 'Late', message = :message,
    created = CASE WHEN started IS NULL AND due > created THEN due ELSE created END
WHERE id IN (SELECT value FROM json_each(:ids));

-- name: is_anything_late
-- A look before anything is locked.
SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs WHERE state = 'waiting' AND late = 0 AND expected < :before)
    OR EXISTS (SELECT 1 FROM jobs WHERE state = 'waiting' AND latest IS NOT NULL AND latest < :now);

-- name: is_anything_to_reap
-- A look before anything is locked.
SELECT 1 WHERE EXISTS (
    SELECT 1 FROM jobs j LEFT JOIN processes p ON p.id = j.worker_id
    WHERE j.state = 'claimed' AND (p.state IS NULL OR p.state <> 'alive' OR j.claimed < :before)
) OR EXISTS (
    SELECT 1 FROM jobs j LEFT JOIN flow_runs f ON f.id = j.flow_run_id
    WHERE j.state IN ('claimed', 'begun') AND (f.id IS NULL OR coalesce(f.ended, 0) <> 0)
) OR EXISTS (
    SELECT 1 FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id
    WHERE j.state = 'begun' AND f.state_name = 'AwaitingResume' AND coalesce(f.process_id, '') = ''
      AND coalesce(f.ended, 0) = 0
) OR EXISTS (
    SELECT 1 FROM cancel_requests c LEFT JOIN flow_runs f ON f.id = c.flow_run_id
    WHERE f.id IS NULL OR coalesce(f.ended, 0) <> 0
) OR EXISTS (
    SELECT 1 FROM deployments d
    WHERE d.concurrency IS NOT NULL AND d.when_full <> 'queue' AND d.paused = 0 AND EXISTS (
        SELECT 1 FROM jobs j WHERE j.deployment_id = d.id AND j.state = 'waiting' AND j.due <= :now)
);

-- name: jobs_to_put_back
-- Claimed, but not begun, by those who have died or seem to have forgotten it.
SELECT j.flow_run_id FROM jobs j LEFT JOIN processes p ON p.id = j.worker_id
WHERE j.state = 'claimed' AND (p.state IS NULL OR p.state <> 'alive' OR j.claimed < :before)
ORDER BY j.flow_run_id FOR UPDATE OF j SKIP LOCKED;

-- name: jobs_to_resume
-- Their run waits to be gone on with.
SELECT j.flow_run_id FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id
WHERE j.state = 'begun' AND f.state_name = 'AwaitingResume' AND coalesce(f.process_id, '') = ''
  AND coalesce(f.ended, 0) = 0
ORDER BY j.flow_run_id FOR UPDATE OF j SKIP LOCKED;

-- name: jobs_that_have_ended
SELECT j.flow_run_id FROM jobs j LEFT JOIN flow_runs f ON f.id = j.flow_run_id
WHERE j.state IN ('claimed', 'begun') AND (f.id IS NULL OR coalesce(f.ended, 0) <> 0)
ORDER BY j.flow_run_id LIMIT :most FOR UPDATE OF j SKIP LOCKED;

-- name: remove_answered_cancel_requests
DELETE FROM cancel_requests WHERE flow_run_id IN (
    SELECT c.flow_run_id FROM cancel_requests c LEFT JOIN flow_runs f ON f.id = c.flow_run_id
    WHERE f.id IS NULL OR coalesce(f.ended, 0) <> 0)
RETURNING flow_run_id;

-- name: full_deployments
-- Those that do not let what is due wait.
SELECT d.id FROM deployments d
WHERE d.concurrency IS NOT NULL AND d.when_full <> 'queue' AND d.paused = 0
  AND EXISTS (SELECT 1 FROM jobs j WHERE j.deployment_id = d.id AND j.state = 'waiting' AND j.due <= :now)
ORDER BY d.id;

-- name: jobs_due_of_deployment
SELECT flow_run_id FROM jobs WHERE deployment_id = :deployment_id AND state = 'waiting' AND due <= :now
  AND (latest IS NULL OR latest >= :now)
ORDER BY priority, due, flow_run_id;

-- name: jobs_under_way_of_deployment
-- The one that began first before the others; and whether it is asked to end.
SELECT j.flow_run_id, c.flow_run_id IS NOT NULL FROM jobs j JOIN flow_runs f ON f.id = j.flow_run_id
LEFT JOIN cancel_requests c ON c.flow_run_id = j.flow_run_id
WHERE j.deployment_id = :deployment_id AND j.state IN ('claimed', 'begun') AND coalesce(f.ended, 0) = 0
ORDER BY j.claimed, j.flow_run_id;
