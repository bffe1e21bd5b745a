-- Limits that hold for all processes, and who has slots of them.

-- name: limits
SELECT name, slots, slot_decay_per_second, active FROM limits ORDER BY name;

-- name: limits_in_use
-- For people: how many slots are taken, and how many wishes stand in line.
SELECT m.name, m.slots, m.slot_decay_per_second, m.active, m.level, m.level_at,
       coalesce(sum(CASE WHEN l.state = 'held' THEN l.slots ELSE 0 END), 0),
       coalesce(sum(CASE WHEN l.state = 'waiting' THEN 1 ELSE 0 END), 0)
FROM limits m LEFT JOIN (
    SELECT a.limit_name, a.state, a.slots FROM leases a JOIN processes p ON p.id = a.process_id WHERE p.state = 'alive'
) l ON l.limit_name = m.name
GROUP BY m.name, m.slots, m.slot_decay_per_second, m.active, m.level, m.level_at
ORDER BY m.name;

-- name: create_limit
INSERT OR IGNORE INTO limits (name, slots, slot_decay_per_second, active, created)
VALUES (:name, :slots, :slot_decay_per_second, :active, :created)
RETURNING name;

-- name: update_limit
UPDATE limits SET slots = :slots, slot_decay_per_second = :slot_decay_per_second, active = :active
WHERE name = :name
RETURNING name;

-- name: delete_limit
DELETE FROM limits WHERE name = :name RETURNING name;

-- name: drop_leases_of_limit
DELETE FROM leases WHERE limit_name = :name;

-- name: limit
SELECT name, slots, slot_decay_per_second, active FROM limits WHERE name = :name;

-- name: lock_limit
-- Whoever takes slots of this limit comes one after the other.
SELECT name, slots, slot_decay_per_second, active FROM limits WHERE name = :name FOR UPDATE;

-- name: slots_held
SELECT coalesce(sum(l.slots), 0) FROM leases l JOIN processes p ON p.id = l.process_id
WHERE l.limit_name = :name AND l.state = 'held' AND p.state = 'alive';

-- name: line
-- Who waits, first come first.
SELECT l.id, l.process_id, l.slots FROM leases l JOIN processes p ON p.id = l.process_id
WHERE l.limit_name = :name AND l.state = 'waiting' AND p.state = 'alive'
ORDER BY l.place, l.id LIMIT :most;

-- name: last_place
SELECT coalesce(max(place), 0) FROM leases WHERE limit_name = :name AND state = 'waiting';

-- name: put_leases
INSERT OR IGNORE INTO leases (id, limit_name, process_id, holder, slots, state, place, since)
VALUES :rows(id, limit_name, process_id, holder, slots, 'waiting', place, since);

-- name: hold_leases
UPDATE leases SET state = 'held', since = :since WHERE id IN (SELECT value FROM json_each(:ids));

-- name: held_among
SELECT id FROM leases WHERE state = 'held' AND id IN (SELECT value FROM json_each(:ids));

-- name: drop_leases
DELETE FROM leases WHERE id IN (SELECT value FROM json_each(:ids));

-- name: raise_level
-- Of a limit whose slots become free with time: the level sinks, then rises by what is reserved. Where the clock was set
-- back, it sinks on from there.
UPDATE limits SET
    level = CASE WHEN level > slot_decay_per_second * (CASE WHEN :now > level_at THEN :now - level_at ELSE 0 END) / 1e6
                 THEN level - slot_decay_per_second * (CASE WHEN :now > level_at THEN :now - level_at ELSE 0 END) / 1e6
                 ELSE 0 END + :slots,
    level_at = CASE WHEN :now < level_at AND level_at - :now < 1000000 THEN level_at ELSE :now END
WHERE name = :name
RETURNING level;

-- name: lower_level
UPDATE limits SET level = CASE WHEN level > :slots THEN level - :slots ELSE 0 END WHERE name = :name;
