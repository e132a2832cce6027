package routers

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/NYTimes/gziphandler"
	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"github.com/matryer/is"
	"github.com/rs/cors"

	"github.com/typedrpc/typedrpc"
)

func init() { gin.SetMode(gin.ReleaseMode) }

// mounted is a server in a router.
type mounted struct {
	name    string
	handler func(srv *typedrpc.Server) http.Handler
	hides   string // what a Dial's error says, where that cannot work
}

func netHTTP(name string, wrap func(http.Handler) http.Handler, hides string) mounted {
	return mounted{"net/http, " + name, func(srv *typedrpc.Server) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/rpc", srv)
		return wrap(mux)
	}, hides}
}

func overNetHTTP() []mounted {
	return []mounted{
		netHTTP("bare", func(h http.Handler) http.Handler { return h }, ""),
		netHTTP("StripPrefix", func(h http.Handler) http.Handler { return http.StripPrefix("", h) }, ""),
		netHTTP("http.TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, "http.TimeoutHandler"),
		netHTTP("gzhttp", func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) }, ""),
		netHTTP("gziphandler", gziphandler.GzipHandler, ""),
		netHTTP("gziphandler in gzhttp", func(h http.Handler) http.Handler { return gzhttp.GzipHandler(gziphandler.GzipHandler(h)) }, ""),
		netHTTP("cors", cors.AllowAll().Handler, ""),
		netHTTP("gorilla's logging", func(h http.Handler) http.Handler { return handlers.CombinedLoggingHandler(io.Discard, h) }, ""),
		netHTTP("gzhttp within http.TimeoutHandler", func(h http.Handler) http.Handler {
			return http.TimeoutHandler(gzhttp.GzipHandler(h), time.Minute, "")
		}, "cannot be upgraded"),
	}
}

func inChi() []mounted {
	with := func(name, hides string, all ...func(http.Handler) http.Handler) mounted {
		return mounted{"chi, " + name, func(srv *typedrpc.Server) http.Handler {
			r := chi.NewRouter()
			r.Use(all...)
			r.Handle("/rpc", srv)
			return r
		}, hides}
	}
	logger := chimiddleware.RequestLogger(&chimiddleware.DefaultLogFormatter{Logger: quiet{}, NoColor: true})
	return []mounted{
		with("bare", ""),
		with("Logger", "", logger),
		with("Recoverer", "", chimiddleware.Recoverer),
		with("Compress", "", chimiddleware.Compress(5)),
		with("Timeout", "", chimiddleware.Timeout(time.Minute)),
		with("the usual", "", chimiddleware.RequestID, logger, chimiddleware.Recoverer,
			chimiddleware.Compress(5, "application/json", "text/plain"), chimiddleware.Timeout(time.Minute), chimiddleware.NoCache),
		with("Throttle", "", chimiddleware.Throttle(10)),
		{"chi, mounted below", func(srv *typedrpc.Server) http.Handler {
			below := chi.NewRouter()
			below.Handle("/", srv)
			r := chi.NewRouter()
			r.Use(logger)
			r.Mount("/rpc", below)
			return r
		}, ""},
	}
}

type quiet struct{}

func (quiet) Print(...any) {}

func inGin() []mounted {
	with := func(name string, all ...gin.HandlerFunc) mounted {
		return mounted{"gin, " + name, func(srv *typedrpc.Server) http.Handler {
			r := gin.New()
			r.Use(all...)
			r.Any("/rpc", gin.WrapH(srv))
			return r
		}, ""}
	}
	logger := gin.LoggerWithWriter(io.Discard)
	return []mounted{
		with("bare"),
		with("Logger", logger),
		with("Recovery", gin.RecoveryWithWriter(io.Discard)),
		with("gzip", gzip.Gzip(gzip.DefaultCompression)),
		with("the usual", logger, gin.RecoveryWithWriter(io.Discard), gzip.Gzip(gzip.BestSpeed), gin.ErrorLogger()),
		{"gin within http.TimeoutHandler", func(srv *typedrpc.Server) http.Handler {
			r := gin.New()
			r.Use(logger, gin.RecoveryWithWriter(io.Discard))
			r.Any("/rpc", gin.WrapH(srv))
			return http.TimeoutHandler(r, time.Minute, "")
		}, "http.TimeoutHandler"},
	}
}

