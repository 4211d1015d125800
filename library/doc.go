// Package library is the domain: the nouns of a seat reservation system, the rules that need no
// database, and the errors that a client may act on. It imports only the standard library, so every
// other package may import it.
//
// # A reservation
//
// Each arrow is one event of the change log. EXTENDED, REMINDED, SHORTENED and RESCHEDULED keep the
// status. A sweep of a closure makes the transitions CANCELLED, DECLINED, COMPLETED and SHORTENED.
//
//	 OFFERED                       RESERVED
//	    |                              |
//	    v            CLAIMED           v           CHECKED_IN
//	  HELD --------------------> CONFIRMED --------------------> CHECKED_IN
//	    |                          |     |                           |
//	    | DECLINED                 |     | NO_SHOW                   | CHECKED_OUT
//	    | OFFER_EXPIRED  CANCELLED |     |                           | COMPLETED
//	    v                          |     v                           v
//	CANCELLED <--------------------+   NO_SHOW                   COMPLETED
//
// A reservation with status HELD, CONFIRMED or CHECKED_IN occupies its seat. No two such
// reservations of a seat overlap.
//
// # A waitlist entry
//
//	           the seat and the user are free             ClaimOffer
//	--> WAITING ------------------------------> OFFERED --------------> CLAIMED
//	     |   |                                   |   |
//	     |   | LeaveWaitlist       LeaveWaitlist |   | the offer expired
//	     |   +--------------> LEFT <-------------+   |
//	     | the window has passed                     |
//	     +----------------> EXPIRED <----------------+
//
// An entry that becomes OFFERED gets a reservation with status HELD; the two change together. If a
// sweep of a closure ends the offer, the entry is WAITING again.
package library
