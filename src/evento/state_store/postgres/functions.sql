-- What writes to a System State Store, version 1: each is called as one statement, which is one transaction.
--
-- The advisory lock serialises the appends of all servers. It ends with the statement, so a server that is paused or
-- dies never holds it. Every statement in a function has a snapshot of its own (READ COMMITTED), so those behind the
-- lock see what the one before has committed. Its key is made of the id of the head table, so that the stores of one
-- database do not wait for each other.

-- Stores a batch in which every member can be stored, or nothing: then the result is null, or the command id of a
-- member that has an event already violates the unique index.
--
-- streams_*: the streams that the batch touches, each once, with the version that it must have (null: any) and by how
-- much the batch raises it, and the same for its version as a boundary. stream_indexes and offsets: for each event the
-- number of its stream among them (null: none), and which of the stream's new events it is.
CREATE FUNCTION append_all(
    lock_key bigint,
    stream_ids text[], stream_versions bigint[], stream_adds bigint[],
    stream_boundary_versions bigint[], stream_boundary_adds bigint[],
    stream_indexes integer[], offsets bigint[],
    contexts text[], aggregate_ids text[], names text[], schema_versions integer[], kinds text[], payloads text[],
    metadatas text[], event_ids text[], command_ids text[], correlation_ids text[], causation_ids text[],
    timestamps bigint[],
    OUT head_before bigint, OUT versions bigint[], OUT boundary_versions bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    is_fine boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key);
    SELECT bool_and((s.deleted_at IS NULL OR w.adds = 0)
               AND (w.version IS NULL OR w.version = coalesce(s.version, 0))
               AND (w.boundary_version IS NULL OR w.boundary_version = coalesce(s.boundary_version, 0)))
               AND NOT (EXISTS (SELECT FROM closed_commands) AND EXISTS
                   (SELECT FROM unnest(command_ids) AS w(id) JOIN closed_commands AS c ON c.command_id = w.id)),
           array_agg(coalesce(s.version, 0) ORDER BY w.number),
           array_agg(coalesce(s.boundary_version, 0) ORDER BY w.number)
        INTO is_fine, versions, boundary_versions
        FROM unnest(stream_ids, stream_versions, stream_adds, stream_boundary_versions)
            WITH ORDINALITY AS w(id, version, adds, boundary_version, number)
            LEFT JOIN streams AS s ON s.aggregate_id = w.id;
    IF NOT is_fine THEN
        RETURN;
    END IF;
    UPDATE head SET position = position + cardinality(command_ids)
        WHERE position = (SELECT h.position FROM head AS h ORDER BY h.position DESC LIMIT 1)
        RETURNING position - cardinality(command_ids) INTO head_before;
    INSERT INTO events
        SELECT head_before + e.number, versions[e.stream] + e.nth, e.context, e.aggregate_id, e.name,
               e.schema_version, e.kind, e.payload, e.metadata, e.event_id, e.command_id, e.correlation_id,
               e.causation_id, e.at
        FROM unnest(stream_indexes, offsets, contexts, aggregate_ids, names, schema_versions, kinds, payloads,
                    metadatas, event_ids, command_ids, correlation_ids, causation_ids, timestamps)
            WITH ORDINALITY AS e(stream, nth, context, aggregate_id, name, schema_version, kind, payload,
                                 metadata, event_id, command_id, correlation_id, causation_id, at, number);
    INSERT INTO streams (aggregate_id, version, boundary_version)
        SELECT w.id, w.version + w.adds, w.boundary_version + w.boundary_adds
        FROM unnest(stream_ids, versions, stream_adds, boundary_versions, stream_boundary_adds)
            AS w(id, version, adds, boundary_version, boundary_adds)
        ON CONFLICT (aggregate_id) DO UPDATE
            SET version = excluded.version, boundary_version = excluded.boundary_version;
END
$$;