func inEcho() []mounted {
	with := func(name, hides string, all ...echo.MiddlewareFunc) mounted {
		return mounted{"echo, " + name, func(srv *typedrpc.Server) http.Handler {
			e := echo.New()
			e.Logger.SetOutput(io.Discard)
			e.Use(all...)
			e.Any("/rpc", echo.WrapHandler(srv))
			return e
		}, hides}
	}
	logger := echomiddleware.RequestLoggerWithConfig(echomiddleware.RequestLoggerConfig{
		LogStatus: true, LogLatency: true, LogResponseSize: true,
		LogValuesFunc: func(echo.Context, echomiddleware.RequestLoggerValues) error { return nil },
	})
	return []mounted{
		with("bare", ""),
		with("RequestLogger", "", logger),
		with("Recover", "", echomiddleware.Recover()),
		with("Gzip", "", echomiddleware.Gzip()),
		with("Gzip, only what is long", "", echomiddleware.GzipWithConfig(echomiddleware.GzipConfig{MinLength: 1000})),
		with("Decompress", "", echomiddleware.Decompress()),
		with("ContextTimeout", "", echomiddleware.ContextTimeout(time.Minute)),
		//lint:ignore SA1019 it is what many servers have
		with("Timeout", "Timeout", echomiddleware.TimeoutWithConfig(echomiddleware.TimeoutConfig{Timeout: time.Minute})),
		with("BodyDump", "", echomiddleware.BodyDump(func(echo.Context, []byte, []byte) {})),
		with("the usual", "", logger, echomiddleware.Recover(), echomiddleware.RequestID(), echomiddleware.Secure(),
			echomiddleware.CORS(), echomiddleware.Gzip(), echomiddleware.BodyLimit("10M")),
	}
}

func inGorilla() []mounted {
	with := func(name, hides string, all ...mux.MiddlewareFunc) mounted {
		return mounted{"gorilla/mux, " + name, func(srv *typedrpc.Server) http.Handler {
			r := mux.NewRouter()
			r.Use(all...)
			r.Handle("/rpc", srv)
			return r
		}, hides}
	}
	logging := func(h http.Handler) http.Handler { return handlers.LoggingHandler(io.Discard, h) }
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }
	return []mounted{
		with("bare", ""),
		with("LoggingHandler", "", logging),
		with("RecoveryHandler", "", handlers.RecoveryHandler()),
		with("CompressHandler", "", handlers.CompressHandler),
		with("TimeoutHandler", "http.TimeoutHandler", timeout),
		with("LoggingHandler within TimeoutHandler", "http.TimeoutHandler", timeout, logging),
		with("the usual", "", logging, handlers.RecoveryHandler(), handlers.CompressHandler, handlers.ProxyHeaders, handlers.CORS()),
	}
}

func inHTTPRouter() []mounted {
	with := func(name, hides string, wrap func(http.Handler) http.Handler) mounted {
		return mounted{"httprouter, " + name, func(srv *typedrpc.Server) http.Handler {
			r := httprouter.New()
			r.PanicHandler = func(w http.ResponseWriter, _ *http.Request, _ any) { w.WriteHeader(http.StatusInternalServerError) }
			r.Handler(http.MethodGet, "/rpc", srv)
			r.Handler(http.MethodPost, "/rpc", srv)
			return wrap(r)
		}, hides}
	}
	return []mounted{
		with("bare", "", func(h http.Handler) http.Handler { return h }),
		with("gzhttp and logging", "", func(h http.Handler) http.Handler {
			return handlers.LoggingHandler(io.Discard, gzhttp.GzipHandler(h))
		}),
		with("TimeoutHandler", "http.TimeoutHandler", func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }),
	}
}

func all() (ms []mounted) {
	for _, f := range []func() []mounted{overNetHTTP, inChi, inGin, inEcho, inGorilla, inHTTPRouter} {
		ms = append(ms, f()...)
	}
	return ms
}

// TestDeploy_lines keeps docs/deploy.md and this file in step.
func TestDeploy_lines(t *testing.T) {
	is := is.New(t)
	page, err := os.ReadFile("../../../docs/deploy.md")
	is.NoErr(err)
	source, err := os.ReadFile("routers_test.go")
	is.NoErr(err)
	_, table, _ := strings.Cut(string(page), "| router |")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1)
	is.Equal(len(lines), 7) // two for httprouter
	for _, line := range lines {
		if !strings.Contains(string(source), "\t"+line[1]+"\n") {
			t.Errorf("docs/deploy.md has %s, which is not run", line[1])
		}
	}
}

func newServer(log io.Writer) *typedrpc.Server {
	m := typedrpc.NewMux()
	typedrpc.Handle(m, shout, handleShout)
	typedrpc.Handle(m, count, handleCount)
	return &typedrpc.Server{Mux: m, Logger: slog.New(slog.NewTextHandler(log, nil))}
}
