package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dlsms/dlsms/e2e"
	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// Two branches require a proof of presence at check-in. Each has one screen, whose name is the code
// of the branch. Their policies do not change during a run.
const (
	screenBranch = "screen" // requires the code of a screen
	bothBranch   = "both"   // requires the codes of a screen and of the seat
	codeSeats    = 4        // of each of them
)

// place is a branch in which the clients make visits.
type place struct {
	branch  string
	rule    dlsmsv1.CheckInRule
	seats   []int64
	display *display // without codes if the branch has no screen
}

// addPlaces sets the places of the clients: the visits branch, and the branches that require codes.
// The librarian adds their policies, screens and keys, and prints the labels of the seats.
func (l *load) addPlaces(ctx context.Context, b *librarian) error {
	l.places = []*place{
		{branch: visitsBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_NONE, seats: l.visits, display: &display{}},
		{branch: screenBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN},
		{branch: bothBranch, rule: dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT_AND_SCREEN},
	}
	for _, at := range l.places[1:] {
		if err := l.addPlace(ctx, b, at); err != nil {
			return fmt.Errorf("add branch %s: %w", at.branch, err)
		}
	}
	l.placeOf, l.labels = map[int64]*place{}, map[int64]string{}
	for _, at := range l.places {
		for _, seat := range at.seats {
			sheet, err := b.Admin.MakeLabels(ctx, &dlsmsv1.MakeLabelsRequest{Branch: at.branch, SeatIds: []int64{seat}})
			if err != nil {
				return fmt.Errorf("print a label: %w", err)
			}
			l.placeSeats = append(l.placeSeats, seat)
			l.placeOf[seat], l.labels[seat] = at, string(labelCode.Find(sheet.GetContent()))
		}
	}
	return nil
}

// addPlace adds a branch with a rule for check-ins, and its screen.
func (l *load) addPlace(ctx context.Context, b *librarian, at *place) (err error) {
	if at.seats, err = l.system.addBranch(ctx, at.branch, codeSeats); err != nil {
		return err
	}
	if _, err := b.Admin.UpsertScreen(ctx, &dlsmsv1.UpsertScreenRequest{Branch: at.branch, Name: at.branch}); err != nil {
		return err
	}
	if _, err := b.Admin.SetPolicy(ctx, &dlsmsv1.SetPolicyRequest{
		Policy: &dlsmsv1.Policy{Branch: at.branch, Rules: &dlsmsv1.PolicyRules{CheckIn: at.rule}},
	}); err != nil {
		return err
	}
	key, err := b.Admin.CreateKey(ctx, &dlsmsv1.CreateKeyRequest{
		Name: "screen", Branch: at.branch, Scopes: []dlsmsv1.KeyScope{dlsmsv1.KeyScope_KEY_SCOPE_SCREEN},
	})
	at.display = &display{key: key.GetSecret()}
	return err
}

var labelCode = regexp.MustCompile(`\b[A-Z2-7]{31}\b`)

// A screen shows a code for codeStep. The code is valid for codeValidity, and it is accepted for
// codeTolerance before and after that.
const (
	codeStep      = 15 * time.Second
	codeValidity  = 2 * codeStep
	codeTolerance = 2 * time.Second
)

// presented are the codes of a check-in. The zero value stands for a check-in without codes.
type presented struct {
	Screen string `json:",omitempty"` // branch of the screen; empty: no code of a screen
	From   time.Time
	Digits bool   `json:",omitempty"`
	Label  int64  `json:",omitempty"` // seat; 0: no label
	Code   string `json:",omitempty"` // that of the screen, or its digits
}

// answer is the model of a check-in that is judged at a time now of the system's clock. It returns
// the reason of the refusal, or the proof of the check-in, followed by the name of the screen.
func (p presented) answer(at *place, seat int64, now time.Time) string {
	if p.Screen != "" {
		switch {
		case p.Screen != at.branch && p.Digits: // they do not name their screen
			return "PRESENCE_INVALID"
		case p.Screen != at.branch:
			return "PRESENCE_ELSEWHERE"
		case now.Before(p.From.Add(-codeTolerance)):
			return "PRESENCE_INVALID"
		case !now.Before(p.From.Add(codeValidity + codeTolerance)):
			return "PRESENCE_EXPIRED"
		}
	}
	if p.Label != 0 && p.Label != seat {
		return "PRESENCE_ELSEWHERE"
	}
	var missing bool
	switch at.rule {
	case dlsmsv1.CheckInRule_CHECK_IN_RULE_SCREEN:
		missing = p.Screen == ""
	case dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT_AND_SCREEN:
		missing = p.Screen == "" || p.Label == 0
	default:
	}
	switch {
	case missing:
		return "PRESENCE_REQUIRED"
	case p.Screen != "" && p.Label != 0:
		return "SEAT_AND_SCREEN " + p.Screen
	case p.Screen != "":
		return "SCREEN " + p.Screen
	case p.Label != 0:
		return "SEAT"
	}
	return "NONE"
}

