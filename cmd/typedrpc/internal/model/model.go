// Package model is what a Go API says, without Go: declarations and the JSON of
// their messages. Package read makes it of packages, packages ts and openrpc write it.
package model

import "time"

// API is all that some packages declare.
type API struct {
	Packages []string // their names, in the order of their paths
	Title    string
	Decls    []*Decl  // by name
	Faults   []*Fault // by name
	SignIns  []*SignIn
	Types    []*Named // by TypeScript's name

	// Sent is the API as the packages alone say it, without what flags say of its types;
	// nil: they say nothing.
	Sent *API
}

// Kind is what a declaration is of.
type Kind string

// The kinds.
const (
	Method       Kind = "method"
	Notification Kind = "notification"
	ServerStream Kind = "serverStream"
	ClientStream Kind = "clientStream"
	BidiStream   Kind = "bidiStream"
	Topic        Kind = "topic"
	Upload       Kind = "upload"
	Download     Kind = "download"
)

// Decl is a declaration that has a name on the wire.
type Decl struct {
	Kind Kind
	Name string   // on the wire
	Var  string   // the Go variable
	Path []string // where it is in the client object
	Doc  string
	Pos  string // file:line

	Request  *Type // a notification's message; a topic has none
	Up       *Type // what the caller of a stream sends
	Down     *Type // what it receives; a topic's messages
	Response *Type

	Handler string // "client" or "server": who handles it, "": nobody said

	Idempotent  bool
	Keyed       bool
	Serial      bool
	Safe        bool
	Restartable bool
	Timeout     time.Duration
	MaxSize     int64
	Params      []string

	Presence   bool
	Policy     string
	History    int64
	HistoryAge time.Duration
	MaxQueued  int64
}

// Fault is a declared error.
type Fault struct {
	Name, Var, Doc, Pos string
	Code                int64
	Data                *Type
}

// SignIn is how clients say who they are.
type SignIn struct {
	Var, Doc, Pos string
	Creds, Reply  *Type
}

// TypeKind is what the JSON of a type looks like.
type TypeKind uint8

// The kinds of JSON.
const (
	Unknown TypeKind = iota // any JSON
	Bool
	String       // Format says of what
	Number       // Format says which: int32, double, …
	QuotedNumber // a number in a string
	QuotedBool
	Array
	Tuple  // Len elements
	Map    // an object with any keys; Key may be an enumeration's
	Object // an object with Fields
	Ref    // another type, by its name
	Mapped // Text, as somebody said
	Bytes  // bytes that no codec sees
)

// Type is the JSON of a message, or of a part of one.
type Type struct {
	Kind   TypeKind
	Null   bool // or null
	Elem   *Type
	Key    *Type
	Len    int64
	Fields []Field
	Ref    *Named
	Text   string
	Format string
}

// Field is a member of an object.
type Field struct {
	Name     string
	Doc      string
	Type     *Type
	Optional bool // it may be missing
}

// Named is a type with a name.
type Named struct {
	Name string // TypeScript's
	Go   string // Go's, with the path of its package
	Doc  string
	Pos  string
	Type *Type
	Enum []Const // all its values, if it has no others; with Open, some of them

	Open      bool // the values are flags, which may be combined
	Recursive bool // it contains itself
	Null      bool // Go's nil is among its values: null, wherever it is referred to

	Package string // the package's name
}

// Const is a value that has a name.
type Const struct {
	Name, Doc string
	Value     string // JSON
}

// Resolve is the type behind names.
func (t *Type) Resolve() *Type {
	for t != nil && t.Kind == Ref {
		t = t.Ref.Type
	}
	return t
}

// IsEmpty reports whether t is an object without members: a message that says nothing.
func (t *Type) IsEmpty() bool {
	r := t.Resolve()
	return r != nil && !t.Null && r.Kind == Object && len(r.Fields) == 0
}

// Messages are the types of d's messages, in the order of its constructor.
func (d *Decl) Messages() []*Type {
	var all []*Type
	for _, t := range []*Type{d.Request, d.Up, d.Down, d.Response} {
		if t != nil {
			all = append(all, t)
		}
	}
	return all
}
