-- Which hosted API answered a request, as provider/model; NULL for those that a replica answered. A bridged
-- request whose API told no usage cost something that is not known: it is counted, and its bridge_nusd is 0.
ALTER TABLE requests ADD COLUMN bridge INTEGER REFERENCES texts (id);

DROP VIEW request_rows;

CREATE VIEW request_rows AS
SELECT r.id, r.request, m.text AS model, k.text AS key, p.text AS path, o.text AS outcome,
  l.replica, w.wake, r.arrived_us, r.leased_us, r.first_byte_us, r.ended_us, r.status, r.tokens_in,
  r.tokens_out, r.bridge_nusd, b.text AS bridge
FROM requests r
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key
JOIN texts p ON p.id = r.path JOIN texts o ON o.id = r.outcome
LEFT JOIN lives l ON l.id = r.life LEFT JOIN wakes w ON w.id = r.wake
LEFT JOIN texts b ON b.id = r.bridge;

ALTER TABLE usage ADD COLUMN bridged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN bridge_untold INTEGER NOT NULL DEFAULT 0;
