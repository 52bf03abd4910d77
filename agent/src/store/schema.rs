//! The database's form, version by version. A version that was released is never edited.

/// Stands in `PRAGMA user_version`. Version n becomes n + 1 by running `MIGRATIONS[n]`.
pub(super) const MIGRATIONS: [&str; 4] = [SCHEMA_1, SCHEMA_2, SCHEMA_3, SCHEMA_4];

pub(super) const SCHEMA_1: &str = "
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_age ON sessions (updated_ms);
CREATE TABLE messages (
    session    TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    role       TEXT NOT NULL,
    text       TEXT NOT NULL,
    local_only INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
-- `record` is the turn's record as JSON; a rating comes later and stands beside it. `open` is 1 from the begin of a
-- turn to its settlement.
CREATE TABLE turns (
    id      TEXT PRIMARY KEY,
    session TEXT,
    open    INTEGER NOT NULL,
    rating  REAL,
    record  TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX turns_by_session ON turns (session, id) WHERE session IS NOT NULL;
CREATE INDEX turns_open ON turns (id) WHERE open = 1;
";

const SCHEMA_2: &str = "
-- The record moves into a table of its own: what is counted and summed up stays narrow, so that a million turns are
-- read in a fraction of a second.
-- With rowids: such a table keeps rows of up to 4 kB whole on their page, others only up to 1 kB.
CREATE TABLE records (
    id     TEXT PRIMARY KEY,
    record TEXT NOT NULL
);
INSERT INTO records SELECT id, record FROM turns;
ALTER TABLE turns RENAME TO turns_1;
-- The four amounts are counts (nano-dollars, microjoules, bytes). While `open` is 1 they are what is reserved; then
-- they are what was measured, NULL where it is not known.
CREATE TABLE turns (
    id         TEXT PRIMARY KEY,
    session    TEXT,
    open       INTEGER NOT NULL,
    rating     REAL,
    started_ms INTEGER NOT NULL,
    cloud      INTEGER NOT NULL,
    usd        INTEGER,
    energy     INTEGER,
    uplink     INTEGER,
    downlink   INTEGER
) WITHOUT ROWID;
INSERT INTO turns SELECT id, session, open, rating,
    coalesce(json_extract(record, '$.started_unix_ms'), 0),
    coalesce(json_extract(record, '$.route'), '') = 'cloud',
    CASE WHEN open = 0 THEN CAST(round(json_extract(record, '$.measured.cost_usd') * 1e9) AS INTEGER) END,
    CASE WHEN open = 0 THEN CAST(round(json_extract(record, '$.measured.energy_j') * 1e6) AS INTEGER) END,
    CASE WHEN open = 0 THEN json_extract(record, '$.measured.uplink_bytes') END,
    CASE WHEN open = 0 THEN json_extract(record, '$.measured.downlink_bytes') END
FROM turns_1;
DROP TABLE turns_1;
CREATE INDEX turns_by_session ON turns (session, id) WHERE session IS NOT NULL;
CREATE INDEX turns_open ON turns (id) WHERE open = 1;
-- What was spent of each budget, one row for each window that something was spent in.
CREATE TABLE spending (
    budget     TEXT NOT NULL,
    generation INTEGER NOT NULL,
    start_ms   INTEGER NOT NULL,
    spent      INTEGER NOT NULL,
    unknown    INTEGER NOT NULL,
    turns      INTEGER NOT NULL,
    PRIMARY KEY (budget, generation)
) WITHOUT ROWID;
-- Caps that were set while running; they go before those of the settings.
CREATE TABLE caps (
    budget TEXT PRIMARY KEY,
    cap    INTEGER NOT NULL
) WITHOUT ROWID;
-- Only with `ledger.content`: what was asked and answered, and the images, under their views' names.
CREATE TABLE contents (
    id       TEXT PRIMARY KEY,
    question TEXT NOT NULL,
    answer   TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    id   TEXT NOT NULL,
    view TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (id, view)
);
";

const SCHEMA_3: &str = "
-- Few of a million turns are rated, and the newest of them are read at every start.
CREATE INDEX turns_rated ON turns (id) WHERE rating IS NOT NULL;
";

const SCHEMA_4: &str = "
-- It cost every turn two pages; what is open is asked for at a start alone, and there a narrow million is gone through.
DROP INDEX turns_open;
";
