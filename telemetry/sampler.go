package telemetry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Samplers are the valid values of OTEL_TRACES_SAMPLER.
var Samplers = []string{
	"always_on", "always_off", "traceidratio",
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

// sampler decides whether the trace of a call is sampled. All spans of the call follow the decision.
//
// It draws a random number, also for traceidratio: a client could choose trace ids whose hash is
// sampled, and so multiply the cost of traces. It decides before a span is made, because a span that
// is not sampled takes 1 µs.
type sampler struct {
	ratio        float64 // the sampled part of the calls
	trustsClient bool    // the decision of a client that sent one counts instead
}

func newSampler(name string, ratio float64) (sampler, error) {
	if !slices.Contains(Samplers, name) {
		return sampler{}, fmt.Errorf("OTEL_TRACES_SAMPLER must be one of %s", strings.Join(Samplers, ", "))
	}
	root, trustsClient := strings.CutPrefix(name, "parentbased_")
	switch root {
	case "always_on":
		ratio = 1
	case "always_off":
		ratio = 0
	}
	return sampler{ratio, trustsClient}, nil
}

// sample decides about a call. client returns the span of the client, if it sent one.
func (s sampler) sample(client func() trace.SpanContext) bool {
	if s.trustsClient {
		if span := client(); span.IsValid() {
			return span.IsSampled()
		}
	}
	return rand.Float64() < s.ratio
}
