package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// canary is a bug that is put into the system on purpose. A run with the bug must report a
// violation. This proves that the checks can find a bug. build compiles the bug from changed copies
// of source files (go build -overlay). So neither the source tree nor a release contains the bug.
type canary struct {
	name    string
	changes []change
	// postgres are additional settings of Postgres.
	postgres map[string]string
	// faults is a regular expression. The run injects the faults whose names it matches. If it is
	// empty, the run injects no faults.
	faults string
	// duration is the duration of the run, for a bug that shows seldom. The default is canaryTime.
	duration time.Duration
	// run makes the run that must find the bug, and returns its violations. If run is nil, the
	// clients use the system for canaryTime.
	run func(context.Context, *plan) ([]violation, error)
	// refuses matches the error of a system that must refuse to start. If refuses is nil, the
	// system must start.
	refuses *regexp.Regexp
	// by is the check that must find the bug. If it is empty, no check may find anything.
	by check
}

// noCanary is the unchanged system under faults of all kinds. Each violation that a check reports
// in it is a false alarm.
func noCanary() canary { return canary{name: "none", faults: "."} }

// noCanaryRestarts is the unchanged system in restartRun.
func noCanaryRestarts() canary {
	return canary{name: "none, with restarts under POST load", run: restartRun}
}

// cleanRuns is the number of runs of noCanary.
const cleanRuns = 10

// change replaces a part of a source file. The directory must contain the part exactly once.
//
// A change should still match after a rename in the source. So its part matches SQL text, exported
// names, names of the contract, or the shape of the code. If a place has none of these, a comment
// in the source marks it, such as "// canary: commit".
type change struct {
	// dir is the directory that has the file. Its subdirectories are not searched.
	dir  string
	part *regexp.Regexp
	// with replaces the part. It may refer to groups of the regular expression, as in
	// regexp.Expand.
	with string
}

// text returns a change of a text, such as SQL. The parameter from is the old text, and the
// parameter to is the new text. A space in the old text matches any white space, including line
// ends.
func text(dir, from, to string) change {
	words := strings.Fields(from)
	for i, w := range words {
		words[i] = regexp.QuoteMeta(w)
	}
	return change{dir, regexp.MustCompile(strings.Join(words, `\s+`)), strings.ReplaceAll(to, "$", "$$")}
}

// code returns a change of code. The parameter part is a regular expression that matches the old
// code.
func code(dir, part, with string) change { return change{dir, regexp.MustCompile(part), with} }

// overlay maps the path of each changed file to its new text.
type overlay map[string]string

// apply makes a change in the overlay. root is the directory of the source.
func (o overlay) apply(root string, ch change) error {
	entries, err := os.ReadDir(filepath.Join(root, ch.dir))
	if err != nil {
		return fmt.Errorf("read the source of a canary: %w", err)
	}
	n := 0
	var path, before string
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, "_test.go") || !slices.Contains([]string{".go", ".sql"}, filepath.Ext(name)) {
			continue
		}
		file := filepath.Join(root, ch.dir, name)
		source, err := o.read(file)
		if err != nil {
			return err
		}
		if found := len(ch.part.FindAllStringIndex(source, -1)); found > 0 {
			n += found
			path, before = file, source
		}
	}
	if n != 1 {
		return fmt.Errorf("%s has %q %d times, not once: adapt the canary to the source", ch.dir, ch.part, n)
	}
	o[path] = ch.part.ReplaceAllString(before, ch.with)
	return nil
}

func (o overlay) read(file string) (string, error) {
	if source, ok := o[file]; ok {
		return source, nil
	}
	source, err := os.ReadFile(file)
	return string(source), err
}

// write writes the changed files to dir, and returns the file that go build -overlay takes.
func (o overlay) write(dir string) (file string, err error) {
	replaced := map[string]string{}
	for path, source := range o {
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replaced), filepath.Base(path)))
		if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
			return "", err
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		replaced[absolute] = changed
	}
	encoded, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, encoded, 0o600)
}

