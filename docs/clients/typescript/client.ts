// A small client of DL-SMS.
// It logs in, books a seat, reads the reason of an error, and subscribes to notifications.
import { randomUUID } from 'node:crypto';
import { dirname } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';

// Every call is safe to repeat, so gRPC may retry it when the server is unavailable.
const serviceConfig = {
  methodConfig: [{
    name: ['Auth', 'Seat', 'Reservation', 'Notify'].map((name) => ({ service: `dlsms.v1.${name}Service` })),
    retryPolicy: {
      maxAttempts: 4, initialBackoff: '0.1s', maxBackoff: '1s', backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE'],
    },
  }],
};

// The protos of this repository, and google/rpc from the package google-proto-files.
const protos = process.env.DLSMS_PROTO ?? 'proto';
const google = dirname(dirname(require.resolve('google-proto-files/google/rpc/status.proto')));
const definition = loader.loadSync(
  ['auth', 'seat', 'reservation', 'notify'].map((name) => `dlsms/v1/${name}.proto`)
    .concat('google/rpc/status.proto', 'google/rpc/error_details.proto'),
  {
    includeDirs: [protos, dirname(google)],
    keepCase: true, // student_id, as in the protos
    longs: String, // an int64 does not fit into a number
    enums: String,
    defaults: true,
  },
);
const { v1 } = (grpc.loadPackageDefinition(definition) as any).dlsms;
const decode = (type: string, bytes: Buffer): any =>
  (definition[type] as loader.MessageTypeDefinition<object, object>).deserialize(bytes);

// call makes a unary call and resolves to its response.
function call(client: any, method: string, request: object, metadata = new grpc.Metadata()): Promise<any> {
  const deadline = Date.now() + 10_000; // without it a call may wait without a limit
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline }, (error: grpc.ServiceError | null, response: any) =>
      error ? reject(error) : resolve(response));
  });
}

// reason returns the reason of a server error, such as SEAT_TAKEN, or '' for other errors.
function reason(error: grpc.ServiceError): string {
  for (const bytes of error.metadata.get('grpc-status-details-bin')) {
    for (const detail of decode('google.rpc.Status', bytes as Buffer).details) {
      if (detail.type_url === 'type.googleapis.com/google.rpc.ErrorInfo') {
        return decode('google.rpc.ErrorInfo', detail.value).reason;
      }
    }
  }
  return '';
}

async function visit(address: string, studentId: string, password: string, seatId: string): Promise<void> {
  const open = (service: string) =>
    new v1[service](address, grpc.credentials.createInsecure(),
      { 'grpc.service_config': JSON.stringify(serviceConfig) });
  const [auth, seats, reservations, notify] =
    ['AuthService', 'SeatService', 'ReservationService', 'NotifyService'].map(open);

  const login = await call(auth, 'Login', { student_id: studentId, password });
  console.log('logged in:', login.user.student_id);
  const mine = new grpc.Metadata();
  mine.set('authorization', `Bearer ${login.access_token}`);

  console.log('seats available:', (await call(seats, 'GetSeats', { available_only: true })).available_count);

  // Use a new request id for each reservation, and the same id for a retry: then a repeated call
  // returns the first response.
  const end = { seconds: String(Math.floor(Date.now() / 1000) + 2 * 60 * 60) };
  const booking = { seat_id: seatId, end_time: end, request_id: randomUUID() };
  const { reservation } = await call(reservations, 'CreateReservation', booking, mine);
  console.log('booked:', reservation.seat.label, reservation.status);

  try {
    await call(reservations, 'CreateReservation', { ...booking, request_id: randomUUID() }, mine);
  } catch (error) {
    const refused = error as grpc.ServiceError;
    console.log('booked again:', grpc.status[refused.code], reason(refused));
  }

  await call(reservations, 'CheckIn', { reservation_id: reservation.id }, mine);
  await call(reservations, 'CheckOut', { reservation_id: reservation.id }, mine);

  // A client that keeps running stores the last id. When the stream ends with UNAVAILABLE, it calls
  // Subscribe again with that id.
  const stream = notify.Subscribe({ after_id: '0' }, mine, { deadline: Date.now() + 60_000 });
  stream.on('error', () => {}); // CANCELLED, because the client cancels the stream
  for await (const { notification } of stream) { // null in a heartbeat
    if (notification?.reservation_id === reservation.id && notification.kind === 'NOTIFICATION_KIND_COMPLETED') {
      console.log('notified:', notification.kind);
      stream.cancel();
      break;
    }
  }
  [auth, seats, reservations, notify].forEach((client) => client.close());
}

if (process.argv.length !== 6) {
  console.error('usage: node client.js ADDRESS STUDENT_ID PASSWORD SEAT_ID');
  process.exit(2);
}
const [address, studentId, password, seatId] = process.argv.slice(2);
visit(address, studentId, password, seatId).catch((error) => {
  console.error(error);
  process.exit(1);
});
