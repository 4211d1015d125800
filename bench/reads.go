package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1"
)

// availableNow is the request of most measurements: all seats that are free now.
var availableNow = &dlsmsv1.GetSeatsRequest{AvailableOnly: true}

const getSeats = dlsmsv1.SeatService_GetSeats_FullMethodName

func (b *bench) readLoad(clients int) load {
	return load{method: getSeats, clients: clients, warm: b.warm, measure: b.measure, request: sameMessage(availableNow)}
}

// reads measures GetSeats of all seats that are free now.
func (b *bench) reads(ctx context.Context) error {
	worst := comparison{rps: 1e9}
	var calls, failed int
	for _, clients := range b.readClients {
		c, err := b.compare(
			ctx, "GetSeats", clients, [2]*subject{b.ours, b.limit},
			func(*subject) (load, error) { return b.readLoad(clients), nil },
		)
		if err != nil {
			return err
		}
		worst.rps, worst.p95 = min(worst.rps, c.rps), max(worst.p95, c.p95)
		worst.cpuReplica = max(worst.cpuReplica, c.cpuReplica)
		calls, failed = calls+c.figures[0].calls, failed+c.figures[0].failed
	}
	all := fmt.Sprintf("GetSeats, %d to %d clients", b.readClients[0], b.readClients[len(b.readClients)-1])
	b.report.atLeast(all+": RPS, divided by the limit's", worst.rps, 0.9)
	b.report.atMost(all+": P95, divided by the limit's", worst.p95, 1.2)
	b.report.goal(all+": calls failed", "0", fmt.Sprintf("%d of %d", failed, calls), failed == 0 && calls > 0)
	b.report.atMost(all+": CPU of the replicas for a call, divided by the limit's", worst.cpuReplica, 1.25)
	return nil
}

// secure measures GetSeats over TLS, against the same system without TLS. The connections stay open,
// so the handshakes do not count.
func (b *bench) secure(ctx context.Context) error {
	const clients = 50
	c, err := b.compare(ctx, "GetSeats", clients, [2]*subject{b.ours.overTLS(b.certificates), b.ours},
		func(*subject) (load, error) { return b.readLoad(clients), nil })
	if err != nil {
		return err
	}
	b.report.atLeast("GetSeats over TLS: RPS, divided by that without TLS", c.rps, 0.9)
	b.report.atMost("GetSeats over TLS: CPU of all processes for a call, divided by that without TLS", c.cpu, 1.1)
	return nil
}

// filters measures GetSeats with filters and windows that vary.
func (b *bench) filters(ctx context.Context) error {
	const clients = 50
	c, err := b.compare(ctx, "GetSeats with filters", clients, [2]*subject{b.ours, b.limit}, func(*subject) (load, error) {
		return load{method: getSeats, clients: clients, warm: b.warm, measure: b.measure, request: cycle(randomReads())}, nil
	})
	if err != nil {
		return err
	}
	b.report.atLeast("GetSeats with random filters and windows: RPS, divided by the limit's", c.rps, 0.75)
	return nil
}

// randomReads returns random requests, the same in every run: 3 of 4 name a branch, 1 of 2 an
// amenity, 2 of 3 a window in the coming days.
func randomReads() []*dlsmsv1.GetSeatsRequest {
	random := rand.New(rand.NewPCG(1, 2))
	branches := []string{"", "main", "science", "engineering"}
	amenities := []dlsmsv1.Amenity{
		dlsmsv1.Amenity_AMENITY_POWER_OUTLET,
		dlsmsv1.Amenity_AMENITY_MONITOR,
		dlsmsv1.Amenity_AMENITY_WINDOW,
		dlsmsv1.Amenity_AMENITY_STANDING_DESK,
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	requests := make([]*dlsmsv1.GetSeatsRequest, 10_000)
	for i := range requests {
		r := &dlsmsv1.GetSeatsRequest{Branch: branches[random.IntN(len(branches))], AvailableOnly: random.IntN(4) > 0}
		if random.IntN(2) == 0 {
			r.Amenities = append(r.Amenities, amenities[random.IntN(len(amenities))])
		}
		if random.IntN(3) > 0 {
			start := today.Add(time.Duration(24+random.IntN(12*24)) * time.Hour).Add(time.Duration(random.IntN(4)) * quarter)
			r.StartTime, r.EndTime = timestamppb.New(start), timestamppb.New(start.Add(time.Duration(1+random.IntN(16))*quarter))
		}
		requests[i] = r
	}
	return requests
}

// answers returns two encoded answers of GetSeats. The minimal replica (bench/limit) serves them.
// common is the answer to availableNow. filtered is the answer to a random request: of 500 such
// answers, the one whose size is the closest to the mean.
func answers(ctx context.Context, s *subject) (common, filtered []byte, err error) {
	seats := dlsmsv1.NewSeatServiceClient(s.conn)
	ask := func(r *dlsmsv1.GetSeatsRequest) ([]byte, error) {
		resp, err := seats.GetSeats(ctx, r)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	}
	if common, err = ask(availableNow); err != nil {
		return nil, nil, err
	}
	var sampled [][]byte
	for _, r := range randomReads()[:500] {
		answer, err := ask(r)
		if err != nil {
			return nil, nil, err
		}
		sampled = append(sampled, answer)
	}
	total := 0
	for _, a := range sampled {
		total += len(a)
	}
	mean := total / len(sampled)
	slices.SortFunc(sampled, func(a, b []byte) int { return abs(len(a)-mean) - abs(len(b)-mean) })
	return common, sampled[0], nil
}

// jsonAnswer returns the answer to availableNow over HTTP.
func (s *subject) jsonAnswer(ctx context.Context) ([]byte, error) {
	a := dialHTTP(s.HTTPAddr(), "", false)
	defer a.close()
	var answer json.RawMessage
	_, _, err := a.list(ctx, availableNowPath, &answer)
	return answer, err
}

func abs(n int) int { return max(n, -n) }
