-- Deployments and their schedules.

-- name: deployment_by_id
SELECT d.id, d.flow, d.name, d.entrypoint, d.version, d.description, d.tags, d.parameters, d.parameter_schema, d.work_pool,
       d.work_queue, d.job_variables, d.concurrency, d.when_full, d.paused, d.created, d.updated
FROM deployments d WHERE d.id = :id;

-- name: deployment_by_name
SELECT d.id, d.flow, d.name, d.entrypoint, d.version, d.description, d.tags, d.parameters, d.parameter_schema, d.work_pool,
       d.work_queue, d.job_variables, d.concurrency, d.when_full, d.paused, d.created, d.updated
FROM deployments d WHERE d.flow = :flow AND d.name = :name;

-- name: lock_deployment
-- Whoever makes runs of it, or changes it, does so one after the other.
SELECT id FROM deployments WHERE id = :id FOR UPDATE;

-- name: lock_deployment_by_name
SELECT id FROM deployments WHERE flow = :flow AND name = :name FOR UPDATE;

-- name: new_deployment
-- Answers with nothing if there is one of this name.
INSERT OR IGNORE INTO deployments (id, flow, name, created, updated) VALUES (:id, :flow, :name, :now, :now)
RETURNING id;

-- name: change_deployment
UPDATE deployments SET
    entrypoint = :entrypoint, version = :version, description = :description, tags = :tags, parameters = :parameters,
    parameter_schema = :parameter_schema, work_pool = :work_pool, work_queue = :work_queue,
    job_variables = :job_variables, concurrency = :concurrency, when_full = :when_full,
    paused = coalesce(:paused, paused), updated = :now
WHERE id = :id;

-- name: pause_deployment
UPDATE deployments SET paused = :paused, updated = :now WHERE id = :id;

-- name: remove_deployment
DELETE FROM deployments WHERE id = :id;

-- name: schedules_of_deployments
SELECT id, deployment_id, slug, kind, expression, timezone, anchor, parameters, active, catchup, max_late, last_tick,
       next_tick
FROM schedules WHERE deployment_id IN (SELECT value FROM json_each(:ids)) ORDER BY deployment_id, slug;

-- name: lock_schedule
SELECT id, deployment_id, slug, kind, expression, timezone, anchor, parameters, active, catchup, max_late, last_tick,
       next_tick, look
FROM schedules WHERE id = :id FOR UPDATE;

-- name: put_schedule
INSERT INTO schedules (id, deployment_id, slug, kind, expression, timezone, anchor, parameters, active, catchup,
                       max_late, last_tick, next_tick, look)
VALUES (:id, :deployment_id, :slug, :kind, :expression, :timezone, :anchor, :parameters, :active, :catchup,
        :max_late, :now, :next_tick, 0)
ON CONFLICT (deployment_id, slug) DO UPDATE SET
    kind = excluded.kind, expression = excluded.expression, timezone = excluded.timezone, anchor = excluded.anchor,
    parameters = excluded.parameters, active = excluded.active, catchup = excluded.catchup,
    max_late = excluded.max_late, last_tick = excluded.last_tick, next_tick = excluded.next_tick, look = 0;

-- name: remove_schedule
DELETE FROM schedules WHERE deployment_id = :deployment_id AND slug = :slug;

-- name: remove_schedules
DELETE FROM schedules WHERE deployment_id = :deployment_id;

-- name: schedules_to_look_at
SELECT s.id, s.deployment_id FROM schedules s JOIN deployments d ON d.id = s.deployment_id
WHERE s.active = 1 AND s.look <= :now AND d.paused = 0
ORDER BY s.look, s.id LIMIT :most;

-- name: next_look
-- When the next schedule has to be looked at.
SELECT min(s.look) FROM schedules s JOIN deployments d ON d.id = s.deployment_id WHERE s.active = 1 AND d.paused = 0;

-- name: lock_deployments_asked_for
-- Those whose runs a worker takes.
SELECT id FROM deployments WHERE work_pool = :pool OR id IN (SELECT value FROM json_each(:deployments))
ORDER BY id FOR UPDATE;

-- name: schedules_not_asked_for
-- Those whose ticks may have passed while nobody asked for their runs.
SELECT s.id, s.deployment_id, s.slug, s.catchup FROM schedules s JOIN deployments d ON d.id = s.deployment_id
LEFT JOIN work_pools p ON p.name = d.work_pool
WHERE s.active = 1 AND d.paused = 0
  AND (d.work_pool = :pool AND coalesce(p.asked, 0) < :before
       OR d.id IN (SELECT value FROM json_each(:deployments)) AND coalesce(d.asked, 0) < :before)
ORDER BY s.deployment_id, s.id;

-- name: move_schedule
-- Ticks were made up to this one.
UPDATE schedules SET last_tick = :last_tick, next_tick = :next_tick, look = :look WHERE id = :id;

-- name: flow_runs_of_keys
-- Which of these keys have a run already.
SELECT idempotency_key FROM flow_runs
WHERE flow = :flow AND idempotency_key IN (SELECT value FROM json_each(:keys));

-- name: made_ahead
-- Runs of a deployment (and of one schedule) that have not begun, and are due after this.
SELECT j.flow_run_id FROM jobs j
WHERE j.deployment_id = :deployment_id AND j.due > :after AND j.state IN ('waiting', 'claimed')
  AND (j.schedule_slug = :slug OR CAST(:slug AS TEXT) IS NULL AND j.schedule_slug IS NOT NULL)
ORDER BY j.flow_run_id FOR UPDATE;

-- name: not_begun
SELECT flow_run_id FROM jobs WHERE deployment_id = :deployment_id AND state IN ('waiting', 'claimed')
ORDER BY flow_run_id FOR UPDATE;

-- name: take_back_jobs
DELETE FROM jobs WHERE flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: take_back_flow_runs
DELETE FROM flow_runs WHERE id IN (SELECT value FROM json_each(:ids));

-- name: take_back_flow_run_states
DELETE FROM flow_run_states WHERE flow_run_id IN (SELECT value FROM json_each(:ids));

-- name: move_jobs_to_pool
-- What waits goes where its deployment goes.
UPDATE jobs SET work_pool = :work_pool, work_queue = :work_queue WHERE flow_run_id IN (
    SELECT flow_run_id FROM jobs WHERE deployment_id = :deployment_id AND state = 'waiting'
    ORDER BY flow_run_id FOR UPDATE);

-- name: put_deployed_runs
INSERT OR IGNORE INTO flow_runs (id, flow, name, version, state, message, created, due, run_count, tags, parameters,
                                 parent_flow_run_id, parent_task_run_id, root_flow_run_id, deployment_id,
                                 idempotency_key, entrypoint)
VALUES :rows(id, flow, name, version, 'SCHEDULED', message, created, due, 0, tags, parameters,
             parent_flow_run_id, parent_task_run_id, root_flow_run_id, deployment_id,
             idempotency_key, entrypoint);

-- name: put_jobs
INSERT INTO jobs (flow_run_id, deployment_id, schedule_slug, due, latest, expected, priority, work_pool, work_queue, parameters,
                  job_variables, state)
VALUES :rows(flow_run_id, deployment_id, schedule_slug, due, latest, expected, priority, work_pool, work_queue, parameters,
             job_variables, 'waiting');

-- name: those_there
SELECT id FROM flow_runs WHERE id IN (SELECT value FROM json_each(:ids));
