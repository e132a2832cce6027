package hub

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// A message is paid for once while anybody holds it, and not at all afterwards,
// in whatever order they let go.
func TestHolding_paidOnce(t *testing.T) {
	for seed := range uint64(100) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(seed, 2))
		ledger := flow.NewLedger(1 << 40)
		var queues [5][]*encoding
		var all [5]*holder
		var servers [5]flow.Account
		come := func(i int) {
			all[i] = &holder{account: &account{server: &servers[i]}}
		}
		for i := range queues {
			servers[i].Open(ledger, nil)
			come(i)
		}
		held := func() (sum int64) {
			once := map[*encoding]bool{}
			for _, q := range queues {
				for _, e := range q {
					if !once[e] {
						once[e] = true
						sum += int64(e.cost())
					}
				}
			}
			return sum
		}
		for n := range uint64(200) {
			m := newMessage("", make([]byte, rng.IntN(100)))
			m.number = n + 1
			for _, i := range rng.Perm(5)[:rng.IntN(6)] {
				m.hold(all[i])
				queues[i] = append(queues[i], &m.encoding)
			}
			for range rng.IntN(6) {
				i := rng.IntN(5)
				if rng.IntN(20) == 0 {
					all[i].leave()
					for _, e := range queues[i] {
						e.letGo(all[i])
					}
					all[i].left()
					queues[i] = nil
					come(i)
				}
				if len(queues[i]) > 0 {
					queues[i][0].letGo(all[i])
					queues[i] = queues[i][1:]
				}
			}
			sum := int64(0)
			for i := range servers {
				is.True(servers[i].Used() >= 0)
				sum += servers[i].Used()
			}
			is.Equal(sum, held())
		}
	}
}

// Those who let go at the same time leave nothing unpaid and nothing paid.
func TestHolding_atOnce(t *testing.T) {
	is := is.New(t)
	ledger := flow.NewLedger(1 << 40)
	for range 200 {
		var messages []*message
		for n := range uint64(20) {
			m := newMessage("", nil)
			m.number = n + 1
			messages = append(messages, m)
		}
		var servers [4]flow.Account
		var all [4]*holder
		for i := range all {
			servers[i].Open(ledger, nil)
			all[i] = &holder{account: &account{server: &servers[i]}}
			for _, m := range messages {
				m.hold(all[i])
			}
		}
		var wg sync.WaitGroup
		for i, h := range all {
			wg.Go(func() {
				if i%2 == 0 {
					h.leave()
				}
				for _, m := range messages {
					m.letGo(h)
				}
				h.left()
			})
		}
		wg.Wait()
		for i := range servers {
			is.Equal(servers[i].Used(), int64(0))
		}
		for _, m := range messages {
			is.True(m.holders == nil)
		}
	}
}
