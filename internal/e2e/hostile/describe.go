package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// What a server says of itself, and fingerprints of it.
var describes = []attack{
	{name: "describe-loop", what: "a document of a megabyte, asked for again and again", server: settings{describe: true}, run: func(a *arena) error { a.steady("rpc.discover", "null"); return nil }},
	{name: "describe-unread", what: "60 connections that ask for it 1,000 times each and read nothing", server: settings{describe: true}, run: describeUnread},
	{name: "describe-posts", what: "POSTs of batches that ask for it 1,024 times", server: settings{describe: true}, run: describePosts},
	{name: "prints-differ", what: "HELLOs with 2,048 fingerprints, all of which differ", server: settings{describe: true}, run: func(a *arena) error { return a.prints(2048, true) }},
	{name: "prints-strange", what: "HELLOs with 5,500 fingerprints of other names, which is what has room", server: settings{describe: true}, run: func(a *arena) error { return a.prints(5500, false) }},
	{name: "prints-many", what: "HELLOs with 100,000 fingerprints", server: settings{describe: true}, run: func(a *arena) error { return a.prints(100_000, false) }},
}

// described is a document of 2,048 names, and of a megabyte.
func described() []byte {
	var methods []string
	for i := range 2048 {
		methods = append(methods, fmt.Sprintf(`{"name":"%s","summary":%q,"x-typedrpc":{"kind":"method","handler":"client","fingerprint":"%08x"}}`, describedName(i), text(300), i))
	}
	return []byte(`{"openrpc":"1.3.2","info":{"title":"hostile","version":"1","description":` + quoted(400_000) + `},"methods":[` + strings.Join(methods, ",") + `]}`)
}

func describedName(i int) string { return fmt.Sprintf("described.%04d", i) }

func describeUnread(a *arena) error {
	a.crowd(a.size(60, 12), func(int) error {
		s, err := a.open()
		if err != nil {
			return err
		}
		return s.send(s.calls(a.size(1000, 500), "rpc.discover", wire.Unary, "null")...)
	})
	return nil
}

func describePosts(a *arena) error {
	return a.postOften(8, string(batch(1024, "rpc.discover", nil)))
}

func (a *arena) prints(n int, known bool) error {
	var all []byte
	for i := range n {
		name := fmt.Sprint("other", i)
		if known {
			name = describedName(i)
		}
		sum := sha256.Sum256([]byte(name))
		all = binary.BigEndian.AppendUint32(append(all, sum[:4]...), uint32(sum[4])<<24|0xfff000|uint32(i)&0xfff)
	}
	h := wire.HelloBody{Attempt: 1, Limits: greedy, Features: hisFeatures, Schema: base64.RawStdEncoding.EncodeToString(all)}
	a.again(16, func(int) error {
		s, err := a.upgrade(binaryJSON, nil)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.hello(h); err != nil {
			return err
		}
		a.note("were welcomed", 1)
		return nil
	})
	return nil
}
