-- The ledger's first schema. Instants are microseconds since the Unix epoch, money integer nano-dollars.
--
-- Spans tile a life, and the schema alone makes it so:
--   * began_us and ended_us are each unique within a life, and a span is never empty;
--   * a span's next_us is its ended_us, and a deferred foreign key demands a span that begins there;
--   * only one span of a life has no next_us: the open one, or the last of an ended life.
-- Following next_us from any span therefore leads, strictly forward, to that one last span, and no two
-- spans share a successor: there is a single chain, without gap or overlap. lives.created_us must be the
-- beginning of a span, and no span begins before it, so the chain starts where the life does.

CREATE TABLE causes (
  cause TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE lives (
  id INTEGER PRIMARY KEY,
  replica TEXT NOT NULL,
  model TEXT NOT NULL,
  driver TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  ended_us INTEGER,
  CHECK (ended_us IS NULL OR ended_us > created_us),
  FOREIGN KEY (id, created_us) REFERENCES spans (life, began_us) DEFERRABLE INITIALLY DEFERRED,
  FOREIGN KEY (id, ended_us) REFERENCES spans (life, ended_us) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE UNIQUE INDEX lives_now ON lives (replica) WHERE ended_us IS NULL;
CREATE INDEX lives_by_replica ON lives (replica, created_us);

CREATE TABLE spans (
  life INTEGER NOT NULL REFERENCES lives (id),
  began_us INTEGER NOT NULL,
  ended_us INTEGER,
  next_us INTEGER,
  cause TEXT NOT NULL REFERENCES causes (cause),
  phase TEXT,
  tier TEXT,
  wake INTEGER REFERENCES wakes (id),
  why TEXT NOT NULL DEFAULT '',
  image_bytes INTEGER NOT NULL DEFAULT 0 CHECK (image_bytes >= 0),
  bytes_read INTEGER,
  detail TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (life, began_us),
  UNIQUE (life, ended_us),
  CHECK (ended_us IS NULL OR ended_us > began_us),
  CHECK (next_us IS NULL OR next_us = ended_us),
  FOREIGN KEY (life, next_us) REFERENCES spans (life, began_us) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX spans_last ON spans (life) WHERE next_us IS NULL;
CREATE INDEX spans_by_wake ON spans (wake) WHERE wake IS NOT NULL;

CREATE TRIGGER spans_begin_within_life BEFORE INSERT ON spans
WHEN NEW.began_us < (SELECT created_us FROM lives WHERE id = NEW.life)
BEGIN
  SELECT RAISE(ABORT, 'a span would begin before its replica');
END;

CREATE TRIGGER spans_insert_last BEFORE INSERT ON spans
WHEN NEW.ended_us IS NOT NULL AND NEW.next_us IS NULL
  AND NEW.ended_us IS NOT (SELECT ended_us FROM lives WHERE id = NEW.life)
BEGIN
  SELECT RAISE(ABORT, 'a span would end with nothing after it while its replica lives');
END;

CREATE TRIGGER spans_end_with_life BEFORE UPDATE OF ended_us, next_us ON spans
WHEN NEW.ended_us IS NOT NULL AND NEW.next_us IS NULL
  AND NEW.ended_us IS NOT (SELECT ended_us FROM lives WHERE id = NEW.life)
BEGIN
  SELECT RAISE(ABORT, 'a span would end with nothing after it while its replica lives');
END;

CREATE TABLE wakes (
  id INTEGER PRIMARY KEY,
  wake TEXT NOT NULL,
  life INTEGER NOT NULL REFERENCES lives (id),
  generation INTEGER NOT NULL,
  from_tier TEXT NOT NULL,
  asked_by TEXT NOT NULL,
  why TEXT NOT NULL,
  budget_us INTEGER,
  held INTEGER NOT NULL,
  began_us INTEGER NOT NULL,
  ended_us INTEGER,
  ok INTEGER CHECK (ok IN (0, 1)),
  failure TEXT NOT NULL DEFAULT '',
  served INTEGER NOT NULL DEFAULT 0,
  served_json TEXT NOT NULL DEFAULT '[]',
  UNIQUE (life, wake),
  CHECK (ended_us IS NULL OR ended_us >= began_us),
  CHECK ((ended_us IS NULL) = (ok IS NULL))
) STRICT;

CREATE UNIQUE INDEX wakes_open ON wakes (life) WHERE ended_us IS NULL;
CREATE INDEX wakes_by_name ON wakes (wake);
CREATE INDEX wakes_by_end ON wakes (ended_us);

CREATE TABLE parks (
  id INTEGER PRIMARY KEY,
  life INTEGER NOT NULL REFERENCES lives (id),
  began_us INTEGER NOT NULL,
  ended_us INTEGER NOT NULL,
  to_tier TEXT NOT NULL,
  ok INTEGER NOT NULL CHECK (ok IN (0, 1)),
  image_bytes INTEGER NOT NULL,
  why TEXT NOT NULL,
  CHECK (ended_us >= began_us)
) STRICT;

CREATE INDEX parks_by_life ON parks (life, to_tier, ended_us);

CREATE TABLE places (
  life INTEGER PRIMARY KEY REFERENCES lives (id),
  at_us INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  running_json TEXT NOT NULL,
  parked_json TEXT NOT NULL
) STRICT;

-- Models, keys, paths and outcomes are few and long; request rows are many. Rows name them by number.
CREATE TABLE texts (
  id INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  request TEXT NOT NULL,
  model INTEGER NOT NULL REFERENCES texts (id),
  key INTEGER NOT NULL REFERENCES texts (id),
  path INTEGER NOT NULL REFERENCES texts (id),
  outcome INTEGER NOT NULL REFERENCES texts (id),
  life INTEGER REFERENCES lives (id),
  wake INTEGER REFERENCES wakes (id),
  arrived_us INTEGER NOT NULL,
  leased_us INTEGER,
  first_byte_us INTEGER,
  ended_us INTEGER NOT NULL,
  status INTEGER NOT NULL,
  tokens_in INTEGER,
  tokens_out INTEGER,
  bridge_nusd INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Covers the sweep that shares busy time among the requests in flight.
CREATE INDEX requests_by_life ON requests (life, ended_us, leased_us, key);

CREATE VIEW request_rows AS
SELECT r.id, r.request, m.text AS model, k.text AS key, p.text AS path, o.text AS outcome,
  l.replica, w.wake, r.arrived_us, r.leased_us, r.first_byte_us, r.ended_us, r.status, r.tokens_in,
  r.tokens_out, r.bridge_nusd
FROM requests r
JOIN texts m ON m.id = r.model JOIN texts k ON k.id = r.key
JOIN texts p ON p.id = r.path JOIN texts o ON o.id = r.outcome
LEFT JOIN lives l ON l.id = r.life LEFT JOIN wakes w ON w.id = r.wake;

-- What the request rows of an hour add up to; written in the same transaction as the rows.
CREATE TABLE usage (
  hour INTEGER NOT NULL,
  model INTEGER NOT NULL REFERENCES texts (id),
  key INTEGER NOT NULL REFERENCES texts (id),
  requests INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  untold INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  held_us INTEGER NOT NULL,
  bridge_nusd INTEGER NOT NULL,
  PRIMARY KEY (hour, model, key)
) STRICT, WITHOUT ROWID;

-- How many requests of each key a wake woke for; written in the same transaction as their rows.
CREATE TABLE wake_keys (
  wake INTEGER NOT NULL REFERENCES wakes (id),
  key INTEGER NOT NULL REFERENCES texts (id),
  requests INTEGER NOT NULL,
  PRIMARY KEY (wake, key)
) STRICT, WITHOUT ROWID;

-- Whose the microseconds of a busy span were, in one hour of it; key NULL is nobody's. Exact sums of what the
-- request rows say, kept for finished hours so that the rows can be dropped one day.
CREATE TABLE shares (
  life INTEGER NOT NULL,
  span_began_us INTEGER NOT NULL,
  began_us INTEGER NOT NULL,
  ended_us INTEGER NOT NULL,
  key INTEGER REFERENCES texts (id),
  us INTEGER NOT NULL CHECK (us > 0),
  FOREIGN KEY (life, span_began_us) REFERENCES spans (life, began_us)
) STRICT;

CREATE INDEX shares_by_life ON shares (life, began_us, ended_us, key, us, span_began_us);

-- One row. Request rows up to seen_id are in `shares` as far as they lie before shared_us; no request
-- held its lease for longer than longest_us; rows that ended before kept_us may have been dropped.
CREATE TABLE progress (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  seen_id INTEGER NOT NULL,
  shared_us INTEGER NOT NULL,
  longest_us INTEGER NOT NULL,
  kept_us INTEGER NOT NULL
) STRICT;

INSERT INTO progress VALUES (1, 0, 0, 0, 0);

CREATE TABLE notes (
  id INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  kind TEXT NOT NULL,
  replica TEXT,
  model TEXT,
  text TEXT NOT NULL,
  detail_json TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE INDEX notes_by_kind ON notes (kind, at_us);

-- Effective-dated: a row prices from effective_us on, until until_us. Rows are closed, never changed.
CREATE TABLE rates (
  id INTEGER PRIMARY KEY,
  effective_us INTEGER NOT NULL,
  until_us INTEGER CHECK (until_us IS NULL OR until_us >= effective_us),
  declared_us INTEGER NOT NULL,
  recorded_us INTEGER NOT NULL,
  model TEXT,
  driver TEXT,
  replica TEXT,
  active_nusd_h INTEGER NOT NULL CHECK (active_nusd_h >= 0),
  parked_json TEXT NOT NULL,
  storage_nusd_gb_month INTEGER NOT NULL CHECK (storage_nusd_gb_month >= 0),
  increment_us INTEGER NOT NULL CHECK (increment_us >= 1),
  minimum_us INTEGER NOT NULL CHECK (minimum_us >= 0),
  currency TEXT NOT NULL,
  source TEXT NOT NULL
) STRICT;

CREATE TRIGGER rates_stay BEFORE UPDATE ON rates
WHEN OLD.until_us IS NOT NULL
  OR (OLD.effective_us, OLD.declared_us, OLD.recorded_us, OLD.active_nusd_h, OLD.parked_json,
      OLD.storage_nusd_gb_month, OLD.increment_us, OLD.minimum_us, OLD.currency)
    <> (NEW.effective_us, NEW.declared_us, NEW.recorded_us, NEW.active_nusd_h, NEW.parked_json,
      NEW.storage_nusd_gb_month, NEW.increment_us, NEW.minimum_us, NEW.currency)
  OR (OLD.model, OLD.driver, OLD.replica) IS NOT (NEW.model, NEW.driver, NEW.replica)
BEGIN
  SELECT RAISE(ABORT, 'a rate is closed, never changed');
END;

CREATE TRIGGER rates_last BEFORE DELETE ON rates
BEGIN
  SELECT RAISE(ABORT, 'a rate is closed, never removed');
END;

CREATE TABLE keys (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  digest BLOB NOT NULL UNIQUE,
  hint TEXT NOT NULL,
  created_us INTEGER NOT NULL,
  revoked_us INTEGER
) STRICT;

CREATE UNIQUE INDEX keys_now ON keys (name) WHERE revoked_us IS NULL;

-- One row: poorwill was running at at_us; last_us is the latest instant of any entry.
CREATE TABLE alive (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  at_us INTEGER NOT NULL,
  last_us INTEGER NOT NULL
) STRICT;

INSERT INTO alive VALUES (1, 0, 0);
