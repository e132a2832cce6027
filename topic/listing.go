package topic

import (
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/seam"
)

// What the inspector uses of this package, see package seam.
func init() {
	seam.List = func(h any, text string, most int) (seam.Listing, error) {
		x, err := h.(*Hub).use()
		if err != nil {
			return seam.Listing{}, err
		}
		return listing(x.List(text, most)), nil
	}
}

func listing(l hub.Listing) seam.Listing {
	rows := make([]seam.Listed, len(l.Rows))
	for i, r := range l.Rows {
		rows[i] = seam.Listed(r)
	}
	return seam.Listing{Keys: l.Keys, Found: l.Found, Subscribers: l.Subscribers, History: l.History, Rows: rows}
}
