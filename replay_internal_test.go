package typedrpc

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/testkit"
)

func TestKeyed_share(t *testing.T) {
	is := is.New(t)
	c := NewReplayCache(ReplayOptions{Entries: 100, Bytes: 100 * replayOverhead * 2, Share: 0.1})
	begin := func(subject string) error {
		k := NewKey().s
		_, _, err := c.begin(replayKey{subject, k.id}, [32]byte{}, 0, nil)
		return err
	}
	for range 10 {
		is.NoErr(begin("ann"))
	}
	is.Equal(CodeOf(begin("ann")), ResourceExhausted)
	is.NoErr(begin("bob"))
	for range 89 {
		is.NoErr(begin("")) // who is nobody has no share
	}
	is.Equal(CodeOf(begin("bob")), ResourceExhausted)
}

func TestKeyed_ages(t *testing.T) {
	is := is.New(t)
	now := time.Now()
	wall := now.Round(0) // without the monotonic clock
	is.Equal(age(now, now.Add(time.Minute)), time.Minute)
	is.Equal(age(wall.Add(-time.Hour), now), time.Hour)
	is.Equal(age(wall.Add(time.Hour), now), -time.Hour)
	is.Equal(age(time.UnixMilli(0), time.UnixMilli(maxMillis)) > 0, true) // saturates

	k := &keyState{born: time.UnixMilli(0)}
	ms, err := strconv.ParseUint(k.stamp(Metadata{})[metaAge], 10, 53)
	is.NoErr(err)
	is.True(ms > 0)
	k = &keyState{born: time.Now().Add(5 * time.Second).Round(0)} // a clock that is a little ahead
	is.Equal(k.stamp(map[string]string{})[metaAge], "0")
	is.True(k.claim("c", false) == nil)
	k = &keyState{born: time.Now().Add(time.Minute).Round(0)}
	refused := k.claim("c", false)
	is.Equal(refused.Code, FailedPrecondition)
	is.Equal(refused.Outcome, MayHaveRun)
}

// A key that was told to somebody may have been used there.
func TestKey_toldKeysKeepTheirAgeAndTheirCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		for _, told := range []bool{false, true} {
			k := NewKey()
			if told {
				_ = k.String()
			}
			is.True(k.s.claim("a", false) == nil)
			k.s.stamp(map[string]string{})
			k.s.release() // it did not run
			time.Sleep(time.Minute)
			is.Equal(k.s.stamp(map[string]string{})[metaAge], map[bool]string{false: "0", true: "60000"}[told])

			k = NewKey()
			is.True(k.s.claim("a", false) == nil)
			if told {
				_ = k.String() // names the cache
			}
			k.s.release()
			is.Equal(k.s.claim("b", false) == nil, !told)
		}
	})
}

// A repeat never finds its entry gone: random times around the bounds, against
// a cache that remembers everything.
func TestKeyed_neverForgetsWhatItWouldRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		c := NewReplayCache(ReplayOptions{TTL: 100 * time.Millisecond, Entries: 100})
		type known struct {
			born time.Time
			ran  bool
		}
		keys := map[[16]byte]*known{}
		var all [][16]byte
		refused, replayed, forgotten := 0, 0, 0
		for range testkit.Size(50_000, 50_000) {
			time.Sleep(time.Duration(rand.IntN(600)) * time.Microsecond)
			var id [16]byte
			if len(all) == 0 || rand.IntN(3) == 0 {
				id = newKeyState().id
				keys[id] = &known{born: time.Now()}
				all = append(all, id)
			} else {
				id = all[max(0, len(all)-1-rand.IntN(200))]
			}
			k := keys[id]
			late := time.Duration(rand.IntN(20)) * time.Millisecond // on the way, within the last fifth
			run, first, err := c.begin(replayKey{"", id}, [32]byte{}, max(0, time.Since(k.born)-late), nil)
			switch {
			case first:
				is.True(!k.ran) // once
				k.ran = true
				c.end(run, answer{})
			case err == nil:
				is.True(k.ran)
				replayed++
			case CodeOf(err) == ResourceExhausted:
				is.True(!k.ran) // what ran is known
				refused++
			default:
				forgotten++
			}
			c.mu.Lock()
			is.True(len(c.entries) <= 100)
			c.mu.Unlock()
		}
		is.True(refused > 0 && replayed > 0 && forgotten > 0) // the bounds were reached
	})
}

// What is written for a lost session must not change under its writer's eyes.
func TestKeyed_stampLeavesTheOldMetadata(t *testing.T) {
	is := is.New(t)
	k := newKeyState()
	meta := map[string]string{metaKey: "k", metaAge: "0000"}
	before := maps.Clone(meta)
	got := k.stamp(meta)
	is.Equal(meta, before)
	is.Equal(got[metaAge], "0")
}

// What a peer says its cache is must look like one's identity.
func TestKeyed_identityOfACache(t *testing.T) {
	is := is.New(t)
	is.Equal(checkCache("not an identity"), "")
	id := NewReplayCache(ReplayOptions{}).id
	is.Equal(checkCache(id), id)
}