-- Stores what can be stored, one after another, each after the ones before it.
--
-- outcomes: 0 stored (numbers: its version), 1 the command id has an event, or had one that was purged, 2 a tombstone
-- refuses it (errors), 3 the lease is lost, 4 the aggregate is deleted (numbers: when), 5 conflict (numbers: the
-- aggregate's version). What was stored has the positions after head_before, in order.
CREATE FUNCTION append_each(
    lock_key bigint,
    contexts text[], aggregate_ids text[], names text[], schema_versions integer[], kinds text[], payloads text[],
    metadatas text[], event_ids text[], command_ids text[], correlation_ids text[], causation_ids text[],
    timestamps bigint[],
    expected_versions bigint[], boundaries text[], expected_boundary_versions bigint[], deleting boolean[],
    lease_ids text[], lease_tokens bigint[],
    OUT head_before bigint, OUT outcomes integer[], OUT numbers bigint[], OUT boundary_versions bigint[],
    OUT errors text[]
) LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    current bigint;
    counted bigint;
    deleted bigint;
    refusal text;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key);
    SELECT h.position INTO head_before FROM head AS h ORDER BY h.position DESC LIMIT 1;
    newest := head_before;
    FOR i IN 1 .. cardinality(command_ids) LOOP
        outcomes[i] := 1;
        numbers[i] := 0;
        boundary_versions[i] := 0;
        CONTINUE WHEN EXISTS (SELECT FROM events AS e WHERE e.command_id = command_ids[i]);
        SELECT c.error INTO refusal FROM closed_commands AS c
            WHERE c.command_id = command_ids[i]
              AND (c.expires_at IS NULL OR c.expires_at > extract(epoch FROM clock_timestamp()) * 1000000);
        IF FOUND THEN
            IF refusal IS NOT NULL THEN
                outcomes[i] := 2;
                errors := coalesce(errors, array_fill(NULL::text, ARRAY[cardinality(command_ids)]));
                errors[i] := refusal;
            END IF;
            CONTINUE;
        END IF;
        IF lease_ids[i] IS NOT NULL THEN
            -- Shared: whoever wants the lock, or gives it back, waits for the end of this transaction.
            PERFORM FROM locks AS l
                WHERE l.lock_id = lease_ids[i] AND l.token = lease_tokens[i]
                  AND l.expires_at > extract(epoch FROM clock_timestamp()) * 1000000
                FOR SHARE;
            IF NOT FOUND THEN
                outcomes[i] := 3;
                CONTINUE;
            END IF;
        END IF;
        current := NULL;
        IF aggregate_ids[i] IS NOT NULL THEN
            SELECT s.version, s.deleted_at INTO current, deleted FROM streams AS s
                WHERE s.aggregate_id = aggregate_ids[i];
            IF deleted IS NOT NULL THEN
                outcomes[i] := 4;
                numbers[i] := deleted;
                CONTINUE;
            END IF;
            current := coalesce(current, 0);
        END IF;
        counted := NULL;
        IF boundaries[i] IS NOT NULL THEN
            SELECT s.boundary_version INTO counted FROM streams AS s WHERE s.aggregate_id = boundaries[i];
            counted := coalesce(counted, 0);
        END IF;
        IF current <> expected_versions[i] OR counted <> expected_boundary_versions[i] THEN
            outcomes[i] := 5;
            numbers[i] := coalesce(current, 0);
            boundary_versions[i] := coalesce(counted, 0);
            CONTINUE;
        END IF;
        newest := newest + 1;
        INSERT INTO events VALUES (
            newest, current + 1, contexts[i], aggregate_ids[i], names[i], schema_versions[i], kinds[i], payloads[i],
            metadatas[i], event_ids[i], command_ids[i], correlation_ids[i], causation_ids[i], timestamps[i]);
        IF current IS NOT NULL THEN
            deleted := CASE WHEN deleting[i] THEN timestamps[i] END;
            INSERT INTO streams (aggregate_id, version, boundary_version, deleted_at)
                VALUES (aggregate_ids[i], current + 1, 0, deleted)
                ON CONFLICT (aggregate_id) DO UPDATE SET version = current + 1, deleted_at = deleted;
        END IF;
        IF counted IS NOT NULL THEN
            INSERT INTO streams (aggregate_id, version, boundary_version) VALUES (boundaries[i], 0, counted + 1)
                ON CONFLICT (aggregate_id) DO UPDATE SET boundary_version = counted + 1;
        END IF;
        outcomes[i] := 0;
        numbers[i] := current + 1;
        boundary_versions[i] := coalesce(counted + 1, 0);
    END LOOP;
    UPDATE head SET position = newest WHERE position = head_before AND newest > head_before;
END
$$;

-- Writes a tombstone, unless the command id has an outcome: 0 written, 1 an event, 2 refused before with known_error.
CREATE FUNCTION reject_command(
    lock_key bigint, id text, new_error text, lasts bigint, OUT outcome integer, OUT known_error text
) LANGUAGE plpgsql AS $$
DECLARE
    now bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key);
    now := extract(epoch FROM clock_timestamp()) * 1000000;
    outcome := 1;
    IF EXISTS (SELECT FROM events AS e WHERE e.command_id = id) THEN
        RETURN;
    END IF;
    SELECT c.error INTO known_error FROM closed_commands AS c
        WHERE c.command_id = id AND (c.expires_at IS NULL OR c.expires_at > now);
    IF FOUND THEN
        outcome := CASE WHEN known_error IS NULL THEN 1 ELSE 2 END;
        RETURN;
    END IF;
    DELETE FROM closed_commands WHERE command_id IN
        (SELECT c.command_id FROM closed_commands AS c WHERE c.expires_at <= now LIMIT 100);
    INSERT INTO closed_commands (command_id, error, expires_at) VALUES (id, new_error, now + lasts)
        ON CONFLICT (command_id) DO UPDATE SET error = excluded.error, expires_at = excluded.expires_at;
    outcome := 0;
