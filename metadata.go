package typedrpc

import (
	"iter"
	"maps"
	"unicode/utf8"

	"github.com/typedrpc/typedrpc/internal/wire"
)

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

// All ranges over the entries in no particular order.
func (m Metadata) All() iter.Seq2[string, string] { return maps.All(m) }

// size is the metadata's share of a message's bytes.
func (m Metadata) size() int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}

// check refuses what the wire cannot carry.
func (m Metadata) check() *Error {
	for k, v := range m {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return Errorf(InvalidArgument, "metadata %q is not UTF-8 text; encode binary values, for instance in base64", k)
		}
	}
	if size := m.size(); size > wire.MaxMeta {
		return Errorf(InvalidArgument, "metadata has %d bytes, at most %d can be sent", size, wire.MaxMeta)
	}
	return nil
}
