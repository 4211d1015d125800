package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// waitForReplicas waits until each replica shows the seats of the operator's branches as the
// database has them, with their availability from start to end. If a replica still shows other
// seats after operatorTime, differs describes the first difference. A replica may leave out the
// seats in mayMiss, because it may be unable to read their values.
func (o *operator) waitForReplicas(
	ctx context.Context, start, end time.Time, mayMiss []int64,
) (differs string, err error) {
	for i := range o.direct {
		for until := time.Now().Add(operatorTime); ; sleep(ctx, retryAfter) {
			differs, err = o.compare(ctx, i, start, end, mayMiss)
			if err != nil || differs == "" {
				break
			}
			if time.Now().After(until) {
				return differs, nil
			}
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
}

// catalogSQL returns the seats of branch $1, and whether each is available from $2 to $3. It reads
// this from the tables. A replica must return the same from its read model.
const catalogSQL = `
	SELECT s.id, format('%s %s %s %s %s', s.area, s.label, s.out_of_service,
		(SELECT array_agg(DISTINCT a ORDER BY a) FROM unnest(s.amenities) a),
		NOT s.out_of_service AND dlsms_open(1, s.branch_id, tstzrange($2, $3)) AND NOT EXISTS (
			SELECT FROM reservations r WHERE r.library_id = 1 AND r.seat_id = s.id AND r.during && tstzrange($2, $3)
				AND r.status IN ('HELD', 'CONFIRMED', 'CHECKED_IN')))
	FROM seats s JOIN branches b ON b.library_id = s.library_id AND b.id = s.branch_id
	WHERE s.library_id = 1 AND b.code = $1`

func (o *operator) compare(
	ctx context.Context, replica int, start, end time.Time, mayMiss []int64,
) (differs string, err error) {
	for _, code := range []string{operatorBranch, operatorDepot} {
		want := map[int64]string{}
		err := o.retry(ctx, func(ctx context.Context) error {
			rows, err := o.system.db.Query(ctx, catalogSQL, code, start, end)
			if err != nil {
				return err
			}
			var id int64
			var row string
			_, err = pgx.ForEachRow(rows, []any{&id, &row}, func() error {
				want[id] = row
				return nil
			})
			return err
		})
		if refusedBySQL(err) {
			return fmt.Sprintf("the database itself cannot read branch %s: %v", code, err), nil
		}
		if err != nil {
			return "", err
		}
		tryCtx, stop := context.WithTimeout(ctx, tryTimeout)
		resp, err := o.direct[replica].Seats.GetSeats(tryCtx, &dlsmsv1.GetSeatsRequest{
			Branch: code, StartTime: timestamppb.New(start), EndTime: timestamppb.New(end), PageSize: 2 * operatorSeats,
		})
		stop()
		if err != nil {
			return fmt.Sprintf("replica %d does not show branch %s: %v", replica, code, err), nil
		}
		got := map[int64]string{}
		for _, s := range resp.GetSeats() {
			got[s.GetId()] = fmt.Sprintf("%s %s %s %s %s", s.GetArea(), s.GetLabel(),
				sqlBool(s.GetOutOfService()), sqlArray(s.GetAmenities()), sqlBool(s.GetAvailable()))
		}
		for _, id := range mayMiss {
			if _, shown := got[id]; !shown {
				delete(want, id)
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Sprintf("replica %d shows branch %s differently than the database: %s",
				replica, code, difference(got, want)), nil
		}
	}
	return "", nil
}

func sqlBool(b bool) string {
	if b {
		return "t"
	}
	return "f"
}

func sqlArray(amenities []dlsmsv1.Amenity) string {
	if len(amenities) == 0 {
		return ""
	}
	var numbers []string
	for _, a := range amenities {
		numbers = append(numbers, fmt.Sprint(int32(a)))
	}
	return "{" + strings.Join(numbers, ",") + "}"
}

// difference describes the first seat that differs.
func difference(got, want map[int64]string) string {
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if got[id] != want[id] {
			return fmt.Sprintf("seat %d is %.100q, want %.100q", id, got[id], want[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if want[id] == "" {
			return fmt.Sprintf("seat %d is %.100q, want none", id, got[id])
		}
	}
	return "nothing"
}
