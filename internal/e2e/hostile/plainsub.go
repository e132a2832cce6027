package main

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Plain peers that subscribe: rpc.subscribe, PROTOCOL.md section 7.4.
var plainSubscriptions = slices.Concat([]attack{
	{name: "plainsub-unread", what: "plain peers with 890 subscriptions each to a fast stream, who read nothing", run: plainUnreadStreams},
	{name: "plainsub-keys", what: "plain peers with 890 subscriptions each to keys of 255 bytes", goroutines: 1000, run: plainKeys},
	{name: "plainsub-churn", what: "plain peers that subscribe and unsubscribe, each time to another key", run: plainChurn},
	{name: "plainsub-storm", what: "the same, ten times as many as are taken at once, and no answer is read", run: plainStorm},
	{name: "plainsub-from", what: "plain peers with 890 subscriptions each that go on behind a place of a kilobyte", run: plainFrom},
	{name: "plainsub-from-long", what: "subscriptions that go on behind a place of 4 MB", run: plainFromLong},
	{name: "plainsub-names", what: "subscriptions to what is no stream, by names short and long, unread", run: plainNames},
}, stoppedPolicies())

// policies are the topics that differ in what becomes of who is slow.
var policies = []string{"disconnect", "oldest", "newest", "latest", "wait"}

func stoppedPolicies() (all []attack) {
	for _, p := range policies {
		all = append(all, attack{name: "plainsub-stopped-" + p, what: "plain peers that stop reading a topic whose policy is " + p, run: func(a *arena) error { return a.stopped("policy." + p) }})
	}
	return all
}

// subscribe is a request for a subscription; more are members beside method and params.
func subscribe(id int, method, params, more string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"rpc.subscribe","params":{"method":%q,"params":%s%s}}`, id, method, params, more)
}

// plainPeer upgrades a plain peer, which sends n messages.
func (a *arena) plainPeer(n int, reads bool, message func(i int) string) error {
	s, err := a.upgrade(plain, nil)
	if err != nil {
		return err
	}
	if reads {
		s.drain()
	}
	for i := range n {
		if err := s.whole([]byte(message(i))); err != nil {
			return err
		}
	}
	return nil
}

func plainUnreadStreams(a *arena) error {
	a.crowd(a.size(20, 4), func(int) error {
		return a.plainPeer(890, false, func(i int) string { return subscribe(i, "pour", "[60000]", "") })
	})
	return nil
}

func plainKeys(a *arena) error {
	a.crowd(a.size(56, 5), func(c int) error {
		return a.plainPeer(a.size(890, 400), true, func(i int) string {
			return subscribe(i, "news", fmt.Sprintf(`["%08d%s"]`, c*1000+i, text(247)), "")
		})
	})
	return nil
}

func plainChurn(a *arena) error {
	a.again(8, func(c int) error {
		s, err := a.upgrade(plain, nil)
		if err != nil {
			return err
		}
		defer s.Close()
		for n := 0; !a.over(); n++ {
			for i := range 20 {
				if err := s.whole([]byte(subscribe(i, "news", fmt.Sprintf(`["%d/%d/%d"]`, c, n, i), ""))); err != nil {
					return err
				}
			}
			for range 20 {
				msg, err := s.message()
				if err != nil {
					return err
				}
				var answer struct {
					Result string `json:"result"`
				}
				if json.Unmarshal(msg, &answer) != nil {
					continue // that of an unsubscription
				}
				if err := s.whole(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"rpc.unsubscribe","params":[%q]}`, answer.Result)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return nil
}

func plainStorm(a *arena) error {
	a.again(8, func(c int) error {
		return a.plainPeer(10_000, false, func(i int) string { return subscribe(i, "news", fmt.Sprintf(`["%d/%d"]`, c, i), "") })
	})
	return nil
}

func plainFrom(a *arena) error {
	a.crowd(a.size(56, 5), func(c int) error {
		return a.plainPeer(a.size(890, 400), true, func(i int) string {
			return subscribe(i, "past", fmt.Sprintf(`["%d/%d"]`, c, i), `,"from":`+quoted(1000))
		})
	})
	return nil
}

func plainFromLong(a *arena) error {
	long := subscribe(1, "past", `["0"]`, `,"from":`+quoted(4_000_000))
	a.again(8, func(int) error {
		return a.plainPeer(10, true, func(int) string { return long })
	})
	return nil
}

func plainNames(a *arena) error {
	names := []string{"", "echo", "nobody", "slow", "deaf", "talk", "rpc.subscribe", "rpc.discover", text(255), text(256), text(100_000), "\x00", "news/../"}
	a.again(8, func(int) error {
		return a.plainPeer(10_000, false, func(i int) string { return subscribe(i, names[i%len(names)], "[1]", "") })
	})
	return nil
}

func (a *arena) stopped(topic string) error {
	s, err := a.open()
	if err != nil {
		return err
	}
	a.crowd(a.size(56, 4), func(int) error {
		return a.plainPeer(a.size(890, 200), false, func(i int) string { return subscribe(i, topic, `["0"]`, "") })
	})
	return s.demand("spread", spreadRequest{Topic: topic, Key: "0", Count: a.size(100, 20), Bytes: 60_000})
}
