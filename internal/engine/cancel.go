package engine

import (
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// cancelled takes a CANCEL.
func (c *Conn) cancelled(f *wire.Frame) error {
	c.mu.Lock()
	var in *Inbound
	if c.dialect == session.Plain {
		// Ids of plain peers may repeat: the newest is meant.
		for id, other := range c.inbound {
			if wire.SameID(other.rawID, f.RawID) && (in == nil || id > in.id) && !other.subscribedLocked() {
				in = other
			}
		}
		if in != nil {
			in.lsp = f.Code == wire.CodeCancelled
		}
	} else {
		in = c.inbound[f.ID]
	}
	var err error
	if in == nil && c.dialect != session.Plain && f.ID > c.lastIn {
		err = c.offendedLocked()
	}
	partial := in != nil && in.partial
	if partial {
		c.dropPartLocked(partID{in.id, true}) // no more parts will come
	} else if in != nil && in.stream != nil {
		in.stream.callerLeftLocked()
	}
	c.mu.Unlock()
	switch {
	case partial:
		return c.refuse(in, status.Errorf(status.Canceled, "canceled"))
	case in != nil:
		in.giveUp()
	}
	return err
}
