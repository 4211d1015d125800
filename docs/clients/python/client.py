"""A small client of DL-SMS.

It logs in, books a seat, reads the reason of an error, and subscribes to notifications.
"""

import datetime
import json
import sys
import uuid

import grpc
from google.rpc import error_details_pb2, status_pb2

from dlsms.v1 import auth_pb2, auth_pb2_grpc, notify_pb2, notify_pb2_grpc
from dlsms.v1 import reservation_pb2, reservation_pb2_grpc, seat_pb2, seat_pb2_grpc

# Every call is safe to repeat, so gRPC may retry it when the server is unavailable.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": "dlsms.v1.AuthService"},
                {"service": "dlsms.v1.SeatService"},
                {"service": "dlsms.v1.ReservationService"},
                {"service": "dlsms.v1.NotifyService"},
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

TIMEOUT = 10  # seconds; without it a call may wait without a limit


def reason(error):
    """Returns the reason of a server error, such as SEAT_TAKEN, or "" for other errors."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


def visit(address, student_id, password, seat_id):
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG))]
    with grpc.insecure_channel(address, options) as channel:
        login = auth_pb2_grpc.AuthServiceStub(channel).Login(
            auth_pb2.LoginRequest(student_id=student_id, password=password), timeout=TIMEOUT
        )
        print("logged in:", login.user.student_id)
        mine = [("authorization", "Bearer " + login.access_token)]

        seats = seat_pb2_grpc.SeatServiceStub(channel).GetSeats(
            seat_pb2.GetSeatsRequest(available_only=True), timeout=TIMEOUT
        )
        print("seats available:", seats.available_count)

        # Use a new request id for each reservation, and the same id for a retry: then a repeated call
        # returns the first response.
        reservations = reservation_pb2_grpc.ReservationServiceStub(channel)
        booking = reservation_pb2.CreateReservationRequest(seat_id=seat_id, request_id=str(uuid.uuid4()))
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=2)
        booking.end_time.FromDatetime(end)
        booked = reservations.CreateReservation(booking, metadata=mine, timeout=TIMEOUT).reservation
        print("booked:", booked.seat.label, reservation_pb2.ReservationStatus.Name(booked.status))

        booking.request_id = str(uuid.uuid4())
        try:
            reservations.CreateReservation(booking, metadata=mine, timeout=TIMEOUT)
        except grpc.RpcError as error:
            print("booked again:", error.code().name, reason(error))

        this = {"reservation_id": booked.id}
        reservations.CheckIn(reservation_pb2.CheckInRequest(**this), metadata=mine, timeout=TIMEOUT)
        reservations.CheckOut(reservation_pb2.CheckOutRequest(**this), metadata=mine, timeout=TIMEOUT)

        # A client that keeps running stores the last id. When the stream ends with UNAVAILABLE, it calls
        # Subscribe again with that id.
        stream = notify_pb2_grpc.NotifyServiceStub(channel).Subscribe(
            notify_pb2.SubscribeRequest(after_id=0), metadata=mine, timeout=60
        )
        for message in stream:
            notification = message.notification  # empty in a heartbeat
            if (
                notification.reservation_id == booked.id
                and notification.kind == notify_pb2.NOTIFICATION_KIND_COMPLETED
            ):
                print("notified:", notify_pb2.NotificationKind.Name(notification.kind))
                stream.cancel()
                break


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit("usage: client.py ADDRESS STUDENT_ID PASSWORD SEAT_ID")
    visit(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