// mayGet reports whether a check-in may have an answer if it is judged at some time between from
// and until. The answer of the model changes only when a code becomes valid, and when it expires.
func (p presented) mayGet(answer string, at *place, seat int64, from, until time.Time) bool {
	moments := []time.Time{from}
	for _, t := range []time.Time{p.From.Add(-codeTolerance), p.From.Add(codeValidity + codeTolerance)} {
		if t.After(from) && !t.After(until) {
			moments = append(moments, t)
		}
	}
	return slices.ContainsFunc(moments, func(now time.Time) bool {
		want := p.answer(at, seat, now)
		// Digits that expired some minutes ago look like any other wrong number.
		return answer == want || p.Digits && answer == "PRESENCE_INVALID" && want == "PRESENCE_EXPIRED"
	})
}

// choose chooses the codes of a check-in at a seat. Half of the time, they are those that the branch
// requires.
func (l *load) choose(c *client, seat int64, now time.Time) (p presented) {
	at, digits := l.placeOf[seat], c.rng.IntN(2) == 0
	switch c.rng.IntN(10) {
	case 0: // no code
	case 1:
		p.Label = seat
	case 2:
		p.Label = l.placeSeats[c.rng.IntN(len(l.placeSeats))]
	case 3:
		other := at
		for other == at || other.display.key == "" {
			other = l.places[c.rng.IntN(len(l.places))]
		}
		p = other.display.shows(other.branch, now, digits)
	case 4: // an earlier code, which has expired
		age := 2*codeValidity + time.Duration(c.rng.Int64N(int64(keptCodes/2*codeStep)))
		p = at.display.shows(at.branch, now.Add(-age), digits)
		p.Label = seat
	default:
		p = at.display.shows(at.branch, now, digits)
		if at.rule == dlsmsv1.CheckInRule_CHECK_IN_RULE_SEAT_AND_SCREEN {
			p.Label = seat
		}
	}
	return p
}

// tryCodes checks in. If the codes are refused, the client tries others at once.
func (l *load) tryCodes(ctx context.Context, c *client) {
	for range 3 {
		now := l.system.clock.At(time.Now())
		if o := l.checkIn(ctx, c, l.choose(c, c.visit.seat, now)); !strings.HasPrefix(o.Reason, "PRESENCE_") {
			return
		}
	}
}

// checkIn checks in with codes.
func (l *load) checkIn(ctx context.Context, c *client, codes presented) op {
	req := &dlsmsv1.CheckInRequest{ReservationId: c.visit.reservation, PresenceCode: codes.Code}
	if codes.Label != 0 {
		req.LabelCode = l.labels[codes.Label]
	}
	return l.step(ctx, c, op{Kind: checkIn, Codes: codes}, func(ctx context.Context, api *e2e.Client, o *op) error {
		resp, err := api.Reservations.CheckIn(ctx, req)
		r := resp.GetReservation()
		if err == nil {
			o.Proof = strings.TrimSpace(strings.TrimPrefix(r.GetProof().String(), "PROOF_") + " " + r.GetScreen())
		}
		return err
	})
}

// proof is the proof of a check-in in the change log, followed by the name of the screen.
type proof struct {
	at   time.Time
	text string
}

func (s *system) proofs(ctx context.Context) (map[int64]proof, error) {
	rows, err := s.db.Query(ctx, `
		SELECT e.reservation_id, e.at, concat_ws(' ', e.proof, c.name) FROM reservation_events e
		LEFT JOIN screens c ON c.library_id = e.library_id AND c.id = e.screen_id WHERE e.kind = 'CHECKED_IN'`)
	if err != nil {
		return nil, err
	}
	all := map[int64]proof{}
	var id int64
	var p proof
	_, err = pgx.ForEachRow(rows, []any{&id, &p.at, &p.text}, func() error { all[id] = p; return nil })
	return all, err
}