// canaries returns all canaries.
func canaries() []canary {
	return []canary{
		{name: "no constraint against overlaps", by: checkLinearizability, changes: []change{
			text("store/migrations",
				"CONSTRAINT reservations_no_overlap EXCLUDE USING gist ( "+
					"library_id WITH =, seat_id WITH =, during WITH &&) WHERE (occupies),", ""),
			code("store", `\n\t\w+\.Queue\(lockSeats, [^\n]*\n`, "\n"),
		}},
		{name: "[] bounds", by: checkLinearizability, changes: []change{
			text("store", "r.seat_id = w.seat_id AND r.occupies AND r.during && w.during)`},",
				"r.seat_id = w.seat_id AND r.occupies AND r.during && tstzrange(w.start_time, w.end_time, '[]'))`},"),
		}},
		{name: "HELD outside the constraint", by: checkInvariants, changes: []change{
			text("store/migrations", "GENERATED ALWAYS AS (status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')) STORED",
				"GENERATED ALWAYS AS (status IN ('CONFIRMED', 'CHECKED_IN')) STORED"),
		}},
		{name: "check-in without compare-and-set", by: checkInvariants, changes: []change{
			text("store", "WHERE library_id = $1 AND id = $2 AND status = $3`",
				"WHERE library_id = $1 AND id = $2 AND $3 <> ''`"),
			code("store", `\n\t+return \w+\(library\.ErrCheckInTooLate, \w+\)\n`, "\n"),
			code("store", `case !now\.Before\(\*\w+\.CheckInDeadline\):(\n\t+return library\.ErrCheckInTooLate)`,
				"case false:$1"),
		}},
		// This bug also sets checked_in_at to NULL. Otherwise a CHECK constraint of the table would
		// refuse the new status of a reservation that is checked in.
		{name: "worker without the status check", by: checkInvariants, changes: []change{
			text("store", "inReservations + `'CONFIRMED' AND check_in_deadline > $5",
				"inReservations + `status AND check_in_deadline > $5"),
			text("store", "SET status = 'NO_SHOW', version = version + 1, ended_at = $3",
				"SET status = 'NO_SHOW', version = version + 1, ended_at = $3, checked_in_at = NULL"),
			text("store", "AND occupies AND status = 'CONFIRMED' AND check_in_deadline <= $3`",
				"AND occupies AND check_in_deadline <= $3`"),
		}},
		{name: "request_id ignored", by: checkAnswers, changes: []change{
			text("store", "AND user_id = q.user_id AND request_id = q.request_id OFFSET 0",
				"AND user_id = q.user_id AND request_id = q.request_id AND false OFFSET 0"),
		}},
		{name: "user with one reservation always busy", by: checkAnswers, changes: []change{
			text("store", "AND r.occupies AND r.status <> 'HELD' AND NOT isempty(r.during * w.during))`},",
				"AND r.occupies AND r.status <> 'HELD' AND NOT isempty(r.during))`},"),
		}},
		{name: "ownership check missing", by: checkAnswers, changes: []change{
			text("store", "selectReservation + `AND r.id = $2 AND r.user_id = $3`",
				"selectReservation + `AND r.id = $2 AND $3 <> 0`"),
			text("store", "FROM reservations WHERE library_id = $1 AND id = $2 AND user_id = $3) FOR NO KEY UPDATE`",
				"FROM reservations WHERE library_id = $1 AND id = $2 AND $3 <> 0) FOR NO KEY UPDATE`"),
		}},
		{
			name: "one RPC without an access rule", by: checkStart,
			refuses: regexp.MustCompile(`policy .*/dlsms\.v1\.ReservationService/GetReservations\b`),
			changes: []change{
				code("server/edge", `\n\tdlsmsv1\.ReservationService_GetReservations_FullMethodName:[^\n]*`, ""),
			},
		},
		{name: "one RPC without authentication", by: checkAnswers, changes: []change{
			code("server/edge", `(ReservationService_GetReservations_FullMethodName: +\{\w+: )\w+(, \w+: read)\b[^}\n]*\}`,
				"${1}public$2}"),
		}},
		// With this bug, the client gets its answer before the commit. The commit follows 20 ms
		// later, as on a slow disk. In between, other clients read the old state.
		{name: "acknowledged before the commit", by: checkLinearizability, changes: []change{
			code("store", `defer (\w+)\.Release\(\) // canary: release`, `acknowledged, held := false, $1
	defer func() {
		if !acknowledged {
			held.Release()
		}
	}()`),
			code("store", `return \w+\((\w+)\.Commit\((\w+)\)\) // canary: commit`, `acknowledged = true
	go func() {
		time.Sleep(20 * time.Millisecond)
		_ = $1.Commit(context.WithoutCancel($2))
		held.Release()
	}()
	return nil`),
		}},
		{
			name: "synchronous_commit=off", by: checkDurability,
			postgres: map[string]string{"synchronous_commit": "off"}, faults: "^postgres killed$",
		},
		{name: "waitlist in random order", by: checkInvariants, changes: []change{
			text("store", "ORDER BY w.id`", "ORDER BY random()`"),
		}},
		{name: "change log read by serial id only", by: checkLinearizability, changes: []change{
			code("store", `(\n\t+SELECT \* FROM reservation_events WHERE library_id = \$1 AND )xid >= \$2\n(\t+UNION ALL)`,
				"${1}id > $$4\n$2"),
			code("store", `(SELECT \* FROM reservation_events WHERE library_id = \$1 AND xid BETWEEN x AND x) `+
				`(OFFSET 0\) e\n\t\) e ON true)`,
				"$1 AND false $2"),
			code("store", `(\(.*, selectChanges, [^)\n]*)\)`, "$1, lastID)"),
			code("store", `(\n\t+)(\w+\.Events = append\(\w+\.Events, (\w+)\))`, "${1}lastID = max(lastID, $3.ID)${1}$2"),
			code("store", "\nconst selectChanges = ", "\nvar lastID int64\n\nconst selectChanges = "),
		}},
		{name: "some notifications skipped", by: checkStreams, changes: []change{
			code("server", `(for _, (\w+) := range \w+ \{) // canary: skip-notification\n((?s:.*?)\n\t+(\w+) = \w+\.ID\n)`, `$1
			if $2.ID%20 == 0 {
				$4 = $2.ID
				continue
			}
$3`),
		}},
		{name: "worker without no-shows", by: checkLiveness, changes: []change{
			code("worker", `for _, (\w+) := range store\.DueSteps \{`, `$0
		if $1.Name == "no_show" {
			continue
		}`),
		}},
		// The fault makes all transitions at one seat fail (see operator.poison).
		{
			name: "failing seat not isolated by the worker", by: checkLiveness,
			faults: "^operator has a poison row$",
			changes: []change{
				code("worker", `case [^\n]*: // canary: isolation`, "case err != nil:"),
			},
		},
		{
			name: "token generation not checked", by: checkAnswers, run: restoreRun,
			changes: []change{
				code("server/identity", `\((\w+) Caller\) error \{ // canary: generation`, `$0
	if $1.UserID != 0 {
		return nil
	}`),
			},
		},
		{name: "no deadline for an incomplete request", by: checkLiveness, changes: []change{
			code("server/edge", `(DefaultIncomingLimits = \w+\{[^}]*Timeout: )\w+`, "${1}24 * time.Hour"),
		}},
		{name: "panic in a handler", by: checkLog, changes: []change{
			code("server", `\) CheckOut\([^{]*?(\w+) \*dlsmsv1\.CheckOutRequest[^{]*\{`, `$0
	if $1.GetReservationId()%10 == 0 {
		panic("a canary")
	}`),
		}},
		{name: "each booking takes two seconds", by: checkActivity, changes: []change{
			code("server/edge", `(ctx context\.Context, req any, )\w+( \*grpc\.UnaryServerInfo[^{]*\{)`, `${1}info$2
	if strings.HasPrefix(info.FullMethod, "/dlsms.v1.Reservation") {
		time.Sleep(2 * time.Second)
	}`),
		}},
		{name: "seats from a 300 ms cache", by: checkFreshness, changes: []change{
			code("feed", `if ([\w.]+\.Freshness) > 0 \{ // canary: stale-cache`, `{
		$1 = 300 * time.Millisecond`),
		}},
		// The tag depends on the number of available seats, and not on the seats.
		{name: "ETag ignores a change", by: checkLinearizability, changes: []change{
			code("server", `(\w+)\.Write\(b\)(\n\t+\w+\.Write\(strconv\.AppendInt\(nil, (\w+)\.NextAfterID, 10\)\))`,
				"$1.Write(strconv.AppendInt(nil, int64($3.Available), 10))$2"),
		}},
		// The replica compares If-None-Match with the tag of its last answer to the same query.
		{name: "304 without a refresh", by: checkLinearizability, changes: []change{
			code("rest", `\n\tresp, err := \w+\.caller\.Call\(\w+, \w+, \w+, \w+\.getSeats\)`, `
	if tag, ok := lastTags.Load(r.URL.RawQuery); ok && noneMatch(r.Header["If-None-Match"], tag.(string)) {
		w.Header()["Etag"] = []string{tag.(string)}
		w.WriteHeader(http.StatusNotModified)
		return
	}$0`),
			code("rest", `\["Etag"\] = \[\]string\{([\w.]+\.ETag\(\))\}`, "$0\n\tlastTags.Store(r.URL.RawQuery, $1)"),
			code("rest", `\ntype Server struct \{`, "\nvar lastTags sync.Map\n$0"),
		}},
		{name: "request lost while draining", by: checkRestarts, run: restartRun, changes: []change{
			code("rest", `(\n\t+)(\w+)\.handler\.draining\.Store\(true\)\n`, `${1}if ctx.Err() == nil {
		return $2.http.Shutdown(ctx)
	}$0`),
		}},
		{name: "no deadline for an incomplete HTTP request", by: checkLiveness, changes: []change{
			code("rest", `(\n\t+bodyTimeout +=) [^\n]*`, "$1 24 * time.Hour"),
		}},
		// With slow commits, bookings that were decided before a closure are committed after it. The
		// sweep then reads the reservations before it could see them.
		{
			name: "closure misses late commits", by: checkInvariants, faults: "^commits are slow$", duration: 2 * canaryTime,
			changes: []change{
				code("store", `if _, err := t\.lockSeats\(ctx, seats\); err != nil \{\n\t+return nil, err\n\t+\}`+
					`(\n\there := w\.sweep)`, "$1"),
			},
		},
		{name: "policy of another branch", by: checkAnswers, changes: []change{
			text("store/migrations", "WHERE p.library_id = library AND p.branch_id IN (branch, 0)",
				"WHERE p.library_id = library"),
		}},
		{name: "audit row outside of the transaction", by: checkInvariants, changes: []change{
			code("store", `t\.Exec\(ctx, insertAudit, // canary: audit`, "t.s.pool.Exec(ctx, insertAudit,"),
		}},
		{name: "code of a screen without the screen", by: checkAnswers, duration: 2 * canaryTime, changes: []change{
			code("presence", `(PutUint32\(p\[1:\], )uint32\(screen\)`, "${1}0"),
			code("presence", `formScreen(:\s+return )p\.screen\(\), judgeScreen\(f, p\.screen\(\)`,
				"formScreen && len(f.Screens) > 0${1}f.Screens[0].ID, judgeScreen(f, f.Screens[0].ID"),
		}},
		{name: "codes accepted for ten minutes", by: checkAnswers, duration: 2 * canaryTime, changes: []change{
			code("presence", `(formScreen:\s+return p\.screen\(\), judgeScreen\(.*, )Validity`, "${1}10*time.Minute"),
		}},
		// The mark of what is counted stays an hour behind, so each pass counts the last hour again.
		{name: "sum that counts twice", by: checkInvariants, duration: 2 * canaryTime, changes: []change{
			text("store", "SET counted_until = @ends WHERE", "SET counted_until = @ends::timestamptz - interval '1 hour' WHERE"),
			text("store", "SELECT @library, c.* FROM (` + countUsage + `) c`",
				"SELECT @library, c.* FROM (` + countUsage + `) c ON CONFLICT (library_id, hour, branch_id, area, user_group) "+
					"DO UPDATE SET reservations = usage_hours.reservations + EXCLUDED.reservations`"),
			text("store", "SELECT @library, c.* FROM (` + countOpen + `) c`",
				"SELECT @library, c.* FROM (` + countOpen + `) c ON CONFLICT DO NOTHING`"),
			text("store", "SELECT @library, c.* FROM (` + countWaits + `) c`",
				"SELECT @library, c.* FROM (` + countWaits + `) c ON CONFLICT DO NOTHING`"),
		}},
		{name: "table forgotten in the export", by: checkAnswers, changes: []change{
			code("store", `\n\t\{"waitlist_entries", (?s:.*?)LIMIT \$4`+"`"+`\},`, ""),
		}},
		{name: "offer into a closure", by: checkInvariants, changes: []change{
			text("store", "WHERE NOT dlsms_closed(@library, place.branch_id, place.area, place.id, ` + restOfWindow + `) AND `",
				"WHERE `"),
		}},
	}
}

