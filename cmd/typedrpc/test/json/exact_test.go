package json

import (
	"encoding/json"
	"testing"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/json/exact"
)

// TestExact refuses what encoding/json lets pass, and nothing else.
func TestExact(t *testing.T) {
	for data, ok := range map[string]bool{
		`{}`: true, `null`: true, `{"text":"ü","inner":{"n":1},"map":{"a":{"n":1},"b":null},"byInt":{"1":"x"},"list":["a"],"raw":"AQI="}`: true, `{"time":"2026-12-01T08:30:15Z"}`: true,
		`{"quoted":"\"q\""}`: true, `{"text":null}`: true,
		`{"Text":"x"}`: false, `{"other":1}`: false, `{"text":"a","text":"b"}`: false, `{"inner":{"n":1,"n":2}}`: false, `{"inner":{"x":1}}`: false,
		`{"map":{"a":{},"a":{}}}`: false, `{"byInt":{"1":"x","01":"y"}}`: false, "{\"text\":\"\xff\"}": false, `{"text":"\ud800"}`: false, `{"list":["\udc00"]}`: false,
		`{"quoted":"\"\\ud800\""}`: false, "{\"map\":{\"\xff\":{}}}": false,
	} {
		var m exact.Message
		if err := m.UnmarshalJSON([]byte(data)); (err == nil) != ok {
			t.Errorf("%s: %v", data, err)
		}
		type plain exact.Message
		var p plain
		if err := json.Unmarshal([]byte(data), &p); err != nil {
			t.Errorf("%s: encoding/json does not let it pass: %v", data, err)
		}
		if ok {
			got, err := m.AppendJSON(nil)
			if want, _ := json.Marshal(p); err != nil || string(got) != string(want) {
				t.Errorf("%s comes back as %s, %v", data, got, err)
			}
		}
	}
	for _, m := range []exact.Message{{Text: "\xff"}, {Quoted: "\xff"}, {Map: map[string]exact.Inner{"\xff": {}}}, {List: []string{"\xff"}}} {
		if got, err := m.AppendJSON(nil); err == nil {
			t.Errorf("%s", got)
		}
	}
	// A map that is there is kept, as encoding/json does.
	m := exact.Message{Map: map[string]exact.Inner{"a": {N: 1}}}
	if err := m.UnmarshalJSON([]byte(`{"map":{"b":{"n":2},"a":{}}}`)); err != nil || len(m.Map) != 2 || m.Map["a"].N != 0 {
		t.Errorf("%v, %v", m.Map, err)
	}
}
