package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// canary is a fault put into the system on purpose, which a run must find: a check that never sang proves nothing. It is built from changed
// copies of source files (go build -overlay), so there is nothing of it in the source or in any release.
type canary struct {
	name    string
	changes []change
	// postgres are settings of Postgres.
	postgres map[string]string
	// faults are the kinds that it takes to find it; empty: none.
	faults string
	// run is the run that has to find it; nil: clients use the system for canaryTime.
	run func(context.Context, *plan) ([]violation, error)
	// refuses is what the system must say when it refuses to start; empty: it has to start.
	refuses string
	// by is the check that has to find it; empty: nothing is wrong, and no check may find anything.
	by check
}

// harmless is the system without a fault in it, with faults around it: what is found there is a false alarm.
func harmless() canary { return canary{name: "none", faults: "."} }

// cleanRuns is how often it is run.
const cleanRuns = 10

// change replaces a part of the source, which must be there just once.
type change struct {
	// place is a file, and after a space the name of the function that has the part; without a function it is the whole file.
	// Within a function a short part is enough, so that the canary outlives changes around it.
	place    string
	from, to string
}

// file is that of the place.
func (ch change) file() string {
	file, _, _ := strings.Cut(ch.place, " ")
	return file
}

// apply returns the text of a file with the change.
func (ch change) apply(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: the file of a canary has gone", err)
	}
	before, part, after := "", string(text), ""
	if _, function, ok := strings.Cut(ch.place, " "); ok {
		begin, end, err := bounds(path, text, function)
		if err != nil {
			return "", err
		}
		before, part, after = string(text[:begin]), string(text[begin:end]), string(text[end:])
	}
	if n := strings.Count(part, ch.from); n != 1 {
		return "", fmt.Errorf("%s has %q %d times, not once: write the canary anew", ch.place, ch.from, n)
	}
	return before + strings.Replace(part, ch.from, ch.to, 1) + after, nil
}

// bounds returns where a function, or a method of that name, begins and ends in a file. There must be just one.
func bounds(path string, text []byte, function string) (begin, end int, err error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, path, text, parser.SkipObjectResolution)
	if err != nil {
		return 0, 0, err
	}
	n := 0
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == function {
			begin, end = files.Position(f.Pos()).Offset, files.Position(f.End()).Offset
			n++
		}
	}
	if n != 1 {
		return 0, 0, fmt.Errorf("%s has %d functions %s, not one: write the canary anew", path, n, function)
	}
	return begin, end, nil
}