// apply adds the changes of the canary to o. The source is at root.
func (c canary) apply(root string, o overlay) error {
	for _, ch := range c.changes {
		if err := o.apply(root, ch); err != nil {
			return fmt.Errorf("canary %q: %w", c.name, err)
		}
	}
	return nil
}

// build compiles a replica with the changes, from the source in the working directory.
func (c canary) build(ctx context.Context, dir string) (binary string, err error) {
	changed := overlay{}
	if err := c.apply(".", changed); err != nil {
		return "", err
	}
	file, err := changed.write(dir)
	if err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "dlsms")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", file, "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build canary %q: %w: %s", c.name, err, output)
	}
	return binary, nil
}

// canaryTime is the usual duration of a run with a canary.
const canaryTime = 20 * time.Second

// violations runs the system with the canary, and returns the violations that the run found.
func (c canary) violations(ctx context.Context, seed uint64) ([]violation, error) {
	dir, err := os.MkdirTemp("", "dlsms-canary-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p := &plan{duration: cmp.Or(c.duration, canaryTime), seed: seed, postgres: c.postgres, quiet: true}
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
	case c.refuses != nil && err != nil && c.refuses.MatchString(err.Error()):
		return []violation{{checkStart, c.refuses.FindString(err.Error())}}, nil
	case err != nil:
		return nil, fmt.Errorf("canary %q: %w", c.name, err)
	}
	return r.found.list(), nil
}

