package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// What gRPC's tutorial has in route_guide.proto, declared in Go:
//
//	service RouteGuide {
//	  rpc GetFeature(Point) returns (Feature) {}
//	  rpc ListFeatures(Rectangle) returns (stream Feature) {}
//	  rpc RecordRoute(stream Point) returns (RouteSummary) {}
//	  rpc RouteChat(stream RouteNote) returns (stream RouteNote) {}
//	}
type (
	Point     struct{ Latitude, Longitude int32 }
	Rectangle struct{ Lo, Hi Point }
	Feature   struct {
		Name     string
		Location Point
	}
	RouteNote struct {
		Location Point
		Message  string
	}
	RouteSummary struct{ Points, Features int32 }
)

var (
	GetFeature   = typedrpc.NewMethod[Point, Feature]("RouteGuide.GetFeature", typedrpc.Idempotent)
	ListFeatures = typedrpc.NewServerStream[Rectangle, Feature]("RouteGuide.ListFeatures")
	RecordRoute  = typedrpc.NewClientStream[struct{}, Point, RouteSummary]("RouteGuide.RecordRoute")
	RouteChat    = typedrpc.NewBidiStream[struct{}, RouteNote, RouteNote]("RouteGuide.RouteChat")
)

// routeGuide is what was embedded with UnimplementedRouteGuideServer: what is not
// registered is Unimplemented here, too.
type routeGuide struct {
	features []Feature

	mu    sync.Mutex
	notes map[Point][]RouteNote
}

// register is what pb.RegisterRouteGuideServer was.
func (g *routeGuide) register(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, GetFeature, g.getFeature)
	typedrpc.Handle(mux, ListFeatures, g.listFeatures)
	typedrpc.Handle(mux, RecordRoute, g.recordRoute)
	typedrpc.Handle(mux, RouteChat, g.routeChat)
}

func (g *routeGuide) getFeature(ctx context.Context, p Point) (Feature, error) {
	r := typedrpc.RequestFrom(ctx)
	if r.Metadata["language"] == "la" { // was metadata.FromIncomingContext
		return Feature{}, typedrpc.Errorf(typedrpc.Unimplemented, "no Latin here") // was status.Error
	}
	r.ReplyMetadata.Set("source", "survey of 2025") // was grpc.SetHeader
	i := slices.IndexFunc(g.features, func(f Feature) bool { return f.Location == p })
	if i < 0 {
		return Feature{}, typedrpc.NotFound // was status.Error(codes.NotFound, …)
	}
	return g.features[i], nil
}

func (g *routeGuide) listFeatures(_ context.Context, in Rectangle, send func(Feature) error) error {
	for _, f := range g.features {
		p, lo, hi := f.Location, in.Lo, in.Hi
		if p.Latitude < lo.Latitude || p.Latitude > hi.Latitude || p.Longitude < lo.Longitude || p.Longitude > hi.Longitude {
			continue
		}
		if err := send(f); err != nil { // was stream.Send(f)
			return err
		}
	}
	return nil
}

func (g *routeGuide) recordRoute(_ context.Context, _ struct{}, points iter.Seq2[Point, error]) (RouteSummary, error) {
	var s RouteSummary
	for p, err := range points { // was stream.Recv until io.EOF
		if err != nil {
			return s, err
		}
		s.Points++
		if slices.ContainsFunc(g.features, func(f Feature) bool { return f.Location == p }) {
			s.Features++
		}
	}
	return s, nil // was stream.SendAndClose(&s)
}

func (g *routeGuide) routeChat(_ context.Context, _ struct{}, stream *typedrpc.Stream[RouteNote, RouteNote]) error {
	for note, err := range stream.All() {
		if err != nil {
			return err
		}
		g.mu.Lock()
		g.notes[note.Location] = append(g.notes[note.Location], note)
		notes := slices.Clone(g.notes[note.Location])
		g.mu.Unlock()
		for _, n := range notes {
			if err := stream.Send(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// A service that was a gRPC one: the four kinds of calls, status codes, metadata and
// deadlines. docs/grpc.md has a table of the terms.
func Example_grpc() {
	g := &routeGuide{notes: map[Point][]RouteNote{}, features: []Feature{
		{"Patriots Path", Point{407838351, -746143763}},
		{"Berkshire Valley", Point{413628156, -749015468}},
	}}
	mux := typedrpc.NewMux()
	g.register(mux)
	hs := httptest.NewServer(&typedrpc.Server{Mux: mux}) // was grpc.NewServer and Serve
	defer hs.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // deadlines travel, as gRPC's
	defer cancel()
	conn, err := typedrpc.Dial(ctx, hs.URL, nil) // was grpc.NewClient and pb.NewRouteGuideClient
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	// Unary, with the header; and a status.
	var header typedrpc.Metadata
	feature, err := typedrpc.Call(ctx, conn.With(typedrpc.CallOptions{ReplyMetadata: &header}), GetFeature, Point{407838351, -746143763})
	fmt.Println(feature.Name, err, "by the", header["source"])
	_, err = typedrpc.Call(ctx, conn, GetFeature, Point{})
	fmt.Println(typedrpc.CodeOf(err), errors.Is(err, typedrpc.NotFound)) // was status.Code(err) == codes.NotFound
	latin := conn.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"language": "la"}})
	_, err = typedrpc.Call(ctx, latin, GetFeature, Point{}) // was metadata.AppendToOutgoingContext
	fmt.Println(err)

	// Server streaming.
	for f, err := range typedrpc.Receive(ctx, conn, ListFeatures, Rectangle{Lo: Point{400000000, -750000000}, Hi: Point{410000000, -740000000}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("in the rectangle:", f.Name)
	}

	// Client streaming.
	route := typedrpc.Items(slices.Values([]Point{{1, 1}, {413628156, -749015468}, {2, 2}}))
	fmt.Println(typedrpc.SendAll(ctx, conn, RecordRoute, struct{}{}, route))

	// Both ways.
	chat, err := typedrpc.Open(ctx, conn, RouteChat, struct{}{})
	if err != nil {
		log.Fatal(err)
	}
	defer chat.Cancel()
	for _, text := range []string{"first", "second"} {
		if err := chat.Send(RouteNote{Message: text}); err != nil {
			log.Fatal(err)
		}
	}
	chat.CloseSend()
	var notes []string
	for note, err := range chat.All() { // until the handler returns
		if err != nil {
			log.Fatal(err)
		}
		notes = append(notes, note.Message)
	}
	fmt.Println(strings.Join(notes, ", "))
	// Output:
	// Patriots Path <nil> by the survey of 2025
	// not found true
	// unimplemented: no Latin here
	// in the rectangle: Patriots Path
	// {3 1} <nil>
	// first, first, second
}
