// Command gateway is the gateway of the original design, for `make compare`: a reverse proxy in Go
// that passes each path to its service, and keeps lists of available seats in Redis for 60 s. It is
// no part of the product. There, nginx is the gateway, and the seat service needs no cache.
//
// It reads GATEWAY_ADDR, the address to listen on; REDIS_URL; and AUTH_URL, SEAT_URL,
// RESERVATION_URL and NOTIFY_URL, the services.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := serve(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	options.DisableIdentity = true // Redis before 7.2 does not know it
	cache := redis.NewClient(options)
	defer func() { _ = cache.Close() }()

	services := services{}
	for _, s := range []struct {
		setting string
		service **url.URL
	}{
		{"AUTH_URL", &services.auth},
		{"SEAT_URL", &services.seat},
		{"RESERVATION_URL", &services.reservation},
		{"NOTIFY_URL", &services.notify},
	} {
		u, err := url.Parse(os.Getenv(s.setting))
		if err != nil || u.Host == "" {
			return fmt.Errorf("%s: %q is not a URL such as http://127.0.0.1:8081", s.setting, os.Getenv(s.setting))
		}
		*s.service = u
	}
	server := &http.Server{
		Addr: os.Getenv("GATEWAY_ADDR"), Handler: newGateway(cache, services), ReadHeaderTimeout: 5 * time.Second,
	}
	ended := context.AfterFunc(ctx, func() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(drain)
		_ = server.Close() // streams
	})
	defer ended()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("GATEWAY_ADDR: %w", err)
	}
	return nil
}
