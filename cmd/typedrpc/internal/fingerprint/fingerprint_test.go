package fingerprint_test

import (
	"fmt"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/fingerprint"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// api is one with a method whose request is an order: an enumeration, and itself, in it.
func api() (*model.API, *model.Named, *model.Named, *model.Decl) {
	color := &model.Named{Name: "Color", Type: &model.Type{Kind: model.String}, Enum: []model.Const{{Name: "Red", Value: `"red"`}, {Name: "Blue", Value: `"blue"`}}}
	order := &model.Named{Name: "Order"}
	order.Type = &model.Type{Kind: model.Object, Fields: []model.Field{
		{Name: "id", Type: &model.Type{Kind: model.Number, Format: "int32"}},
		{Name: "color", Type: &model.Type{Kind: model.Ref, Ref: color}},
		{Name: "parts", Optional: true, Type: &model.Type{Kind: model.Array, Elem: &model.Type{Kind: model.Ref, Ref: order}}},
	}}
	d := &model.Decl{Kind: model.Method, Name: "orders.put", Var: "Put", Request: &model.Type{Kind: model.Ref, Ref: order}, Response: &model.Type{Kind: model.String}}
	return &model.API{Decls: []*model.Decl{d}, Types: []*model.Named{color, order}}, color, order, d
}

func TestDecl(t *testing.T) {
	a, _, _, d := api()
	before := fingerprint.Of(a).Decl(d)
	for name, change := range map[string]func(a *model.API, color, order *model.Named, d *model.Decl){
		"nothing": func(*model.API, *model.Named, *model.Named, *model.Decl) {},
		"comments": func(_ *model.API, c, o *model.Named, d *model.Decl) {
			c.Doc, o.Doc, d.Doc, o.Type.Fields[0].Doc = "a", "b", "c", "d"
		},
		"names of Go": func(_ *model.API, c, o *model.Named, d *model.Decl) {
			c.Name, o.Go, d.Var = "Colour", "x.Order", "PutOrder"
		},
		"traits": func(_ *model.API, _, _ *model.Named, d *model.Decl) {
			d.Idempotent, d.MaxSize, d.Handler = true, 7, "server"
		},
		"another type": func(a *model.API, _, _ *model.Named, _ *model.Decl) {
			a.Types = append(a.Types, &model.Named{Name: "A", Type: &model.Type{Kind: model.Bool}})
		},
		"order of members":   func(_ *model.API, _, o *model.Named, _ *model.Decl) { f := o.Type.Fields; f[0], f[1] = f[1], f[0] },
		"order of constants": func(_ *model.API, c, _ *model.Named, _ *model.Decl) { c.Enum[0], c.Enum[1] = c.Enum[1], c.Enum[0] },
		"a twin": func(a *model.API, c, o *model.Named, _ *model.Decl) { // of another name, with the same in it
			twin := *c
			twin.Name = "Twin"
			a.Types = append(a.Types, &twin)
			o.Type.Fields[1].Type = &model.Type{Kind: model.Ref, Ref: &twin}
			a.Types = a.Types[1:]
		},
	} {
		t.Run("same after "+name, func(t *testing.T) {
			is := is.New(t)
			a, color, order, d := api()
			change(a, color, order, d)
			is.Equal(fingerprint.Of(a).Decl(d), before)
		})
	}
	seen := map[string]string{before: "before"}
	for name, change := range map[string]func(color, order *model.Named, d *model.Decl){
		"kind":             func(_, _ *model.Named, d *model.Decl) { d.Kind = model.Upload },
		"params":           func(_, _ *model.Named, d *model.Decl) { d.Params = []string{"id"} },
		"order of params":  func(_, _ *model.Named, d *model.Decl) { d.Params = []string{"id", "color"} },
		"order of params.": func(_, _ *model.Named, d *model.Decl) { d.Params = []string{"color", "id"} },
		"response":         func(_, _ *model.Named, d *model.Decl) { d.Response = &model.Type{Kind: model.Bool} },
		"null":             func(_, _ *model.Named, d *model.Decl) { d.Response.Null = true },
		"items up":         func(_, _ *model.Named, d *model.Decl) { d.Up = d.Response },
		"items down":       func(_, _ *model.Named, d *model.Decl) { d.Down = d.Response },
		"a member more": func(_, o *model.Named, _ *model.Decl) {
			o.Type.Fields = append(o.Type.Fields, model.Field{Name: "x", Type: &model.Type{}})
		},
		"a member less":    func(_, o *model.Named, _ *model.Decl) { o.Type.Fields = o.Type.Fields[:2] },
		"another name":     func(_, o *model.Named, _ *model.Decl) { o.Type.Fields[0].Name = "ID" },
		"optional":         func(_, o *model.Named, _ *model.Decl) { o.Type.Fields[0].Optional = true },
		"a wider number":   func(_, o *model.Named, _ *model.Decl) { o.Type.Fields[0].Type.Format = "int64" },
		"one constant":     func(c, _ *model.Named, _ *model.Decl) { c.Enum = c.Enum[:1] },
		"null by its name": func(c, _ *model.Named, _ *model.Decl) { c.Null = true },
		"no recursion": func(c, o *model.Named, _ *model.Decl) {
			o.Type.Fields[2].Type.Elem = &model.Type{Kind: model.Ref, Ref: c}
		},
	} {
		t.Run("another after "+name, func(t *testing.T) {
			is := is.New(t)
			a, color, order, d := api()
			change(color, order, d)
			sum := fingerprint.Of(a).Decl(d)
			is.Equal(len(sum), 8)
			is.Equal(seen[sum], "") // the one that has it
			seen[sum] = name
		})
	}
}

// Types in which each name is used twice are as many as their names.
func TestOf_wide(t *testing.T) {
	is := is.New(t)
	a := &model.API{}
	var below *model.Named
	for i := range 40 {
		x := &model.Named{Name: fmt.Sprint("T", i), Type: &model.Type{Kind: model.Bool}}
		if below != nil {
			x.Type = &model.Type{Kind: model.Object, Fields: []model.Field{{Name: "a", Type: &model.Type{Kind: model.Ref, Ref: below}}, {Name: "b", Type: &model.Type{Kind: model.Ref, Ref: below}}}}
		}
		a.Types = append(a.Types, x)
		below = x
	}
	is.Equal(len(fingerprint.Of(a).Decl(&model.Decl{Request: &model.Type{Kind: model.Ref, Ref: below}})), 8)
}
