package ts

import (
	"go/doc/comment"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// width is how long a line of a comment may be.
const width = 100

// doc writes a Go comment as TSDoc, where there are types.
func (p *printer) doc(text string) {
	if p.form == javascript {
		return
	}
	lines := docLines(text, width-2*p.depth)
	switch len(lines) {
	case 0:
	case 1:
		p.line("/** %s */", lines[0])
	default:
		p.line("/**")
		for _, l := range lines {
			p.line("%s", strings.TrimRight(" * "+l, " "))
		}
		p.line(" */")
	}
}

// note writes a comment of our own, where there are types.
func (p *printer) note(text string) {
	if p.form != javascript {
		p.line("/** %s */", text)
	}
}

// tag is what TSDoc would take for a tag.
var tag = regexp.MustCompile(`(^|[\s({])@([A-Za-z])`)

// numbered is what stands before an item of a list that counts.
var numbered = regexp.MustCompile(`^\d+\.$`)

// docLines is a Go comment as lines of Markdown.
func docLines(text string, width int) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var parser comment.Parser
	parsed := parser.Parse(text)
	for _, b := range parsed.Content {
		if c, ok := b.(*comment.Code); ok {
			c.Text = strings.ReplaceAll(c.Text, "*/", "*\\/")
		}
	}
	var out []string
	for i, b := range parsed.Content {
		var printer comment.Printer
		printer.DocLinkBaseURL = "https://pkg.go.dev"
		printer.HeadingLevel = 2
		printer.HeadingID = func(*comment.Heading) string { return "" }
		md := strings.TrimRight(string(printer.Markdown(&comment.Doc{Content: []comment.Block{b}, Links: parsed.Links})), "\n")
		if i > 0 {
			out = append(out, "")
		}
		if _, ok := b.(*comment.Code); ok {
			out = append(out, "```")
			for l := range strings.SplitSeq(md, "\n") {
				out = append(out, strings.TrimPrefix(l, "\t"))
			}
			out = append(out, "```")
			continue
		}
		if rest, ok := strings.CutPrefix(md, "Deprecated: "); ok {
			md = "\x00deprecated " + rest
		}
		md = strings.ReplaceAll(md, "*/", "*\\/")
		md = tag.ReplaceAllString(md, `$1\@$2`)
		md = strings.ReplaceAll(md, "\x00", "@")
		for l := range strings.SplitSeq(md, "\n") {
			out = append(out, wrap(l, width)...)
		}
	}
	return out
}

// wrap breaks a line at its spaces.
func wrap(line string, width int) []string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	hang := indent // of the lines behind the first
	if first, _, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (first == "-" || numbered.MatchString(first)) {
		hang += strings.Repeat(" ", len(first)+1)
	}
	var out []string
	current := ""
	for word := range strings.FieldsSeq(line) {
		switch {
		case current == "":
			current = indent + word
		case utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > width:
			out = append(out, current)
			current = hang + word
		default:
			current += " " + word
		}
	}
	return append(out, current)
}

// lower is a Go name as TypeScript spells one of a value: HTTPGet is httpGet.
func lower(name string) string {
	runes := []rune(strings.TrimLeft(name, "_"))
	if len(runes) == 0 {
		return "_"
	}
	for i := range runes {
		if !unicode.IsUpper(runes[i]) {
			break
		}
		if i > 0 && i+1 < len(runes) && unicode.IsLower(runes[i+1]) {
			break
		}
		runes[i] = unicode.ToLower(runes[i])
	}
	return string(runes)
}

// keywords are what no constant of a module can be called.
var keywords = words(`arguments as async await break case catch class const continue debugger default delete do else
	enum eval export extends false finally for function if implements import in instanceof interface let new null
	package private protected public return static super switch this throw true try typeof undefined NaN Infinity
	var void while with yield`)

func words(s string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		out[w] = true
	}
	return out
}
