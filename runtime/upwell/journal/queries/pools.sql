-- Work pools, their queues, and who works there.

-- name: pool
SELECT name, kind, description, paused, concurrency, base_job_template, created FROM work_pools WHERE name = :name;

-- name: pools
SELECT name, kind, description, paused, concurrency, base_job_template, created FROM work_pools ORDER BY name;

-- name: new_pool
INSERT OR IGNORE INTO work_pools (name, kind, created) VALUES (:name, :kind, :now) RETURNING name;

-- name: change_pool
UPDATE work_pools SET kind = :kind, description = :description, paused = :paused, concurrency = :concurrency,
    base_job_template = :base_job_template
WHERE name = :name;

-- name: remove_pool
DELETE FROM work_pools WHERE name = :name;

-- name: deployments_of_pool
SELECT flow, name FROM deployments WHERE work_pool = :pool AND (work_queue = :queue OR CAST(:queue AS TEXT) IS NULL)
ORDER BY flow, name LIMIT :most;

-- name: queues_of_pools
SELECT pool, name, priority, paused, concurrency FROM work_queues WHERE pool IN (SELECT value FROM json_each(:names))
ORDER BY pool, priority, name;

-- name: ensure_queue
INSERT OR IGNORE INTO work_queues (pool, name) VALUES (:pool, :name);

-- name: put_queue
INSERT INTO work_queues (pool, name, priority, paused, concurrency)
VALUES (:pool, :name, :priority, :paused, :concurrency)
ON CONFLICT (pool, name) DO UPDATE SET
    priority = excluded.priority, paused = excluded.paused, concurrency = excluded.concurrency;

-- name: remove_queue
DELETE FROM work_queues WHERE pool = :pool AND name = :name RETURNING name;

-- name: remove_queues
DELETE FROM work_queues WHERE pool = :pool;

-- name: move_jobs_of_queue
UPDATE jobs SET work_queue = :into WHERE flow_run_id IN (
    SELECT flow_run_id FROM jobs WHERE work_pool = :pool AND work_queue = :name AND state = 'waiting'
    ORDER BY flow_run_id FOR UPDATE);

-- name: put_worker
INSERT INTO workers (process_id, name, pool, started, seen) VALUES (:id, :name, :pool, :now, :now)
ON CONFLICT (process_id) DO UPDATE SET name = excluded.name, pool = excluded.pool, seen = excluded.seen, ended = NULL;

-- name: end_worker
UPDATE workers SET ended = :now WHERE process_id = :id AND ended IS NULL RETURNING process_id;

-- name: jobs_of_worker
-- Claimed, and not begun.
SELECT flow_run_id FROM jobs WHERE worker_id = :id AND state = 'claimed' ORDER BY flow_run_id FOR UPDATE;

-- name: workers
SELECT w.process_id, w.name, w.pool, p.host, p.pid, w.ended IS NULL AND p.state = 'alive', w.started,
       coalesce(w.ended, p.seen, w.seen)
FROM workers w LEFT JOIN processes p ON p.id = w.process_id
WHERE (w.pool = :pool OR CAST(:pool AS TEXT) IS NULL) AND coalesce(w.ended, p.seen, w.seen) >= :since
ORDER BY w.started DESC, w.process_id LIMIT :most;

-- name: remove_old_workers
DELETE FROM workers WHERE process_id IN (
    SELECT w.process_id FROM workers w LEFT JOIN processes p ON p.id = w.process_id
    WHERE w.seen < :before AND (p.state IS NULL OR p.state <> 'alive' OR w.ended < :before)
    ORDER BY w.process_id LIMIT :most)
RETURNING process_id;