// canaries are all of them.
func canaries() []canary {
	return []canary{
		{name: "no constraint against overlaps", by: checkLinearity, changes: []change{
			{"store/migrations/00001_init.sql", "    CONSTRAINT reservations_no_overlap EXCLUDE USING gist (\n        library_id WITH =, seat_id WITH =, during WITH &&) WHERE (occupies),\n", ""},
			{"store/reserve_tx.go", "\tbatch.Queue(lockSeats, s.lib, seats)\n", ""},
		}},
		{name: "[] bounds", by: checkLinearity, changes: []change{
			{"store/reserve_tx.go", "AND r.during && tstzrange(w.start_time, w.end_time)) THEN 'SEAT_TAKEN'", "AND r.during && tstzrange(w.start_time, w.end_time, '[]')) THEN 'SEAT_TAKEN'"},
		}},
		{name: "HELD outside the constraint", by: checkRules, changes: []change{
			{"store/migrations/00001_init.sql", "GENERATED ALWAYS AS (status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')) STORED", "GENERATED ALWAYS AS (status IN ('CONFIRMED', 'CHECKED_IN')) STORED"},
		}},
		{name: "check-in without compare and set", by: checkRules, changes: []change{
			{"store/lifecycle.go", "WHERE library_id = $1 AND id = $2 AND status = $3`", "WHERE library_id = $1 AND id = $2 AND $3 <> ''`"},
			{"store/lifecycle.go CheckIn", "return wrongState(library.ErrCheckInTooLate, r)\n", "\n"},
			{"store/lifecycle.go CheckIn", "case !now.Before(*r.CheckInDeadline):", "case false:"},
		}},
		// It has to forget the check-in too, or else the table refuses what it does.
		{name: "worker without the status check", by: checkRules, changes: []change{
			{"store/due.go", "inReservations + `'CONFIRMED' AND check_in_deadline > $5", "inReservations + `status AND check_in_deadline > $5"},
			{"store/due.go", "SET status = 'NO_SHOW', version = version + 1, ended_at = $3", "SET status = 'NO_SHOW', version = version + 1, ended_at = $3, checked_in_at = NULL"},
			{"store/due.go", "AND occupies AND status = 'CONFIRMED'\n\t\t\t\t\tAND check_in_deadline <= $3` + returningMoved", "AND occupies\n\t\t\t\t\tAND check_in_deadline <= $3` + returningMoved"},
		}},
		{name: "request_id ignored", by: checkAnswers, changes: []change{
			{"store/reserve_tx.go", "AND user_id = q.user_id AND request_id = q.request_id OFFSET 0", "AND user_id = q.user_id AND request_id = q.request_id AND false OFFSET 0"},
		}},
		{name: "a user with one reservation is busy at all times", by: checkAnswers, changes: []change{
			{"store/reserve_tx.go", "AND NOT isempty(r.during * tstzrange(w.start_time, w.end_time))) THEN 'USER_BUSY'", "AND NOT isempty(r.during)) THEN 'USER_BUSY'"},
		}},
		{name: "ownership check missing", by: checkAnswers, changes: []change{
			{"store/reservation.go", "`AND r.id = $2 AND r.user_id = $3`", "`AND r.id = $2 AND $3 <> 0`"},
			{"store/lifecycle.go", "AND id = $2 AND user_id = $3) FOR NO KEY UPDATE`", "AND id = $2 AND $3 <> 0) FOR NO KEY UPDATE`"},
		}},
		{name: "one RPC without policy", by: checkStart, refuses: "the policy does not say who may call /dlsms.v1.ReservationService/GetReservations", changes: []change{
			{"server/edge/policy.go", "\tdlsmsv1.ReservationService_GetReservations_FullMethodName:   {access: signedIn, class: read, quota: perUser},\n", ""},
		}},
		{name: "one RPC that anyone may call", by: checkAnswers, changes: []change{
			{"server/edge/policy.go", "dlsmsv1.ReservationService_GetReservations_FullMethodName:   {access: signedIn, class: read, quota: perUser}", "dlsmsv1.ReservationService_GetReservations_FullMethodName:   {access: public, class: read}"},
		}},
		// The commit waits a moment, as on a slow disk, so that somebody can look in between.
		{name: "acknowledged before the commit", by: checkLinearity, changes: []change{
			{"store/tx.go inTx", "\tdefer conn.Release()\n", "\tacknowledged := false\n\tdefer func() {\n\t\tif !acknowledged {\n\t\t\tconn.Release()\n\t\t}\n\t}()\n"},
			{"store/tx.go inTx", "\treturn translate(pgTx.Commit(ctx))", "\tacknowledged = true\n\tgo func() {\n\t\ttime.Sleep(20 * time.Millisecond)\n\t\t_ = pgTx.Commit(context.WithoutCancel(ctx))\n\t\tconn.Release()\n\t}()\n\treturn nil"},
		}},
		{name: "synchronous_commit=off", by: checkKept, postgres: map[string]string{"synchronous_commit": "off"}, faults: "^postgres killed$"},
		{name: "waitlist in random order", by: checkRules, changes: []change{
			{"store/offer.go", "	ORDER BY w.id`\n\n// insertHold", "	ORDER BY random()`\n\n// insertHold"},
		}},
		{name: "change log read by serial id only", by: checkLinearity, changes: []change{
			{"store/changes.go", "SELECT * FROM reservation_events WHERE library_id = $1 AND xid >= $2\n", "SELECT * FROM reservation_events WHERE library_id = $1 AND id > $4\n"},
			{"store/changes.go", "SELECT * FROM reservation_events WHERE library_id = $1 AND xid BETWEEN x AND x OFFSET 0) e\n\t) e", "SELECT * FROM reservation_events WHERE library_id = $1 AND xid BETWEEN x AND x AND false OFFSET 0) e\n\t) e"},
			{"store/changes.go", "selectChanges, s.lib, since.Xmax, since.InProgress)", "selectChanges, s.lib, since.Xmax, since.InProgress, lastID)"},
			{"store/changes.go allChanges", "c.Events = append(c.Events, e)", "lastID = max(lastID, e.ID)\n\t\t\tc.Events = append(c.Events, e)"},
			{"store/changes.go", "// pgEpoch is", "var lastID int64\n\n// pgEpoch is"},
		}},
		{name: "a notification now and then is skipped", by: checkStreams, changes: []change{
			{"server/notify.go sendAfter", "for _, n := range list {\n", "for _, n := range list {\n\t\t\tif n.ID%20 == 0 {\n\t\t\t\tafter = n.ID\n\t\t\t\tcontinue\n\t\t\t}\n"},
		}},
		{name: "worker without no-shows", by: checkLiveness, changes: []change{
			{"worker/worker.go", "\t\tw.add(due.Name, 0,", "\t\tif due.Name == \"no_show\" {\n\t\t\tcontinue\n\t\t}\n\t\tw.add(due.Name, 0,"},
		}},
		// The poison row is the one that the operator has.
		{name: "a worker that does not isolate a failing seat", by: checkLiveness, faults: "^operator has a poison row$", changes: []change{
			{"worker/seat_step.go runOnce", "case ctx.Err() != nil, store.Unavailable(err) && !slow:", "case err != nil:"},
		}},
		{name: "a token is accepted whatever the generation in the database is", by: checkAnswers, run: restoreRun, changes: []change{
			{"server/identity/user.go refuses", "error {\n", "error {\n\tif c.UserID != 0 {\n\t\treturn nil\n\t}\n"},
		}},
		{name: "no deadline for a call that is half sent", by: checkLiveness, changes: []change{
			{"server/edge/incoming.go", "Timeout: DefaultDeadline", "Timeout: 24 * time.Hour"},
		}},
		{name: "a handler that panics", by: checkLog, changes: []change{
			{"server/reservation.go CheckOut", " {\n\tr, err", " {\n\tif req.GetReservationId()%10 == 0 {\n\t\tpanic(\"a canary\")\n\t}\n\tr, err"},
		}},
		{name: "each booking waits for two seconds", by: checkActivity, changes: []change{
			{"server/edge/interceptors.go", "\tc := callOf(ctx)\n\terr = e.run(", "\tc := callOf(ctx)\n\tif strings.HasPrefix(c.method, \"/dlsms.v1.Reservation\") {\n\t\ttime.Sleep(2 * time.Second)\n\t}\n\terr = e.run("},
		}},
		{name: "seats from a cache of 300 ms", by: checkReads, changes: []change{
			{"feed/refresh.go join", "if f.options.Freshness > 0 {\n", "{\n\t\tf.options.Freshness = 300 * time.Millisecond\n"},
		}},
	}
}

