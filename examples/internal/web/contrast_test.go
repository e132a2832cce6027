package web

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// What the pages show can be read: 4.5 for text and 3 for the ring around what has the
// focus and for the edges of what is typed into (WCAG 2.2, 1.4.3 and 1.4.11), in both
// schemes.
func TestContrast(t *testing.T) {
	is := is.New(t)
	css, err := os.ReadFile("shared/style.css")
	is.NoErr(err)
	style := string(css)
	hover := regexp.MustCompile(`button:hover \{ filter: brightness\(([\d.]+)\); \}`).FindStringSubmatch(style)
	is.True(hover != nil)
	factor, err := strconv.ParseFloat(hover[1], 64)
	is.NoErr(err)
	is.True(strings.Contains(style, "color: #fff;\n  background: var(--blue);"))
	for i, scheme := range []string{"light", "dark"} {
		find := func(what, pattern string) rgb {
			found := regexp.MustCompile(pattern + `: light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindStringSubmatch(style)
			if found == nil {
				t.Fatalf("no colour %s", what)
			}
			return parse(found[1+i])
		}
		colour := func(name string) rgb { return find(name, "  --"+name) }
		want := func(what string, a, b rgb, least float64) {
			t.Helper()
			if c := contrast(a, b); c < least {
				t.Errorf("%s, %s: %.2f, at least %.1f is wanted", scheme, what, c, least)
			}
		}
		white, blue := rgb{1, 1, 1}, colour("blue")
		want("button", white, blue, 4.5)
		want("button under the pointer", white.times(factor), blue.times(factor), 4.5)
		for _, back := range []string{"card", "page"} {
			for _, name := range []string{"text", "soft", "link", "good", "busy", "bad"} {
				want(name+" on "+back, colour(name), colour(back), 4.5)
			}
			for n := range 8 {
				name := "hue-" + strconv.Itoa(n)
				want(name+" on "+back, find(name, `\.`+name+` \{ --hue`), colour(back), 4.5)
			}
			want("ring on "+back, blue, colour(back), 3)
			want("edge on "+back, colour("edge"), colour(back), 3)
		}
		want("error", colour("bad"), colour("bad-back"), 4.5)
		for _, name := range []string{"text", "soft"} {
			want(name+" on mine", colour(name), colour("mine"), 4.5)
		}
	}
}

type rgb [3]float64

func parse(hex string) (c rgb) {
	for i := range c {
		n, _ := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		c[i] = float64(n) / 255
	}
	return c
}

func (c rgb) times(f float64) rgb { return rgb{min(1, c[0]*f), min(1, c[1]*f), min(1, c[2]*f)} }

func (c rgb) luminance() float64 {
	for i, v := range c {
		if v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]
}

func contrast(a, b rgb) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
