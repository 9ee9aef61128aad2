-- What a key may do, as JSON (core/ports/keys.py), until when, and when another secret took this one's place:
-- both hold until this one expires.
ALTER TABLE keys ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE keys ADD COLUMN expires_us INTEGER;
ALTER TABLE keys ADD COLUMN replaced_us INTEGER;

DROP INDEX keys_now;
CREATE UNIQUE INDEX keys_now ON keys (name) WHERE revoked_us IS NULL AND replaced_us IS NULL;
