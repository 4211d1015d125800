package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// register records the edits of the catalog, by row. Row 0 is the branch depot. The other rows are
// seats, by id. Each edit has a larger number than the last, and writes this number into the row.
// So a reader finds the number of the last edit in the row.
type register struct {
	mu    *sync.Mutex
	acked map[int64][]edit // in the order of their numbers
	sent  map[int64]int    // number of the last edit, acknowledged or not
}

// edit is an acknowledged edit. at is the time of the acknowledgement, since the start of the run.
type edit struct {
	number int
	at     time.Duration
}

func newRegister() register {
	return register{mu: new(sync.Mutex), acked: map[int64][]edit{}, sent: map[int64]int{}}
}

// bounds returns the lowest and the highest number of an edit that a reader may find in a row. The
// answer of the reader has just arrived, and asOf is the time of the state in it. The lowest number
// is that of the last edit that was acknowledged before asOf. A lower number would be a stale read.
// The highest number is that of the last edit that was sent.
func (r register) bounds(row int64, asOf time.Duration) (oldest, newest int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.acked[row] {
		if e.at > asOf {
			break
		}
		oldest = e.number
	}
	return oldest, r.sent[row]
}

func (r register) sending(row int64, number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[row] = number
}

func (r register) ack(row int64, number int, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[row] = append(r.acked[row], edit{number, at})
}

// The fault "operator edits the catalog" makes editsInARow edits, one after the other. If Postgres
// is slow, the fault ends after editingTime with fewer edits.
const (
	editsInARow = 400
	editingTime = 2 * time.Second
	// editReaders is the number of concurrent readers of the edited rows.
	editReaders = 2
)

// Each edit computes the new values of several columns from its number, $2. If a reader finds
// values that belong to different numbers, it has seen a mix of two edits. $1 is the id of the seat
// or branch.
const (
	editSeat = `
		UPDATE seats SET label = 'E-' || $2::int, amenities = ARRAY[1 + $2::int % 5]::smallint[],
			out_of_service = $2::int % 2 = 1
		WHERE library_id = 1 AND id = $1`
	editHours = `
		WITH hours AS (UPDATE branch_hours SET closes = time '20:00' + make_interval(mins => $2::int % 60)
			WHERE library_id = 1 AND branch_id = $1 AND weekday = 1)
		UPDATE branches SET name = 'Depot ' || $2::int WHERE library_id = 1 AND id = $1`
)

// edit makes up to editsInARow edits of seats, and of the name and the hours of the depot.
// Meanwhile readers check that they see all acknowledged edits. The function heal does nothing,
// because no edit is undone.
func (o *operator) edit(ctx context.Context, rng *rand.Rand) (heal func(context.Context) error, err error) {
	editing, stop := context.WithTimeout(ctx, editingTime)
	defer stop()
	reading, stopReading := context.WithCancel(ctx)
	var readers sync.WaitGroup
	for i := range editReaders {
		readers.Go(func() {
			for n := i; reading.Err() == nil; n++ {
				o.readEdited(ctx, n)
			}
		})
	}
	for n := 0; n < editsInARow && editing.Err() == nil; n++ {
		o.edits++
		row, id, sql := int64(0), o.depot, editHours
		if n%10 > 0 {
			id, sql = o.seats[editedSeat+rng.IntN(len(o.seats)-editedSeat)], editSeat
			row = id
		}
		o.editing.sending(row, o.edits)
		if _, err = o.db.Exec(editing, sql, id, o.edits); err == nil {
			o.editing.ack(row, o.edits, o.history.since())
		} else if refusedBySQL(err) {
			break
		}
	}
	stopReading()
	readers.Wait()
	if refusedBySQL(err) {
		return nil, fmt.Errorf("edit number %d: %w", o.edits, err)
	}
	return func(context.Context) error { return nil }, nil
}

// readEdited reads the seats of the operator's branch. If n is a multiple of 4, it reads the depot
// instead. It checks that the answer has all acknowledged edits.
func (o *operator) readEdited(ctx context.Context, n int) {
	ctx, end := context.WithTimeout(ctx, tryTimeout)
	defer end()
	api := e2e.Anonymous(o.conns[n%len(o.conns)])
	r := op{Kind: read, Client: clients, Call: o.history.since()}
	var err error
	seen := map[int64]string{}
	if n%4 == 0 {
		var resp *dlsmsv1.GetBranchesResponse
		resp, err = api.Seats.GetBranches(ctx, &dlsmsv1.GetBranchesRequest{})
		r.AsOf = o.system.clock.Real(resp.GetAsOf().AsTime()).Sub(o.history.began)
		for _, b := range resp.GetBranches() {
			if b.GetCode() == operatorDepot {
				seen[0] = seenDepot(b)
			}
		}
	} else {
		var resp *dlsmsv1.GetSeatsResponse
		req := &dlsmsv1.GetSeatsRequest{Branch: operatorBranch, PageSize: 2 * operatorSeats}
		resp, err = api.Seats.GetSeats(ctx, req)
		r.AsOf = o.system.clock.Real(resp.GetAsOf().AsTime()).Sub(o.history.began)
		for _, s := range resp.GetSeats() {
			seen[s.GetId()] = seenSeat(s)
		}
	}
	r.Return = o.history.since()
	if err != nil {
		if refusal := e2e.RefusalOf(err); !noAnswer(refusal) && refusal.Reason != "OVERLOADED" {
			o.history.found.add(checkAnswers,
				"a read of edited rows had an answer that is not in the contract: %v", err)
		}
		sleep(ctx, retryAfter)
		return
	}
	o.mu.Lock()
	o.reads = append(o.reads, r)
	o.mu.Unlock()
	asOf := r.Call
	if r.AsOf < r.Call {
		asOf = r.AsOf - clockMargin
	}
	for row, text := range seen {
		oldest, newest := o.editing.bounds(row, asOf)
		number, ok := strings.CutPrefix(text, "edit ")
		if !ok && text != "" {
			o.history.found.add(checkFreshness,
				"at %s: a read of row %d of the catalog matches no edit: %s", r.Return, row, text)
			continue
		}
		if got, _ := strconv.Atoi(number); got < oldest || got > newest {
			o.history.found.add(checkFreshness, "a read at %s, as of %s, found edit %d of row %d of the catalog; "+
				"edit %d was acknowledged before, and the last is %d", r.Call, r.AsOf, got, row, oldest, newest)
		}
	}
}

// seenSeat returns "edit n" for a seat with the values of edit n, and "" for a seat that was never
// edited. If the values do not belong to one edit, it returns the whole seat as text.
func seenSeat(s *dlsmsv1.Seat) string {
	n, err := strconv.Atoi(strings.TrimPrefix(s.GetLabel(), "E-"))
	if err != nil || !strings.HasPrefix(s.GetLabel(), "E-") {
		return ""
	}
	if len(s.GetAmenities()) != 1 || int(s.GetAmenities()[0]) != 1+n%5 || s.GetAvailable() != (n%2 == 0) {
		return s.String()
	}
	return fmt.Sprintf("edit %d", n)
}

// seenDepot is like seenSeat, for the depot.
func seenDepot(b *dlsmsv1.Branch) string {
	n, err := strconv.Atoi(strings.TrimPrefix(b.GetName(), "Depot "))
	if err != nil {
		return ""
	}
	if hours := b.GetHours(); len(hours) > 0 && hours[0].GetCloses() != fmt.Sprintf("20:%02d", n%60) {
		return b.String()
	}
	return fmt.Sprintf("edit %d", n)
}
