// Package sum has what the tests send.
package sum

//go:generate go run github.com/tinylib/msgp@v1.6.5 -tests=false -io=false

// Sum is a message that is used by value.
type Sum struct {
	Number int64    `msg:"number"`
	Text   string   `msg:"text"`
	Parts  []Sum    `msg:"parts"`
	Wide   [][4]int `msg:"wide"`
}

// Pointed is one that is used by pointer.
type Pointed struct {
	Number int64  `msg:"number"`
	Text   string `msg:"text"`
}
