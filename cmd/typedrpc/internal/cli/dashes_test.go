package cli

import (
	"strings"
	"testing"

	"github.com/matryer/is"
)

// One dash is as good as two, and what is no flag stays as it is.
func TestTwoDashes(t *testing.T) {
	for _, tt := range [][2]string{
		{"ts -strict -o x.ts ./api", "ts --strict -o x.ts ./api"},
		{"ts --strict -o=x.ts", "ts --strict -o=x.ts"},
		{"ts -o -strict -check", "ts -o -strict --check"},             // the value of -o
		{"ts -import -x -map -y -zz", "ts --import -x --map -y --zz"}, // values, and a flag that is none
		{"ts -import=-x -check", "ts --import=-x --check"},
		{"schema -title ts -check", "schema --title ts --check"}, // a value that is a command's name
		{"ts -- -strict", "ts -- -strict"},
		{"ts - -strict", "ts - --strict"},
		{"-help", "--help"},
		{"ts -h", "ts -h"},
		{"call u m -4 -json", "call u m --json -- -4"}, // a number
		{"call -4 u -token -5 -- -m", "call --token -5 -- -4 u -m"},
	} {
		t.Run(tt[0], func(t *testing.T) {
			is := is.New(t)
			is.Equal(strings.Join(twoDashes((&Env{}).root(), strings.Fields(tt[0])), " "), tt[1])
		})
	}
}