// build makes a dlsms with the changes, from the source in the working directory.
func (c canary) build(ctx context.Context, dir string) (binary string, err error) {
	replaced := map[string]string{}
	for i, ch := range c.changes {
		path, err := filepath.Abs(ch.file())
		if err != nil {
			return "", err
		}
		source := path
		if earlier, ok := replaced[path]; ok {
			source = earlier
		}
		text, err := ch.apply(source)
		if err != nil {
			return "", fmt.Errorf("canary %q: %w", c.name, err)
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(ch.file())))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		replaced[path] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "dlsms")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", file, "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build canary %q: %w: %s", c.name, err, said)
	}
	return binary, nil
}

// canaryTime is how long clients use a system with a canary.
const canaryTime = 20 * time.Second

// sing runs the system with the canary in it, and returns the violations that were found.
func (c canary) sing(ctx context.Context, seed uint64) ([]violation, error) {
	dir, err := os.MkdirTemp("", "dlsms-canary-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p := &plan{duration: canaryTime, seed: seed, postgres: c.postgres, quiet: true}
	if c.by == "" {
		p.dir = historyDir
	}
	if c.faults != "" {
		if err := p.faultsLike(c.faults); err != nil {
			return nil, err
		}
	}
	if p.binary, err = c.build(ctx, dir); err != nil {
		return nil, err
	}
	if c.run != nil {
		return c.run(ctx, p)
	}
	r, err := p.run(ctx, io.Discard)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case c.refuses != "" && err != nil && strings.Contains(err.Error(), c.refuses):
		return []violation{{checkStart, c.refuses}}, nil
	case err != nil:
		return nil, fmt.Errorf("canary %q: %w", c.name, err)
	}
	return r.found.list(), nil
}

// runCanaries shows that each is found, by the check that is meant to, and prints a table.
func runCanaries(ctx context.Context, out io.Writer, only string, seed uint64) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	fmt.Fprintf(out, "\nCanaries: commit %s, seed %d\n\n| canary | found by | after | what it said |\n|---|---|---|---|\n", commit(ctx), seed)
	var missed []error
	n := 0
	for _, c := range append(canaries(), slices.Repeat([]canary{harmless()}, cleanRuns)...) {
		if !wanted.MatchString(c.name) {
			continue
		}
		n++
		began := time.Now()
		seed++
		found, err := c.sing(ctx, seed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			missed = append(missed, fmt.Errorf("seed %d: %w", seed, err))
			fmt.Fprintf(out, "| %s | DID NOT RUN | %s | |\n", c.name, time.Since(began).Round(time.Second))
			continue
		}
		if c.by == "" {
			fmt.Fprintf(out, "| %s | %d false alarms | %s | |\n", c.name, len(found), time.Since(began).Round(time.Second))
			if len(found) > 0 {
				missed = append(missed, fmt.Errorf("false alarms with seed %d (what the clients did is in %s): %v", seed, historyDir, found))
			}
			continue
		}
		i := slices.IndexFunc(found, func(v violation) bool { return v.check == c.by })
		if i < 0 {
			missed = append(missed, fmt.Errorf("canary %q was not found by %s: %v", c.name, c.by, found))
			fmt.Fprintf(out, "| %s | NOT FOUND | %s | |\n", c.name, time.Since(began).Round(time.Second))
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", c.name, c.by, time.Since(began).Round(time.Second), oneLine(found[i].text))
	}
	if n == 0 {
		return fmt.Errorf("-only: no canary is like %q", only)
	}
	return errors.Join(missed...)
}

// oneLine cuts a text down to what fits into a table.
func oneLine(text string) string {
	const most = 140
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "/")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
