-- +goose NO TRANSACTION
-- +goose Up

-- Each statement can be repeated. If a statement fails, the next start runs this file again from
-- the top. Bookings continue while a statement waits for a lock.
SET lock_timeout = '2s';

-- The proof at check-in that the user was in the library. It is NULL in the rows of earlier
-- versions and of replicas of the version before. Only the event of the check-in has it.
ALTER TABLE reservation_events
    ADD COLUMN IF NOT EXISTS proof text,
    ADD COLUMN IF NOT EXISTS screen_id bigint,
    DROP CONSTRAINT IF EXISTS reservation_events_proof_check,
    ADD CONSTRAINT reservation_events_proof_check CHECK (
        proof IN ('NONE', 'SEAT', 'SCREEN', 'SEAT_AND_SCREEN', 'DESK', 'ARRIVAL')
        AND (screen_id IS NOT NULL) = (proof IN ('SCREEN', 'SEAT_AND_SCREEN'))) NOT VALID;
ALTER TABLE reservations
    ADD COLUMN IF NOT EXISTS proof text,
    ADD COLUMN IF NOT EXISTS screen_id bigint,
    DROP CONSTRAINT IF EXISTS reservations_proof_check,
    ADD CONSTRAINT reservations_proof_check CHECK (
        proof IN ('NONE', 'SEAT', 'SCREEN', 'SEAT_AND_SCREEN', 'DESK', 'ARRIVAL')
        AND (screen_id IS NOT NULL) = (proof IN ('SCREEN', 'SEAT_AND_SCREEN'))) NOT VALID;
COMMENT ON COLUMN reservation_events.screen_id IS 'the screen whose code proved it; screens are never deleted';
COMMENT ON COLUMN reservations.screen_id IS 'the screen whose code proved it; screens are never deleted';

-- A screen shows the codes of a branch. The id is a part of its codes, which have 4 bytes for it. So
-- it is not an identity: after a restore, identities pass 2^32. See 00011_ids_after_restore.sql.
CREATE TABLE IF NOT EXISTS screens (
    library_id bigint NOT NULL REFERENCES libraries (id),
    id         bigint NOT NULL CONSTRAINT screens_id_check CHECK (id BETWEEN 1 AND 4294967295),
    branch_id  bigint NOT NULL,
    name       text NOT NULL CONSTRAINT screens_name_check CHECK (dlsms_plain(name, 100)),
    off        boolean NOT NULL DEFAULT false,
    PRIMARY KEY (library_id, id),
    CONSTRAINT screens_branch_fkey FOREIGN KEY (library_id, branch_id) REFERENCES branches (library_id, id),
    CONSTRAINT screens_name_key UNIQUE (library_id, branch_id, name)
);
COMMENT ON COLUMN screens.off IS 'the codes of the screen are refused';

ALTER TABLE effective_policies ADD COLUMN IF NOT EXISTS check_in text CONSTRAINT effective_policies_check_in_check
    CHECK (check_in IN ('NONE', 'SEAT', 'SCREEN', 'SEAT_AND_SCREEN', 'DESK'));

-- Old rows satisfy the constraints, so a validation only reads them, and bookings continue.
SET lock_timeout = 0;
ALTER TABLE reservation_events VALIDATE CONSTRAINT reservation_events_proof_check;
ALTER TABLE reservations VALIDATE CONSTRAINT reservations_proof_check;

-- +goose Down
ALTER TABLE effective_policies DROP COLUMN check_in;
DROP TABLE screens;
ALTER TABLE reservations DROP COLUMN proof, DROP COLUMN screen_id;
ALTER TABLE reservation_events DROP COLUMN proof, DROP COLUMN screen_id;
