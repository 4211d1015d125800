package main

// The texts of docs/comparison, in Markdown. They hold for any figures: statements about figures are
// in compare_report.go.
const (
	studyIntroduction = `This page is for a reader who knows the slides of the original design.
They compare a gRPC monolith with REST microservices by requests a second, P95 and P99.
This page repeats that measurement, and measures what explains it.
Run ` + "`make compare`" + ` to write it for your machine. It takes less than 25 minutes on an idle machine.

All figures are from one run of one commit on one machine, with rounds in turns.
Rates and CPU are means over the rounds, and latencies are medians of the rounds.
Compare the figures of this page with each other, and not with those of another page or machine:
the speed of a shared machine changes by a factor of two from day to day.
`

	claimsHead = `The figures of the slides are those that the [benchmarks](../benchmarks/README.md) quote.
Their machine is not known here, so only ratios can be compared.
`

	claimsWhy = `1. Four things differ at once: load generator, protocol, topology (with a gateway) and cache.
   ghz takes %s of CPU a call and hey %s, on the same cores.
   If ghz took no more than hey, D would have %.1f times A's requests/s.
   The rest of the factor of the slides is not explained here.
2. ghz and hey send the next request when they have the answer.
   So the mean latency is the number of clients divided by requests a second, for any protocol.
   If all cores are busy, requests a second do not grow, and twice as many clients wait twice as long.
   This explains the rise, and not the height: the machine of the slides is not known.
3. One known cause: by default, nginx ends a connection after 1,000 requests.
   In an earlier test, 155 to 194 of 20,000 calls of ghz failed then.
   [nginx.conf](../../deploy/nginx.conf) raises this limit.
   Whether it is the cause in the original is not known, and it does not explain 3.4%%.
4. A list in the cache is deleted when a booking is acknowledged.
   This does not help if a request that read the older list stores it afterwards,
   or if a reservation begins, because that is no request.
   The slides do not say when the original deletes a list.
5. Requests a second × CPU of a call = busy cores.
   So the table of the slides follows from the [CPU of a call](#cpu-of-a-call), of which it shows only the sum.
   [Latency at equal rates](#latency-at-equal-rates) shows the subjects under the same load.
`

	subjectTable = `All subjects have the same commit, machine, seats (the 49 of the demo library) and Postgres.
The monolith and the microservices have a database each in that Postgres, and a Redis each.
The Go runtime of each process of the services uses a third of the cores, and at least one (GOMAXPROCS).

| subject | what it is | proxy | seats come from |
|---|---|---|---|
| A | gRPC monolith: three equal replicas | nginx | the read model in memory |
| B | HTTP/JSON monolith: the same three replicas | nginx | the read model |
| B304 | B; the client sends ` + "`If-None-Match`" + ` with the ETag of its last answer | nginx | the read model |
| C | microservices: auth, seat, reservation, notify and worker, a process each | nginx, by path | the read model |
| D | C with a gateway and a cache like those of the slides | a Go gateway | Redis, for 60 s |
| stored, gRPC | stored bytes of that answer, from three processes without rules, logs and metrics | nginx | memory |
| stored, JSON | the same over HTTP/JSON | nginx | memory |

The gateway of D is [a program of the benchmark](../../bench/gateway/gateway.go), written for this comparison.
It keeps the list of available seats of a branch in Redis under ` + "`seats:available:{branch}`" + `,
and deletes it before it passes on the answer to a booking or a cancellation.
`

	throughputHead = `The load generators are those of the slides: ghz v0.120.0 for gRPC and hey v0.1.4 for HTTP.
Their versions and options in the original are not known. Here they run with their defaults,
with two exceptions in favour of gRPC: ghz opens a connection for ten clients instead of one for all,
and its request is encoded in advance. hey opens a connection for each client.
Each client sends its next request as soon as it has the answer.

No seat is booked meanwhile. So D and B304 have their best case:
every answer of D comes from Redis, and every answer of B304 is a 304.
In the plots of requests a second and of P95, the dotted lines join the two published figures of the original,
those with 50 and with 200 clients. They are from another machine.
`

	cpuHead = `CPU is user and system time in µs a call, by process, and the load generator is one of them.
All processes share the cores of one machine, so requests a second × CPU of a call = busy cores.
If all cores are busy, a subject with half the CPU of a call answers twice as many requests.
So this table explains the one above, and says which process to change.
*Sum* is that of all processes, *system* is the sum without the load generator,
and *cores* is the sum × requests/s.
`

	latencyHead = `One load generator for both protocols sends all subjects the same requests at the same times,
those of a Poisson process.
It does not wait for answers, and a latency counts from the time at which the request was due.
So a pause of a subject counts for all requests that were due in it (no coordinated omission).
`

	freshHead = `An answer is stale if it does not show a booking or a cancellation
that was acknowledged before the request was sent.
Users book and cancel, each a seat of its own, and read the list of the branch after each answer.

- *Answers*: 24 users do so all the time.
  Each change deletes the list in the cache, so a wrong list is soon replaced.
- *Bursts*: 24 users book at the same moment, and no change follows. The list is read until it is right.
- *After the start*: a user books a seat for a second later.
  The column says how long after that time the list still showed the seat as available. It is one check.
`

	bookedHead = `Clients book free seats, with the same load generator for both protocols.
Each client sends its next booking as soon as it has the answer.
Bookings that wait at the same time share a transaction. So with more clients a booking takes less CPU.
`

	streamedHead = `Clients keep ` + "`GET /v1/seats:watch`" + ` open.
One seat after the other is booked and cancelled, five changes a second.
A latency counts from the request of the change to the event at a client.
The streams of B are spread over three replicas; in C, one process serves them all.
`

	rushedHead = `Clients read seats at 200 a second over HTTP,
first alone and then while 100 clients log in again and again.
A login costs about a quarter of a second of a core for bcrypt, so the logins take all cores that they can get.
A process hashes on half of its cores, and at least on one.
So here the monolith hashes up to three passwords at a time, and auth apart one: it also admits fewer logins.
The load generator is the one of [latency at equal rates](#latency-at-equal-rates).
*Auth apart* is C, with auth in a process of its own.
` + "`make run-microservices`" + ` gives this process a lower weight of the CPU with nice;
a cgroup does the same in systemd or Kubernetes, and ` + "`cpu_shares`" + ` in Docker Compose.
Compare the last two rows to see what the weight adds.
`

	decodedHead = `The load generators do not decode answers, or not in the same way. Real clients do.
These are the times of Go's packages for the answer with 49 seats.
`

	studyMethod = `The first two goals are about the CPU of a request that is small in any case.
Most of it is that of HTTP in nginx and in the replica, and a 304 needs this, too: it saves only the body.
Beyond that, a replica checks, logs and counts each request, and refreshes the read model;
a process that only sends stored bytes does not.

## Limits of this comparison

- All processes run on one machine. Between machines, each call also pays for the network.
- Microservices can be scaled, released and stopped one by one.
  One machine shows only that one of them slows down the others less, and not what the rest is worth to a team.
- The services share one database. Services with a database each would need another design for bookings.
- No subject uses TLS.
- The clients are in Go. Other languages have other ratios between protobuf and JSON.
- No subject has microservices over gRPC, or the gRPC stream of seats.

[figures.csv](figures.csv) has all figures. CPU of 0 means less than 0.5 µs a call.
`
)
