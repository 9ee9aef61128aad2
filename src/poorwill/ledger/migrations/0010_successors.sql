-- What the foreign keys look for as spans come and go. Without these SQLite reads all spans and shares of the life,
-- so that each span and each wake of a replica costs more than the one before.
CREATE UNIQUE INDEX spans_by_next ON spans (life, next_us) WHERE next_us IS NOT NULL;
CREATE INDEX shares_by_span ON shares (life, span_began_us);