// runCanaries makes a run with each canary, a run of noCanaryRestarts, and cleanRuns runs of
// noCanary, and prints a table. If the regular expression only does not match the name of a canary,
// runCanaries skips this canary. It fails if the expected check does not find a canary, or if a run
// without a canary has a violation.
func runCanaries(ctx context.Context, out io.Writer, only string, seed uint64) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	fmt.Fprintf(out, "\nCanaries: commit %s, seed %d\n\n", commit(ctx), seed)
	fmt.Fprint(out, "| canary | found by | after | violation |\n|---|---|---|---|\n")
	var missed []error
	n := 0
	all := slices.Concat(canaries(), []canary{noCanaryRestarts()}, slices.Repeat([]canary{noCanary()}, cleanRuns))
	for _, c := range all {
		if !wanted.MatchString(c.name) {
			continue
		}
		n++
		began := time.Now()
		row := func(foundBy, text string) {
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", c.name, foundBy, time.Since(began).Round(time.Second), text)
		}
		seed++
		found, err := c.violations(ctx, seed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			missed = append(missed, fmt.Errorf("seed %d: %w", seed, err))
			row("DID NOT RUN", "")
			continue
		}
		if c.by == "" {
			row(fmt.Sprintf("%d false alarms", len(found)), "")
			if len(found) > 0 {
				missed = append(missed, fmt.Errorf("false alarms with seed %d (the history is in %s): %v", seed, historyDir, found))
			}
			continue
		}
		i := slices.IndexFunc(found, func(v violation) bool { return v.check == c.by })
		if i < 0 {
			missed = append(missed, fmt.Errorf("canary %q was not found by %s: %v", c.name, c.by, found))
			row("NOT FOUND", "")
			continue
		}
		row(string(c.by), oneLine(found[i].text))
	}
	if n == 0 {
		return fmt.Errorf("-only: no canary matches %q", only)
	}
	return errors.Join(missed...)
}

// oneLine shortens a text to one cell of a table.
func oneLine(text string) string {
	const most = 140
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "/")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