END
$$;

-- Keeps a snapshot, unless it is older than the kept one or its aggregate is deleted or not that far.
CREATE FUNCTION write_snapshot(id text, new_fingerprint text, new_version bigint, new_state text)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- The row's lock puts the snapshots of one aggregate, and its deletion, one after another.
    PERFORM FROM streams AS s WHERE s.aggregate_id = id AND s.deleted_at IS NULL AND s.version >= new_version
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO snapshots AS p
        VALUES (id, new_fingerprint, new_version, new_state, extract(epoch FROM clock_timestamp()) * 1000000,
                nextval('snapshots_written'))
        ON CONFLICT (aggregate_id, fingerprint) DO UPDATE
            SET version = excluded.version, state = excluded.state, updated_at = excluded.updated_at,
                written = excluded.written
            WHERE p.version <= excluded.version;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM snapshots WHERE aggregate_id = id AND fingerprint IN
        (SELECT p.fingerprint FROM snapshots AS p WHERE p.aggregate_id = id ORDER BY p.written DESC OFFSET 2);
    RETURN true;
END
$$;

-- Goes on with a purge for a bounded number of streams and events; only looks unless removing.
--
-- The cursor: how far the purge has come. Streams go by the time of their deletion; at_version is null when the stream
-- is done. The result's is null at the end.
CREATE FUNCTION purge_step(
    lock_key bigint, deleted_before bigint, removing boolean, max_streams integer, max_events integer,
    INOUT at_deleted bigint, INOUT at_aggregate text, INOUT at_version bigint,
    OUT aggregates integer, OUT positions bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    stream record;
    found_positions bigint[];
    last_version bigint;
    gap record;
    range_first bigint;
    range_last bigint;
BEGIN
    IF removing THEN
        PERFORM pg_advisory_xact_lock(lock_key);
    END IF;
    aggregates := 0;
    positions := '{}';
    FOR i IN 1 .. max_streams LOOP
        SELECT s.deleted_at, s.aggregate_id, s.version INTO stream FROM streams AS s
            WHERE s.deleted_at IS NOT NULL AND NOT s.purged AND s.deleted_at < deleted_before
              AND (s.deleted_at, s.aggregate_id) >= (at_deleted, at_aggregate)
              AND (at_version IS NOT NULL OR (s.deleted_at, s.aggregate_id) > (at_deleted, at_aggregate))
            ORDER BY s.deleted_at, s.aggregate_id LIMIT 1;
        IF NOT FOUND THEN
            at_deleted := NULL;
            EXIT;
        END IF;
        IF (stream.deleted_at, stream.aggregate_id) <> (at_deleted, at_aggregate) THEN
            at_version := 0;
        END IF;
        SELECT array_agg(e.position), max(e.version) INTO found_positions, last_version FROM
            (SELECT position, version FROM events
                WHERE aggregate_id = stream.aggregate_id AND version > at_version AND version < stream.version
                ORDER BY version LIMIT max_events - cardinality(positions)) AS e;
        IF found_positions IS NOT NULL THEN
            aggregates := aggregates + (at_version = 0)::integer;
            positions := positions || found_positions;
            IF removing THEN
                INSERT INTO closed_commands (command_id, name, aggregate_id)
                    SELECT e.command_id, e.name, e.aggregate_id
                    FROM unnest(found_positions) AS p(position) JOIN events AS e ON e.position = p.position
                    ON CONFLICT (command_id) DO UPDATE
                        SET name = excluded.name, aggregate_id = excluded.aggregate_id, error = NULL, expires_at = NULL;
                DELETE FROM events WHERE position = ANY (found_positions);
            END IF;
        END IF;
        at_deleted := stream.deleted_at;
        at_aggregate := stream.aggregate_id;
        at_version := last_version;
        EXIT WHEN cardinality(positions) >= max_events;
        IF removing THEN
            UPDATE streams SET purged = true WHERE aggregate_id = stream.aggregate_id;
            DELETE FROM snapshots WHERE aggregate_id = stream.aggregate_id;
        END IF;
        at_version := NULL;
    END LOOP;
    IF removing THEN
        FOR gap IN SELECT min(p) AS first, max(p) AS last FROM
            (SELECT p, p - row_number() OVER (ORDER BY p) AS run FROM unnest(positions) AS u(p)) AS r GROUP BY run
        LOOP
            range_first := gap.first;
            range_last := gap.last;
            DELETE FROM purged_ranges WHERE last = gap.first - 1 RETURNING first INTO range_first;
            DELETE FROM purged_ranges WHERE first = gap.last + 1 RETURNING last INTO range_last;
            INSERT INTO purged_ranges VALUES (coalesce(range_first, gap.first), coalesce(range_last, gap.last));
        END LOOP;
    END IF;
END
$$;
