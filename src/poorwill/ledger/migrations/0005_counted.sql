-- `counted`: the tokens of a request were counted as they passed, because no usage was reported; NULL is no.
-- `untold` is about requests without any count: embeddings have tokens in alone.
ALTER TABLE requests ADD COLUMN counted INTEGER;

DROP VIEW request_rows;

CREATE VIEW request_rows AS
SELECT r.id, r.request, m.text AS model, k.text AS key, p.text AS path, o.text AS outcome,
  l.replica, w.wake, r.arrived_us, r.leased_us, r.first_byte_us, r.ended_us, r.status, r.tokens_in,
  r.tokens_out, r.bridge_nusd, b.text AS bridge, r.cache_read, r.cache_write, r.audio_in, r.image_in,
  r.audio_out, r.reasoning, r.bridge_unknown_nusd, r.counted
FROM requests r
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key
JOIN texts p ON p.id = r.path JOIN texts o ON o.id = r.outcome
LEFT JOIN lives l ON l.id = r.life LEFT JOIN wakes w ON w.id = r.wake
LEFT JOIN texts b ON b.id = r.bridge;

DROP TRIGGER IF EXISTS usage_sum_update; -- made anew, with the sum, after every migration

ALTER TABLE usage ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;

UPDATE usage SET untold = untold - known.requests FROM (
  SELECT ended_us / 3600000000 AS hour, model, key, count(*) AS requests FROM requests
  WHERE tokens_out IS NULL AND tokens_in IS NOT NULL GROUP BY 1, 2, 3
) AS known
WHERE usage.hour = known.hour AND usage.model = known.model AND usage.key = known.key;