// leastCheckIns is the least number of check-ins of a run in which some with the code of a screen
// must succeed.
const leastCheckIns = 100

// checkCheckIns checks each check-in with judge. It also checks that the proofs in the change log are
// those that the users have presented.
func (r *result) checkCheckIns(ctx context.Context, s *system, h *history, places map[int64]*place) error {
	proofs, err := s.proofs(ctx)
	if err != nil {
		return err
	}
	n := 0
	made := map[int64]bool{} // whether the user has presented the proof, by reservation
	for _, ops := range h.all() {
		for _, o := range ops {
			if o.Kind == checkIn {
				n++
				r.checkIns[cmp.Or(o.Reason, o.Proof, "no answer")]++
				made[o.Reservation] = r.judge(h, &o, places[o.Seat], proofs[o.Reservation]) || made[o.Reservation]
			}
		}
	}
	for id, ok := range made {
		if recorded := proofs[id]; recorded.text != "" && !ok {
			r.found.add(checkAnswers, "reservation %d was checked in at %s with the proof %s, which its user did not present",
				id, recorded.at, recorded.text)
		}
	}
	accepted := r.checkIns["SCREEN "+screenBranch] > 0 && r.checkIns["SEAT_AND_SCREEN "+bothBranch] > 0
	if n >= leastCheckIns && !accepted {
		r.found.add(checkActivity, "no check-in with the code of a screen succeeded: %v", r.checkIns)
	}
	return nil
}

// judge checks that the answer to a check-in is that of the model at some time between the call and
// the answer, and that it has the proof in the change log. A repeated check-in has the answer of the
// first one. judge reports whether the check-in may be the one that made the proof.
func (r *result) judge(h *history, o *op, at *place, recorded proof) (made bool) {
	may := func(answer string, from, until time.Duration) bool {
		return o.Codes.mayGet(answer, at, o.Seat,
			r.clock.At(h.began.Add(from-clockMargin)), r.clock.At(h.began.Add(until+clockMargin)))
	}
	wrong := ""
	switch refused := strings.HasPrefix(o.Reason, "PRESENCE_"); {
	case o.done() && o.Proof != recorded.text:
		wrong = "the change log has the proof " + recorded.text
	case refused && !may(o.Reason, o.LastCall, o.Return):
		wrong = "the model has another answer"
	case refused && recorded.text != "" && recorded.at.Before(r.clock.At(h.began.Add(o.LastCall-clockMargin))):
		wrong = "the reservation was checked in before"
	case o.Reason == "RATE_LIMITED" && o.Codes == presented{}:
		wrong = "the call has no code"
	}
	if wrong != "" {
		r.found.add(checkAnswers, "a check-in at seat %d in branch %s by user %d from %s to %s with %+v got %q %s: %s",
			o.Seat, at.branch, o.User, o.Call, o.Return, o.Codes, o.Reason, o.Proof, wrong)
	}
	until := o.Return
	if !o.done() {
		until += longestCall
	}
	return (o.done() || o.Unknown || o.Unsure) && may(recorded.text, o.Call, until)
}

// checkInSummary counts the answers to check-ins.
func (r *result) checkInSummary() string {
	var counts []string
	for _, answer := range slices.Sorted(maps.Keys(r.checkIns)) {
		counts = append(counts, fmt.Sprintf("%d %s", r.checkIns[answer], answer))
	}
	return strings.Join(counts, ", ")
}

// wrongProofSQL finds check-ins without the proof that their branch requires, and those with the
// screen of another branch. $1 is screenBranch and $2 is bothBranch.
const wrongProofSQL = `
	SELECT format('reservation %s of branch %s was checked in with the proof %s of screen %s', e.reservation_id, b.code,
		e.proof, c.name)
	FROM reservation_events e
	JOIN seats s ON s.library_id = e.library_id AND s.id = e.seat_id
	JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	LEFT JOIN screens c ON c.library_id = e.library_id AND c.id = e.screen_id
	WHERE e.kind = 'CHECKED_IN' AND (
		e.screen_id IS NOT NULL AND c.branch_id IS DISTINCT FROM b.id
		OR b.code = $1 AND COALESCE(e.proof, '') NOT IN ('SCREEN', 'SEAT_AND_SCREEN', 'DESK', 'ARRIVAL')
		OR b.code = $2 AND COALESCE(e.proof, '') NOT IN ('SEAT_AND_SCREEN', 'DESK', 'ARRIVAL'))`
