-- Which host a life was on, from when on: '' is poorwill's own machine, or nowhere. Before the first row, ''.
CREATE TABLE stays (
  life INTEGER NOT NULL REFERENCES lives (id),
  began_us INTEGER NOT NULL,
  host TEXT NOT NULL,
  PRIMARY KEY (life, began_us)
) STRICT, WITHOUT ROWID;

-- Spans, those of wakes too, with the host they were on; one that saw two has the one it ended on.
CREATE VIEW hosted_spans AS
SELECT s.*, coalesce((SELECT host FROM stays h WHERE h.life = s.life
    AND h.began_us < coalesce(s.ended_us, 1 << 62) ORDER BY h.began_us DESC LIMIT 1), '') AS host
FROM spans s;

ALTER TABLE rates ADD COLUMN host TEXT;

DROP TRIGGER rates_stay;

CREATE TRIGGER rates_stay BEFORE UPDATE ON rates
WHEN OLD.until_us IS NOT NULL
  OR (OLD.effective_us, OLD.declared_us, OLD.recorded_us, OLD.active_nusd_h, OLD.parked_json,
      OLD.storage_nusd_gb_month, OLD.increment_us, OLD.minimum_us, OLD.currency)
    <> (NEW.effective_us, NEW.declared_us, NEW.recorded_us, NEW.active_nusd_h, NEW.parked_json,
      NEW.storage_nusd_gb_month, NEW.increment_us, NEW.minimum_us, NEW.currency)
  OR (OLD.model, OLD.driver, OLD.replica, OLD.host) IS NOT (NEW.model, NEW.driver, NEW.replica, NEW.host)
BEGIN
  SELECT RAISE(ABORT, 'a rate is closed, never changed');
END;

DROP TRIGGER IF EXISTS rates_sum_update; -- made anew, with the sum, after every migration
