-- Tokens written to a prompt cache for an hour have a price of their own; `cache_write` no longer has them.
ALTER TABLE requests ADD COLUMN cache_write_1h INTEGER;

DROP VIEW request_rows;

CREATE VIEW request_rows AS
SELECT r.id, r.request, m.text AS model, k.text AS key, p.text AS path, o.text AS outcome,
  l.replica, w.wake, r.arrived_us, r.leased_us, r.first_byte_us, r.ended_us, r.status, r.tokens_in,
  r.tokens_out, r.bridge_nusd, b.text AS bridge, r.cache_read, r.cache_write, r.audio_in, r.image_in,
  r.audio_out, r.reasoning, r.cache_write_1h, r.bridge_unknown_nusd, r.counted
FROM requests r
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key
JOIN texts p ON p.id = r.path JOIN texts o ON o.id = r.outcome
LEFT JOIN lives l ON l.id = r.life LEFT JOIN wakes w ON w.id = r.wake
LEFT JOIN texts b ON b.id = r.bridge;

DROP TRIGGER IF EXISTS usage_sum_update; -- made anew, with the sum, after every migration

ALTER TABLE usage ADD COLUMN cache_write_1h INTEGER NOT NULL DEFAULT 0;
