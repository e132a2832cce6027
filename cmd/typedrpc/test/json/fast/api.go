package awkward

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward/other"
)

// A method for each type, which answers what it is asked.
var (
	EchoBool                = typedrpc.NewMethod[bool, bool]("echo.bool")
	EchoInt                 = typedrpc.NewMethod[int, int]("echo.int")
	EchoInt32               = typedrpc.NewMethod[int32, int32]("echo.int32")
	EchoUint8               = typedrpc.NewMethod[uint8, uint8]("echo.uint8")
	EchoFloat               = typedrpc.NewMethod[float64, float64]("echo.float")
	EchoText                = typedrpc.NewMethod[string, string]("echo.text")
	EchoBytes               = typedrpc.NewMethod[[]byte, []byte]("echo.bytes")
	EchoStrings             = typedrpc.NewMethod[[]string, []string]("echo.strings")
	EchoMapOfInts           = typedrpc.NewMethod[map[string]int, map[string]int]("echo.mapOfInts")
	EchoPointer             = typedrpc.NewMethod[*string, *string]("echo.pointer")
	EchoPointerToStruct     = typedrpc.NewMethod[*Empty, *Empty]("echo.pointerToStruct")
	EchoNothing             = typedrpc.NewMethod[struct{}, struct{}]("echo.nothing")
	EchoAnything            = typedrpc.NewMethod[any, any]("echo.anything")
	EchoRawJSON             = typedrpc.NewMethod[json.RawMessage, json.RawMessage]("echo.rawJSON")
	EchoTime                = typedrpc.NewMethod[time.Time, time.Time]("echo.time")
	EchoDuration            = typedrpc.NewMethod[time.Duration, time.Duration]("echo.duration")
	EchoMaybeTime           = typedrpc.NewMethod[*time.Time, *time.Time]("echo.maybeTime")
	EchoNumbers             = typedrpc.NewMethod[[3]int, [3]int]("echo.numbers")
	EchoAddr                = typedrpc.NewMethod[netip.Addr, netip.Addr]("echo.addr")
	EchoURL                 = typedrpc.NewMethod[url.URL, url.URL]("echo.uRL")
	EchoScalars             = typedrpc.NewMethod[Scalars, Scalars]("echo.scalars")
	EchoUntagged            = typedrpc.NewMethod[Untagged, Untagged]("echo.untagged")
	EchoNames               = typedrpc.NewMethod[Names, Names]("echo.names")
	EchoOmitted             = typedrpc.NewMethod[Omitted, Omitted]("echo.omitted")
	EchoOmittedZero         = typedrpc.NewMethod[OmittedZero, OmittedZero]("echo.omittedZero")
	EchoQuoted              = typedrpc.NewMethod[Quoted, Quoted]("echo.quoted")
	EchoPointers            = typedrpc.NewMethod[Pointers, Pointers]("echo.pointers")
	EchoEmpty               = typedrpc.NewMethod[Empty, Empty]("echo.empty")
	EchoCollections         = typedrpc.NewMethod[Collections, Collections]("echo.collections")
	EchoBinary              = typedrpc.NewMethod[Binary, Binary]("echo.binary")
	EchoTimes               = typedrpc.NewMethod[Times, Times]("echo.times")
	EchoStamp               = typedrpc.NewMethod[Stamp, Stamp]("echo.stamp")
	EchoStampedEvent        = typedrpc.NewMethod[StampedEvent, StampedEvent]("echo.stampedEvent")
	EchoRawness             = typedrpc.NewMethod[Rawness, Rawness]("echo.rawness")
	EchoColor               = typedrpc.NewMethod[Color, Color]("echo.color")
	EchoKind                = typedrpc.NewMethod[Kind, Kind]("echo.kind")
	EchoFlags               = typedrpc.NewMethod[Flags, Flags]("echo.flags")
	EchoRatio               = typedrpc.NewMethod[Ratio, Ratio]("echo.ratio")
	EchoSwitch              = typedrpc.NewMethod[Switch, Switch]("echo.switch")
	EchoLevel               = typedrpc.NewMethod[other.Level, other.Level]("echo.level")
	EchoEnums               = typedrpc.NewMethod[Enums, Enums]("echo.enums")
	EchoCelsius             = typedrpc.NewMethod[Celsius, Celsius]("echo.celsius")
	EchoTags                = typedrpc.NewMethod[Tags, Tags]("echo.tags")
	EchoIndex               = typedrpc.NewMethod[Index, Index]("echo.index")
	EchoTable               = typedrpc.NewMethod[Table, Table]("echo.table")
	EchoNamedFields         = typedrpc.NewMethod[NamedFields, NamedFields]("echo.namedFields")
	EchoOtherKind           = typedrpc.NewMethod[other.Kind, other.Kind]("echo.otherKind")
	EchoEmbedding           = typedrpc.NewMethod[Embedding, Embedding]("echo.embedding")
	EchoEmbeddingPointer    = typedrpc.NewMethod[EmbeddingPointer, EmbeddingPointer]("echo.embeddingPointer")
	EchoEmbeddingNamed      = typedrpc.NewMethod[EmbeddingNamed, EmbeddingNamed]("echo.embeddingNamed")
	EchoEmbeddingUnexported = typedrpc.NewMethod[EmbeddingUnexported, EmbeddingUnexported]("echo.embeddingUnexported")
	EchoEmbeddingScalar     = typedrpc.NewMethod[EmbeddingScalar, EmbeddingScalar]("echo.embeddingScalar")
	EchoAmbiguous           = typedrpc.NewMethod[Ambiguous, Ambiguous]("echo.ambiguous")
	EchoShadowing           = typedrpc.NewMethod[Shadowing, Shadowing]("echo.shadowing")
	EchoTagWins             = typedrpc.NewMethod[TagWins, TagWins]("echo.tagWins")
	EchoDeepest             = typedrpc.NewMethod[Deepest, Deepest]("echo.deepest")
	EchoEmbeddingInterface  = typedrpc.NewMethod[EmbeddingInterface, EmbeddingInterface]("echo.embeddingInterface")
	EchoTree                = typedrpc.NewMethod[Tree, Tree]("echo.tree")
	EchoList                = typedrpc.NewMethod[List, List]("echo.list")
	EchoEven                = typedrpc.NewMethod[Even, Even]("echo.even")
	EchoOdd                 = typedrpc.NewMethod[Odd, Odd]("echo.odd")
	EchoForest              = typedrpc.NewMethod[Forest, Forest]("echo.forest")
	EchoNest                = typedrpc.NewMethod[Nest, Nest]("echo.nest")
	EchoPing                = typedrpc.NewMethod[Ping, Ping]("echo.ping")
	EchoKnot                = typedrpc.NewMethod[Knot, Knot]("echo.knot")
	EchoPairStringInt       = typedrpc.NewMethod[Pair[string, int], Pair[string, int]]("echo.pairStringInt")
	EchoPairOfPairs         = typedrpc.NewMethod[Pair[Pair[int, bool], []int], Pair[Pair[int, bool], []int]]("echo.pairOfPairs")
	EchoNodeOfColor         = typedrpc.NewMethod[Node[Color], Node[Color]]("echo.nodeOfColor")
	EchoBoxOfBytes          = typedrpc.NewMethod[Box[byte], Box[byte]]("echo.boxOfBytes")
	EchoBoxOfLists          = typedrpc.NewMethod[Box[[]string], Box[[]string]]("echo.boxOfLists")
	EchoPageOfTitles        = typedrpc.NewMethod[other.Page[Title], other.Page[Title]]("echo.pageOfTitles")
	EchoPageOfPages         = typedrpc.NewMethod[other.Page[other.Page[int]], other.Page[other.Page[int]]]("echo.pageOfPages")
	EchoWrapper             = typedrpc.NewMethod[Wrapper, Wrapper]("echo.wrapper")
	EchoGenerics            = typedrpc.NewMethod[Generics, Generics]("echo.generics")
	EchoAnonymous           = typedrpc.NewMethod[Anonymous, Anonymous]("echo.anonymous")
	EchoInline              = typedrpc.NewMethod[struct {
		A int `json:"a"`
		B []struct {
			C bool `json:"c"`
		} `json:"b"`
	}, struct {
		A int `json:"a"`
		B []struct {
			C bool `json:"c"`
		} `json:"b"`
	}]("echo.inline")
	EchoAlias        = typedrpc.NewMethod[Alias, Alias]("echo.alias")
	EchoAliasOfInts  = typedrpc.NewMethod[AliasOf[int], AliasOf[int]]("echo.aliasOfInts")
	EchoAliases      = typedrpc.NewMethod[Aliases, Aliases]("echo.aliases")
	EchoMoney        = typedrpc.NewMethod[Money, Money]("echo.money")
	EchoPoint        = typedrpc.NewMethod[Point, Point]("echo.point")
	EchoHandle       = typedrpc.NewMethod[Handle, Handle]("echo.handle")
	EchoCustom       = typedrpc.NewMethod[Custom, Custom]("echo.custom")
	EchoRecord       = typedrpc.NewMethod[Record, Record]("echo.record")
	EchoDocumented   = typedrpc.NewMethod[Documented, Documented]("echo.documented")
	EchoColorsByKind = typedrpc.NewMethod[map[Kind]Color, map[Kind]Color]("echo.colorsByKind")
	EchoKindsByColor = typedrpc.NewMethod[map[Color]*Kind, map[Color]*Kind]("echo.kindsByColor")
	EchoMatrix       = typedrpc.NewMethod[[][]*float64, [][]*float64]("echo.matrix")
	EchoDeepNull     = typedrpc.NewMethod[map[string][]map[string]*[]string, map[string][]map[string]*[]string]("echo.deepNull")
)
