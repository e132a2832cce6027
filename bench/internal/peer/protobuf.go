package peer

import (
	"fmt"
	"io"

	"github.com/typedrpc/typedrpc/bench/internal/msg"
	"github.com/typedrpc/typedrpc/bench/internal/pb"
)

// What the peers that speak protobuf have in common.

func pbRequest(r msg.Request) *pb.Request { return &pb.Request{A: r.A, B: r.B, Tag: r.Tag} }
func pbReply(r *pb.Reply) msg.Reply       { return msg.Reply{Sum: r.GetSum(), Text: r.GetText()} }
func pbAnswer(r *pb.Request) *pb.Reply    { return &pb.Reply{Sum: r.GetA() + r.GetB(), Text: msg.Text} }

// piece is how large the messages of a transfer are.
const piece = 32 << 10

// sendItems sends a stream of n items, each a message of its own, as a program would.
func sendItems(n int64, send func(*pb.Data) error) error {
	for range n {
		if err := send(&pb.Data{Data: nothing[:msg.ItemSize]}); err != nil {
			return err
		}
	}
	return nil
}

// sendPieces sends n bytes in pieces.
func sendPieces(n int64, send func(*pb.Data) error) error {
	for n > 0 {
		size := min(n, piece)
		if err := send(&pb.Data{Data: nothing[:size]}); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

// drain receives a stream to its end, and counts.
func drain(recv func() (*pb.Data, error)) (messages, bytes int, err error) {
	for {
		m, err := recv()
		if err == io.EOF {
			return messages, bytes, nil
		}
		if err != nil {
			return messages, bytes, err
		}
		messages++
		bytes += len(m.GetData())
	}
}

func arrived(n, size int, err error) error {
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes of %d arrived", n, size)
	}
	return err
}
