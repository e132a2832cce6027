package replay

import (
	"errors"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

func TestKeyed_share(t *testing.T) {
	is := is.New(t)
	c := New(Options{Entries: 100, Bytes: 100 * overhead * 2, Share: 0.1})
	begin := func(subject string) error {
		k := NewKey()
		_, _, err := c.Begin(CallKey{subject, k.id}, [32]byte{}, 0, nil)
		return err
	}
	for range 10 {
		is.NoErr(begin("ann"))
	}
	is.Equal(codeOf(begin("ann")), status.ResourceExhausted)
	is.NoErr(begin("bob"))
	for range 89 {
		is.NoErr(begin("")) // who is nobody has no share
	}
	is.Equal(codeOf(begin("bob")), status.ResourceExhausted)
}

func TestKeyed_ages(t *testing.T) {
	is := is.New(t)
	now := time.Now()
	wall := now.Round(0) // without the monotonic clock
	is.Equal(age(now, now.Add(time.Minute)), time.Minute)
	is.Equal(age(wall.Add(-time.Hour), now), time.Hour)
	is.Equal(age(wall.Add(time.Hour), now), -time.Hour)
	is.Equal(age(time.UnixMilli(0), time.UnixMilli(maxMillis)) > 0, true) // saturates

	k := &Key{born: time.UnixMilli(0)}
	ms, err := strconv.ParseUint(k.Stamp(map[string]string{})[MetaAge], 10, 53)
	is.NoErr(err)
	is.True(ms > 0)
	k = &Key{born: time.Now().Add(5 * time.Second).Round(0)} // a clock that is a little ahead
	is.Equal(k.Stamp(map[string]string{})[MetaAge], "0")
	is.True(k.Claim("c", false) == nil)
	k = &Key{born: time.Now().Add(time.Minute).Round(0)}
	refused := k.Claim("c", false)
	is.Equal(refused.Code, status.FailedPrecondition)
	is.Equal(refused.Outcome, status.MayHaveRun)
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
			is.True(k.Claim("a", false) == nil)
			k.Stamp(map[string]string{})
			k.Release() // it did not run
			time.Sleep(time.Minute)
			is.Equal(k.Stamp(map[string]string{})[MetaAge], map[bool]string{false: "0", true: "60000"}[told])

			k = NewKey()
			is.True(k.Claim("a", false) == nil)
			if told {
				_ = k.String() // names the cache
			}
			k.Release()
			is.Equal(k.Claim("b", false) == nil, !told)
		}
	})
}

// A repeat never finds its entry gone: random times around the bounds, against
// a cache that remembers everything.
func TestKeyed_neverForgetsWhatItWouldRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		c := New(Options{TTL: 100 * time.Millisecond, Entries: 100})
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
				id = NewKey().id
				keys[id] = &known{born: time.Now()}
				all = append(all, id)
			} else {
				id = all[max(0, len(all)-1-rand.IntN(200))]
			}
			k := keys[id]
			late := time.Duration(rand.IntN(20)) * time.Millisecond // on the way, within the last fifth
			run, first, err := c.Begin(CallKey{"", id}, [32]byte{}, max(0, time.Since(k.born)-late), nil)
			switch {
			case first:
				is.True(!k.ran) // once
				k.ran = true
				c.End(run, Answer{})
			case err == nil:
				is.True(k.ran)
				replayed++
			case codeOf(err) == status.ResourceExhausted:
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
	k := NewKey()
	meta := map[string]string{MetaKey: "k", MetaAge: "0000"}
	before := maps.Clone(meta)
	got := k.Stamp(meta)
	is.Equal(meta, before)
	is.Equal(got[MetaAge], "0")
}

// What a peer says its cache is must look like one's identity.
func TestKeyed_identityOfACache(t *testing.T) {
	is := is.New(t)
	is.Equal(CheckCache("not an identity"), "")
	id := New(Options{}).id
	is.Equal(CheckCache(id), id)
}

// codeOf is the code of what Begin refused a key with.
func codeOf(err error) status.Code {
	var e *status.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}
