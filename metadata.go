package typedrpc

import "github.com/typedrpc/typedrpc/internal/flow"

// Metadata is what travels beside a message: trace contexts, tenant names,
// versions. Keys and values are UTF-8 text; keys are compared exactly. All of
// one message's keys and values together may have at most 16 KiB (PROTOCOL.md
// section 4); a call with more fails with InvalidArgument, NotSent.
//
// It is a map, and may be converted to others, such as OpenTelemetry's MapCarrier. It is
// not safe for concurrent use.
type Metadata map[string]string

// Set sets key to value, making the map if there is none yet. It panics if m is nil.
func (m *Metadata) Set(key, value string) {
	if m == nil {
		panic("typedrpc: Metadata.Set needs a place for the map")
	}
	if *m == nil {
		*m = Metadata{}
	}
	(*m)[key] = value
}

// check refuses what the wire cannot carry.
func (m Metadata) check() *Error {
	if err := flow.CheckMeta(m); err != nil {
		return &Error{Code: InvalidArgument, Message: err.Error(), Outcome: NotSent, told: true}
	}
	return nil
}
