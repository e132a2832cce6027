package openrpc

import (
	"encoding/json"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/model"
)

// schema is the part of JSON Schema, draft 7, that messages need.
type schema struct {
	Ref         string             `json:"$ref,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        types              `json:"type,omitempty"`
	Format      string             `json:"format,omitempty"`
	Enum        []json.RawMessage  `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	AnyOf       []*schema          `json:"anyOf,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Order       []string           `json:"x-order,omitempty"` // of the properties, as Go has them
	Required    []string           `json:"required,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	MinItems    *int64             `json:"minItems,omitempty"`
	MaxItems    *int64             `json:"maxItems,omitempty"`
	Additional  *schema            `json:"additionalProperties,omitempty"`
	Names       *schema            `json:"propertyNames,omitempty"`
	Encoding    string             `json:"contentEncoding,omitempty"`
	TypeScript  string             `json:"x-typescript,omitempty"`
	Go          string             `json:"x-go,omitempty"`
	Constants   []constant         `json:"x-constants,omitempty"`
}

type constant struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Value       json.RawMessage `json:"value"`
}

// types are one type, or several.
type types []string

func (t types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

func namedSchema(t *model.Named) *schema {
	s := schemaOf(t.Type)
	if s.Ref != "" { // beside which nothing counts
		s = &schema{AnyOf: []*schema{s}}
	}
	s.Title, s.Description, s.Go = t.Name, clean(t.Doc), t.Go
	seen := map[string]bool{}
	for _, c := range t.Enum {
		s.Constants = append(s.Constants, constant{c.Name, clean(c.Doc), json.RawMessage(c.Value)})
		if !t.Open && !seen[c.Value] {
			s.Enum = append(s.Enum, json.RawMessage(c.Value))
		}
		seen[c.Value] = true
	}
	return s
}

// schemaOf is the schema of a type, nil if there is none.
func schemaOf(t *model.Type) *schema {
	if t == nil {
		return nil
	}
	s := notNull(t)
	if !t.Null {
		return s
	}
	if len(s.Type) == 1 && len(s.Enum) == 0 {
		s.Type = append(s.Type, "null")
		return s
	}
	if s.Ref == "" && len(s.Type) == 0 && len(s.Enum) == 0 && len(s.AnyOf) == 0 {
		return s // anything, null too
	}
	return &schema{AnyOf: []*schema{s, {Type: types{"null"}}}}
}

func notNull(t *model.Type) *schema {
	switch t.Kind {
	case model.Bool:
		return &schema{Type: types{"boolean"}}
	case model.String:
		if t.Format == "byte" {
			return &schema{Type: types{"string"}, Encoding: "base64"}
		}
		return &schema{Type: types{"string"}, Format: t.Format}
	case model.Number:
		if t.Format == "double" || t.Format == "float" {
			return &schema{Type: types{"number"}, Format: t.Format}
		}
		return &schema{Type: types{"integer"}, Format: t.Format}
	case model.QuotedNumber:
		if t.Format == "double" || t.Format == "float" {
			return &schema{Type: types{"string"}, Format: t.Format}
		}
		return &schema{Type: types{"string"}, Format: t.Format, Pattern: "^-?[0-9]+$"}
	case model.QuotedBool:
		return &schema{Type: types{"string"}, Enum: []json.RawMessage{json.RawMessage(`"true"`), json.RawMessage(`"false"`)}}
	case model.Array:
		return &schema{Type: types{"array"}, Items: schemaOf(t.Elem)}
	case model.Tuple:
		return &schema{Type: types{"array"}, Items: schemaOf(t.Elem), MinItems: &t.Len, MaxItems: &t.Len}
	case model.Map:
		s := &schema{Type: types{"object"}, Additional: schemaOf(t.Elem)}
		if t.Key != nil && t.Key.Kind == model.Ref {
			s.Names = schemaOf(t.Key)
		}
		return s
	case model.Object:
		return object(t)
	case model.Ref:
		return &schema{Ref: "#/components/schemas/" + t.Ref.Name}
	case model.Mapped:
		return &schema{TypeScript: t.Text}
	case model.Bytes:
		return &schema{TypeScript: "Uint8Array", Description: "bytes that no codec sees"}
	}
	return &schema{}
}

func object(t *model.Type) *schema {
	s := &schema{Type: types{"object"}, Properties: map[string]*schema{}}
	for _, f := range t.Fields {
		p := schemaOf(f.Type)
		if f.Doc != "" {
			if p.Ref != "" {
				p = &schema{AnyOf: []*schema{p}}
			}
			p.Description = clean(f.Doc)
		}
		s.Properties[f.Name] = p
		s.Order = append(s.Order, f.Name)
		if !f.Optional {
			s.Required = append(s.Required, f.Name)
		}
	}
	return s
}
