package client

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// source gives tokens as a test says.
type source func(ctx context.Context) (credential.Token, error)

func (source) Key() string { return "" }

func (s source) Fetch(ctx context.Context) (credential.Token, error) { return s(ctx) }

func TestTokensThatEnd(t *testing.T) {
	lasts := func(value string, life time.Duration) credential.Token {
		return credential.Token{Value: value, Got: time.Now(), Expires: time.Now().Add(life)}
	}
	t.Run("a source that hangs holds nobody up while there is a token, and a context ends the wait else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			tokens := newTokens(source(func(ctx context.Context) (credential.Token, error) {
				if calls++; calls == 1 {
					return lasts("first", time.Hour), nil
				}
				<-ctx.Done()
				return credential.Token{}, ctx.Err()
			}), credential.Cache{})
			defer tokens.close()
			for _, at := range []time.Duration{0, 56 * time.Minute} { // of which it is to be renewed from 55 on
				time.Sleep(at)
				began := time.Now()
				if got, err := tokens.get(t.Context()); err != nil || got.Value != "first" || !time.Now().Equal(began) {
					t.Errorf("after %v: %v, %v, in %v", at, got.Value, err, time.Since(began))
				}
			}
			time.Sleep(5 * time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := tokens.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("a source with nothing better is not asked for every request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, token := 0, lasts("only", time.Hour)
			tokens := newTokens(source(func(context.Context) (credential.Token, error) {
				calls++
				return token, nil
			}), credential.Cache{})
			defer tokens.close()
			if _, err := tokens.next(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(56 * time.Minute)
			for range 100 {
				if got, err := tokens.get(t.Context()); err != nil || got.Value != "only" {
					t.Fatalf("got %v, %v", got.Value, err)
				}
				synctest.Wait()
			}
			if calls != 2 {
				t.Errorf("it was asked %d times", calls)
			}
		})
	})
	t.Run("many refusals of one token cost one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			tokens := newTokens(source(func(context.Context) (credential.Token, error) {
				return lasts(string('a'+calls.Add(1)), time.Hour), nil
			}), credential.Cache{})
			defer tokens.close()
			old, err := tokens.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				tokens.refused(old.Value)
				if got, err := tokens.get(t.Context()); err != nil || got.Value != "c" {
					t.Errorf("got %v, %v", got.Value, err)
				}
			}
			if calls.Load() != 2 {
				t.Errorf("it was asked %d times", calls.Load())
			}
		})
	})
	t.Run("who waits for a token when the client closes is told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tokens := newTokens(source(func(ctx context.Context) (credential.Token, error) {
				<-ctx.Done()
				return credential.Token{}, ctx.Err()
			}), credential.Cache{})
			told := make(chan error, 1)
			go func() {
				_, err := tokens.get(t.Context())
				told <- err
			}()
			synctest.Wait()
			tokens.close()
			if err := <-told; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
			if _, err := tokens.get(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	})
}

func TestEndOfAConnectionIsNoTimeout(t *testing.T) {
	cut := &mux.Error{Code: wire.CodeDeadlineExceeded, Hop: wire.HopHub, Message: "no byte for 24h0m0s"}
	err := Addr{Cluster: "edge-1"}.explain("read", cut)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != DeadlineExceeded || e.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a reader would try again for ever after %v", err)
	}
	if err := fromMux("dial", "edge-1", "", cut); !err.Timeout() || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial that took too long is no timeout: %v", err)
	}
}
