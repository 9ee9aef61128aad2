-- Tokens by class (core/tokens.py): NULL is none of that class. `bridge_unknown_nusd` is the most that a hosted
-- API may have charged beyond bridge_nusd, if that is not known: it counts against spend limits, not on the bill.
ALTER TABLE requests ADD COLUMN cache_read INTEGER;
ALTER TABLE requests ADD COLUMN cache_write INTEGER;
ALTER TABLE requests ADD COLUMN audio_in INTEGER;
ALTER TABLE requests ADD COLUMN image_in INTEGER;
ALTER TABLE requests ADD COLUMN audio_out INTEGER;
ALTER TABLE requests ADD COLUMN reasoning INTEGER;
ALTER TABLE requests ADD COLUMN bridge_unknown_nusd INTEGER NOT NULL DEFAULT 0;

DROP VIEW request_rows;

CREATE VIEW request_rows AS
SELECT r.id, r.request, m.text AS model, k.text AS key, p.text AS path, o.text AS outcome,
  l.replica, w.wake, r.arrived_us, r.leased_us, r.first_byte_us, r.ended_us, r.status, r.tokens_in,
  r.tokens_out, r.bridge_nusd, b.text AS bridge, r.cache_read, r.cache_write, r.audio_in, r.image_in,
  r.audio_out, r.reasoning, r.bridge_unknown_nusd
FROM requests r
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key
JOIN texts p ON p.id = r.path JOIN texts o ON o.id = r.outcome
LEFT JOIN lives l ON l.id = r.life LEFT JOIN wakes w ON w.id = r.wake
LEFT JOIN texts b ON b.id = r.bridge;

ALTER TABLE usage ADD COLUMN bridge_unknown_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN cache_read INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN cache_write INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN audio_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN image_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN audio_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN reasoning INTEGER NOT NULL DEFAULT 0;
