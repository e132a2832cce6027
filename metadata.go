package typedrpc

import "github.com/typedrpc/typedrpc/internal/flow"

// Metadata is what travels beside a message: trace contexts, tenant names,
// versions. Keys and values are UTF-8 text; keys are compared exactly. All of
// one message's keys and values together may have at most 16 KiB (PROTOCOL.md
// section 4); a call with more fails with InvalidArgument, NotSent.
//
// A Metadata is not safe for concurrent use. Get, Set and Keys are what an
// OpenTelemetry TextMapCarrier needs.
type Metadata map[string]string

// Get returns the value of key, "" if there is none. A nil Metadata is empty.
func (m Metadata) Get(key string) string { return m[key] }

// Set sets key to value, making the map if there is none yet.
func (m *Metadata) Set(key, value string) {
	if *m == nil {
		*m = Metadata{}
	}
	(*m)[key] = value
}

// Keys returns the keys in no particular order.
func (m Metadata) Keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// check refuses what the wire cannot carry.
func (m Metadata) check() *Error {
	if err := flow.CheckMeta(m); err != nil {
		return &Error{Code: InvalidArgument, Message: err.Error(), Outcome: NotSent, told: true}
	}
	return nil
}
