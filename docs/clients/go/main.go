// Command go is a small client of DL-SMS.
// It logs in, books a seat, reads the reason of an error, and subscribes to notifications.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"time"

	// This import also registers the details for status.Details.
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	dlsmsv1 "github.com/dlsms/dlsms/gen/dlsms/v1" // go get github.com/dlsms/dlsms
)

// Every call is safe to repeat, so gRPC may retry it when the server is unavailable.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "dlsms.v1.AuthService"}, {"service": "dlsms.v1.SeatService"},
		{"service": "dlsms.v1.ReservationService"}, {"service": "dlsms.v1.NotifyService"}],
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: go run ./docs/clients/go ADDRESS STUDENT_ID PASSWORD SEAT_ID")
		os.Exit(2)
	}
	seat, err := strconv.ParseInt(os.Args[4], 10, 64)
	if err == nil {
		err = visit(context.Background(), os.Args[1], os.Args[2], os.Args[3], seat)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func visit(ctx context.Context, address, studentID, password string, seat int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		return err
	}
	defer conn.Close()

	login, err := dlsmsv1.NewAuthServiceClient(conn).Login(ctx,
		&dlsmsv1.LoginRequest{StudentId: studentID, Password: password})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "logged in:", login.GetUser().GetStudentId())
	mine := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+login.GetAccessToken())

	seats, err := dlsmsv1.NewSeatServiceClient(conn).GetSeats(ctx, &dlsmsv1.GetSeatsRequest{AvailableOnly: true})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "seats available:", seats.GetAvailableCount())

	// Use a new request id for each reservation, and the same id for a retry: then a repeated call
	// returns the first response.
	reservations := dlsmsv1.NewReservationServiceClient(conn)
	booking := &dlsmsv1.CreateReservationRequest{
		SeatId: seat, EndTime: timestamppb.New(time.Now().Add(2 * time.Hour)), RequestId: rand.Text(),
	}
	booked, err := reservations.CreateReservation(mine, booking)
	if err != nil {
		return err
	}
	id := booked.GetReservation().GetId()
	fmt.Fprintln(os.Stdout, "booked:", booked.GetReservation().GetSeat().GetLabel(), booked.GetReservation().GetStatus())

	booking.RequestId = rand.Text()
	_, err = reservations.CreateReservation(mine, booking)
	fmt.Fprintln(os.Stdout, "booked again:", status.Code(err), reason(err))

	if _, err := reservations.CheckIn(mine, &dlsmsv1.CheckInRequest{ReservationId: id}); err != nil {
		return err
	}
	if _, err := reservations.CheckOut(mine, &dlsmsv1.CheckOutRequest{ReservationId: id}); err != nil {
		return err
	}
	return subscribe(mine, conn, id)
}

// subscribe reads notifications until the reservation is completed.
// A client that keeps running stores the last id. When the stream ends with UNAVAILABLE, it calls
// Subscribe again with that id.
func subscribe(ctx context.Context, conn *grpc.ClientConn, reservation int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := dlsmsv1.NewNotifyServiceClient(conn).Subscribe(ctx, &dlsmsv1.SubscribeRequest{AfterId: 0})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		n := message.GetNotification() // nil in a heartbeat
		if n.GetReservationId() == reservation && n.GetKind() == dlsmsv1.NotificationKind_NOTIFICATION_KIND_COMPLETED {
			fmt.Fprintln(os.Stdout, "notified:", n.GetKind())
			return nil
		}
	}
}

// reason returns the reason of a server error, such as SEAT_TAKEN, or "" for other errors.
// Without the import of errdetails, Details returns an error instead of the details.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
