-- The tables of a System State Store, version 1. They mirror those of the SQLite adapter.
--
-- Text is compared byte by byte (COLLATE "C"): ids are equal or not, and the indexes stay valid when the system's
-- locale data changes. The indexes by name and by context end in an expression that is no column, so that only they
-- serve the searches written for them: by guessing from statistics, the planner would read the whole primary key.

CREATE TABLE meta (
    id integer PRIMARY KEY CHECK (id = 1),
    store_id text NOT NULL,
    epoch bigint NOT NULL,
    schema_version integer NOT NULL,
    created_at bigint NOT NULL
);

-- One row: the newest position, raised by the statement that uses it. Who writes it holds the advisory lock, and only
-- updates it, so that it stays the only one.
--
-- While any snapshot of the database is older (a dump, a transaction that somebody forgot), each commit leaves a version
-- of the row that cannot be removed. A key by which all versions are equal, and a scan, go through all of them; by its
-- position the newest is found at once: always the greatest.
CREATE TABLE head (position bigint PRIMARY KEY);
INSERT INTO head VALUES (0);

CREATE TABLE streams (
    aggregate_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    boundary_version bigint NOT NULL,
    deleted_at bigint,
    purged boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
CREATE INDEX streams_to_purge ON streams (deleted_at, aggregate_id) WHERE deleted_at IS NOT NULL AND NOT purged;

CREATE TABLE events (
    position bigint PRIMARY KEY,
    version bigint,
    context text COLLATE "C" NOT NULL,
    aggregate_id text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    schema_version integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    payload text COLLATE "C" NOT NULL,
    metadata text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    command_id text COLLATE "C" NOT NULL,
    correlation_id text COLLATE "C" NOT NULL,
    causation_id text COLLATE "C",
    timestamp bigint NOT NULL
);
CREATE UNIQUE INDEX events_stream ON events (aggregate_id, version) WHERE aggregate_id IS NOT NULL;
CREATE UNIQUE INDEX events_command ON events (command_id);
CREATE INDEX events_name ON events (name, (position + 0));
CREATE INDEX events_context ON events (context, (position + 0));
CREATE INDEX events_timestamp ON events (timestamp);

CREATE SEQUENCE snapshots_written;
CREATE TABLE snapshots (
    aggregate_id text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    written bigint NOT NULL,
    PRIMARY KEY (aggregate_id, fingerprint)
);

-- Command ids that take no event, though there is none under them: those whose events were purged (name, aggregate_id)
-- and, for a time, those that were refused (error, expires_at: a tombstone).
CREATE TABLE closed_commands (
    command_id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C",
    aggregate_id text COLLATE "C",
    error text COLLATE "C",
    expires_at bigint
);
CREATE INDEX closed_commands_expiry ON closed_commands (expires_at) WHERE expires_at IS NOT NULL;

CREATE SEQUENCE lock_tokens;
CREATE TABLE locks (
    lock_id text COLLATE "C" PRIMARY KEY,
    token bigint NOT NULL,
    owner text COLLATE "C" NOT NULL,
    request text COLLATE "C" NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE purged_ranges (
    first bigint PRIMARY KEY,
    last bigint NOT NULL UNIQUE
);
