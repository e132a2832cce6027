package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/examples/dashboard/api"
	"github.com/typedrpc/typedrpc/topic"
)

var goods = [api.Goods]string{"Plums", "Figs", "Quinces", "Cherries", "Mirabelles", "Medlars"}

// kept are the ticks that are remembered: a minute of them.
const kept = int(time.Minute / api.TickEvery)

// market makes up prices and trades. The names are invented, and the numbers by which
// the page proves that it has all of them are not.
type market struct {
	hub *topic.Hub

	mu     sync.Mutex
	prices [api.Goods]float64
	ticks  []api.Tick    // the latest, at most kept
	came   chan struct{} // closed when there are more
	traded int           // number of the latest trade
}

func newMarket(hub *topic.Hub) *market {
	return &market{hub: hub, prices: [api.Goods]float64{320, 540, 410, 680, 460, 250}, came: make(chan struct{})}
}

// run makes ticks and trades until ctx ends.
func (m *market) run(ctx context.Context) error {
	start := time.Now()
	origin := int(start.UnixMilli() / api.TickEvery.Milliseconds())
	ticker := time.NewTicker(api.TickEvery)
	defer ticker.Stop()
	for n := origin; ; {
		// None is left out when the ticker was late.
		for newest := origin + int(time.Since(start)/api.TickEvery); n <= newest; n++ {
			if err := m.tick(ctx, n, start.Add(time.Duration(n-origin)*api.TickEvery)); err != nil {
				return fmt.Errorf("the market has stopped: %w", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

const ticksPerTrade = int(api.TradeEvery / api.TickEvery)

func (m *market) tick(ctx context.Context, n int, at time.Time) error {
	m.mu.Lock()
	t := api.Tick{N: n, At: int(at.UnixMilli())}
	for i := range m.prices {
		p := m.prices[i] * (1 + (rand.Float64()-0.5)/60)
		m.prices[i] = min(max(p, 100), 1000)
		t.Prices[i] = int(m.prices[i])
	}
	if len(m.ticks) == kept {
		m.ticks = append(m.ticks[:0], m.ticks[kept/10:]...)
	}
	m.ticks = append(m.ticks, t)
	close(m.came)
	m.came = make(chan struct{})
	trade := n%ticksPerTrade == 0
	if trade {
		m.traded = n / ticksPerTrade
	}
	m.mu.Unlock()
	if !trade {
		return nil
	}
	good := rand.IntN(api.Goods)
	return topic.Publish(ctx, m.hub, api.Trades, string(api.Fruit), api.Trade{
		N: n / ticksPerTrade, At: t.At, Good: good, Price: t.Prices[good], Amount: 1 + rand.IntN(40),
	})
}

// since returns the ticks behind the one with number after, and a channel that is closed
// when there are more.
func (m *market) since(after int) ([]api.Tick, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := len(m.ticks)
	for from > 0 && m.ticks[from-1].N > after {
		from--
	}
	return append([]api.Tick(nil), m.ticks[from:]...), m.came
}

// newest returns the numbers of the latest tick and the latest trade.
func (m *market) newest() (tick, trade int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ticks) > 0 {
		tick = m.ticks[len(m.ticks)-1].N
	}
	return tick, m.traded
}

// follow sends the ticks that a page asks for, until ctx ends.
func (m *market) follow(ctx context.Context, from api.From, send func(api.Tick) error) error {
	if err := open(from.Market); err != nil {
		return err
	}
	if from.Market != api.Fruit {
		<-ctx.Done() // nobody trades
		return ctx.Err()
	}
	v := visitorFrom(ctx)
	after := from.After
	if after == 0 {
		newest, _ := m.newest()
		after = newest - from.Seconds*int(time.Second/api.TickEvery)
	}
	for {
		ticks, came := m.since(after)
		for _, t := range ticks {
			if err := send(t); err != nil {
				return err
			}
			after = t.N
			v.sent(t.N)
		}
		select {
		case <-came:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open says why a market shows nothing.
func open(m api.Market) error {
	switch m {
	case api.Fruit, api.Nuts:
		return nil
	case api.Fish:
		return api.Closed.Errorf(api.Hours{Opens: "on Friday at five in the morning"}, "the fish market is closed")
	}
	return notFound(m)
}
