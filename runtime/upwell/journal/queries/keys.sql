-- Keys to the API, and who changed what.

-- name: put_key
INSERT INTO api_keys (id, name, scope, prefix, digest, created, expires)
VALUES (:id, :name, :scope, :prefix, :digest, :now, :expires);

-- name: lock_keys_of_name
SELECT id FROM api_keys WHERE name = :name AND revoked IS NULL AND (expires IS NULL OR expires > :now) FOR UPDATE;

-- name: keys
SELECT id, name, scope, prefix, created, expires, revoked, last_used FROM api_keys ORDER BY created, id;

-- name: key
SELECT id, name, scope, prefix, created, expires, revoked, last_used FROM api_keys WHERE id = :id;

-- name: key_of_digest
SELECT id, name, scope, prefix, created, expires, revoked, last_used, digest FROM api_keys WHERE digest = :digest;

-- name: revoke_key
UPDATE api_keys SET revoked = :now WHERE id = :id AND revoked IS NULL;

-- name: key_was_used
UPDATE api_keys SET last_used = :now WHERE id = :id;

-- name: put_audit_record
INSERT INTO audit_records (at, actor, action, target, detail) VALUES (:at, :actor, :action, :target, :detail);

-- name: audit_records
SELECT key, at, actor, action, target, detail FROM audit_records WHERE key < :before ORDER BY key DESC LIMIT :n;
