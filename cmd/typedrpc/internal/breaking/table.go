// Package breaking says what of a change between two schemas, as "typedrpc schema" writes
// them, hurts programs that were built from the other one.
package breaking

// Verdict is what a change does to one side.
type Verdict uint8

// The verdicts.
const (
	// Safe: nothing.
	Safe Verdict = iota
	// Notice: the newer side has no use yet, at an older one, of what is new.
	Notice
	// Breaks: what was right before fails, or means something else.
	Breaks
)

func (v Verdict) String() string { return [...]string{"safe", "notice", "breaks"}[v] }

// MarshalText has a verdict as a word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Rule is a kind of change.
type Rule struct {
	ID     string
	Text   string  // what has changed
	Old    Verdict // for an old caller at a new handler
	New    Verdict // for a new caller at an old handler
	Advice string  // "" where both are safe
}

// What to do, where several rules say the same.
const (
	keepBoth   = "declare the new one by another name, and keep this one until nobody calls it"
	callers    = "update the callers first"
	handlers   = "update the handlers first"
	addInstead = "keep the member and add another one, optional"
	another    = "add another member for it, optional, and keep this one until nobody needs it"
	unknowns   = "update those who read it first, or have them take values that they do not know"
)

// Rules are all kinds of change, and what they do: the only place that says so. A
// request is all that a caller sends: requests, its items, credentials. A reply is all that it gets:
// responses, items, messages of topics, replies to credentials, faults' data.
var Rules = []Rule{
	{"name-removed", "it is gone", Breaks, Safe, "keep it until nobody calls it any more"},
	{"name-added", "it is new", Safe, Notice, "have the handlers there before it is called"},
	{"kind-changed", "it is of another kind", Breaks, Breaks, keepBoth},
	{"handler-changed", "the other side handles it", Breaks, Breaks, keepBoth},
	{"deprecated", "it is deprecated", Safe, Safe, ""},
	{"topic-key-changed", "its key is another", Breaks, Breaks, keepBoth},

	{"idempotent-lost", "it is not Idempotent any more, and callers that were built before repeat it", Breaks, Safe, callers},
	{"idempotent-gained", "it is Idempotent now", Safe, Notice, handlers + ", if it was not so before"},
	{"keyed-lost", "it is not Keyed any more, and runs again when old callers repeat it", Breaks, Safe, callers},
	{"keyed-gained", "it is Keyed now", Safe, Notice, handlers + ": old ones remember no keys, and run again what is repeated"},
	{"serial-lost", "it is not Serial any more: calls overtake each other", Breaks, Safe, "have the callers wait for one before they make the next"},
	{"serial-gained", "it is Serial now", Safe, Notice, handlers + ", if callers rely on the order"},
	{"safe-lost", "it is not Safe any more: it cannot be read with a GET", Breaks, Safe, "keep Safe until nobody reads it so"},
	{"safe-gained", "it is Safe now", Safe, Notice, handlers + ", before it is read with a GET"},
	{"timeout-shorter", "its Timeout is shorter", Safe, Breaks, "see that old handlers are fast enough, or " + handlers},
	{"timeout-longer", "its Timeout is longer", Safe, Safe, ""},
	{"size-smaller", "its MaxSize is smaller", Breaks, Breaks, "keep the size until nobody sends as much"},
	{"size-larger", "its MaxSize is larger", Safe, Notice, "send more when both sides are new"},
	{"params-added", "params may be a list now", Safe, Notice, handlers},
	{"params-removed", "params may not be a list any more", Breaks, Safe, "keep Params"},
	{"params-appended", "lists of params may be longer", Safe, Notice, handlers},
	{"params-changed", "lists of params mean something else", Breaks, Breaks, "append to Params, and leave the others where they are"},
	{"restartable-lost", "it is not Restartable any more: loops end at a gap", Safe, Breaks, "have the callers open it again"},
	{"restartable-gained", "it is Restartable now", Safe, Safe, ""},
	{"presence-lost", "nobody is told any more who subscribes", Breaks, Safe, callers},
	{"presence-gained", "it has presence now", Safe, Notice, handlers},
	{"policy-changed", "slow subscribers are treated otherwise", Breaks, Safe, "see that all subscribers know what the policy does, or add a topic"},
	{"history-shorter", "new subscribers get fewer messages of the past", Breaks, Safe, "keep the history, or have subscribers fetch the rest"},
	{"history-longer", "new subscribers get more messages of the past", Safe, Safe, ""},
	{"history-age-shorter", "new subscribers get a shorter past", Breaks, Safe, "keep the history, or have subscribers fetch the rest"},
	{"history-age-longer", "new subscribers get a longer past", Safe, Safe, ""},
	{"queue-smaller", "less may be queued for a subscriber", Breaks, Safe, "keep MaxQueued"},
	{"queue-larger", "more may be queued for a subscriber", Safe, Safe, ""},

	{"fault-removed", "the fault is gone, and who waits for it waits in vain", Breaks, Safe, callers},
	{"fault-added", "the fault is new", Safe, Safe, ""},
	{"fault-code-changed", "the fault has another code", Breaks, Breaks, "declare another fault"},
	{"sign-in-removed", "there is no sign-in any more", Breaks, Safe, "take credentials until nobody sends them"},
	{"sign-in-added", "there is a sign-in now", Breaks, Safe, "let in who has no credentials until all clients have some"},

	{"request-member-added", "an optional member is new", Safe, Notice, handlers},
	{"request-required-added", "a member is new that callers must send", Breaks, Safe, "make it optional (omitempty, omitzero)"},
	{"request-member-removed", "a member is gone, and what old callers say in it is ignored", Breaks, Safe, "keep it until nobody sends it"},
	{"request-required-removed", "a member is gone, which old handlers need", Breaks, Breaks, "make it optional, and keep it until nobody sends it"},
	{"request-member-renamed", "a member has another name", Breaks, Breaks, addInstead},
	{"request-now-required", "a member must be sent now", Breaks, Safe, "have the handlers take requests without it"},
	{"request-now-optional", "a member may be left out now", Safe, Notice, handlers},
	{"request-null-allowed", "it may be null now", Safe, Notice, handlers},
	{"request-null-refused", "it may not be null any more", Breaks, Safe, "take null until nobody sends it"},
	{"request-type-changed", "it is of another type", Breaks, Breaks, another},
	{"request-type-widened", "it may be more than before", Safe, Notice, handlers},
	{"request-type-narrowed", "it may be less than before", Breaks, Safe, "take what was taken until nobody sends it"},
	{"request-format-changed", "the same type means something else", Breaks, Breaks, another},
	{"request-value-added", "it may have another value", Safe, Notice, handlers},
	{"request-value-removed", "it may have one value less", Breaks, Safe, "take the value until nobody sends it"},
	{"request-length-changed", "it has another number of elements", Breaks, Breaks, another},

	{"reply-member-added", "an optional member is new", Safe, Safe, ""},
	{"reply-required-added", "a member is new, which old handlers do not send", Safe, Notice, "expect it when the handlers are new"},
	{"reply-member-removed", "an optional member is gone", Notice, Safe, "see what callers do without it"},
	{"reply-required-removed", "a member is gone that callers get", Breaks, Safe, "keep it until nobody reads it"},
	{"reply-member-renamed", "a member has another name", Breaks, Breaks, addInstead},
	{"reply-now-required", "a member is always there now", Safe, Notice, "expect it when the handlers are new"},
	{"reply-now-optional", "a member may be missing now", Breaks, Safe, "send it until nobody needs it"},
	{"reply-null-allowed", "it may be null now", Breaks, Safe, callers},
	{"reply-null-refused", "it is never null any more", Safe, Notice, "expect that when the handlers are new"},
	{"reply-type-changed", "it is of another type", Breaks, Breaks, another},
	{"reply-type-widened", "it may be more than callers take", Breaks, Safe, another},
	{"reply-type-narrowed", "new callers take less of it than old handlers send", Safe, Breaks, handlers},
	{"reply-format-changed", "the same type means something else", Breaks, Breaks, another},
	{"reply-value-added", "it may have a value that old callers do not know", Breaks, Safe, unknowns},
	{"reply-value-removed", "it has one value less", Safe, Notice, "old handlers may still send it"},
	{"reply-length-changed", "it has another number of elements", Breaks, Breaks, another},
}

// rules are Rules by their ids.
var rules = func() map[string]*Rule {
	all := map[string]*Rule{}
	for i := range Rules {
		all[Rules[i].ID] = &Rules[i]
	}
	return all
}()
